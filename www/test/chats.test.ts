import "fake-indexeddb/auto";
import { beforeEach, expect, test } from "vitest";
import { Chats, decodeChat, encodeChat, TEXT_MAX, type Conversation, type TextEntry } from "../src/lib/chats.ts";
import { Database } from "../src/lib/db.ts";
import { Vault, type Sealed } from "../src/lib/vault.ts";

let db: Database;
let vault: Vault;
let chats: Chats;
let count = 0;

beforeEach(async () => {
  db = await Database.open(`chats ${++count}`);
  vault = await Vault.open(db);
  chats = new Chats(db, vault);
});

async function conversation(peer = "bob.nectar", me = "alice.nectar"): Promise<Conversation> {
  const id = await chats.conversationId(me, peer);
  return { id, me, peer, epoch: 1, key: "00", how: "one RPC", accepted: true, blocked: false, unread: 0 };
}

function text(id: string, words: string, order: number, mine = true): TextEntry {
  return { kind: "text", id, mine, at: order, order, state: mine ? "delivered" : "received", text: words };
}

test("neither names nor words lie readable in the database", async () => {
  const bob = await conversation();
  await chats.addConversation(bob);
  await chats.add(bob.id, text("1", "the words themselves", 1));
  const raw = JSON.stringify([await db.all("conversations"), await db.all("messages")], (_, value) =>
    value instanceof ArrayBuffer ? new TextDecoder("latin1").decode(value) : value,
  );
  expect(raw).not.toMatch(/bob|alice|words/);
  expect((await chats.conversations("alice.nectar"))[0]).toEqual(bob);
  expect(await chats.entries(bob.id)).toEqual([text("1", "the words themselves", 1)]);
});

test("the keys cannot be exported and are the same for two tabs that open at once", async () => {
  const fresh = await Database.open("race");
  const [one, two] = await Promise.all([Vault.open(fresh), Vault.open(fresh)]);
  const sealed = await one.seal("secret", "place");
  expect(await two.open(sealed, "place")).toBe("secret");
  const keys = await fresh.all<CryptoKey>("keys");
  expect(keys).toHaveLength(2);
  for (const key of keys) await expect(crypto.subtle.exportKey("raw", key)).rejects.toThrow();
});

test("a sealed value does not open in another place, nor after a changed bit", async () => {
  const sealed = await vault.seal({ a: 1 }, "here");
  await expect(vault.open(sealed, "there")).rejects.toThrow();
  const bent: Sealed = { iv: sealed.iv, data: sealed.data.slice(0) };
  new Uint8Array(bent.data)[3]! ^= 1;
  await expect(vault.open(bent, "here")).rejects.toThrow();
});

test("a message that comes twice is kept once, and a peer cannot overwrite what we wrote", async () => {
  const bob = await conversation();
  await chats.addConversation(bob);
  expect(await chats.add(bob.id, text("1", "mine", 1, true))).toBe("added");
  expect(await chats.add(bob.id, text("1", "theirs", 2, false))).toBe("added");
  expect(await chats.add(bob.id, text("1", "theirs again", 3, false))).toBe("known");
  const entries = await chats.entries(bob.id);
  expect(entries.map((entry) => (entry.kind === "text" ? entry.text : ""))).toEqual(["mine", "theirs"]);
});

test("the latest five hundred entries are loaded, oldest first, of one conversation only", async () => {
  const bob = await conversation();
  const carol = await conversation("carol.nectar");
  expect(carol.id).not.toBe(bob.id);
  await chats.addConversation(bob);
  await chats.addConversation(carol);
  await chats.add(carol.id, text("x", "other", 5));
  for (let i = 0; i < 503; i++) await chats.add(bob.id, text(String(i), String(i), i));
  const entries = await chats.entries(bob.id);
  expect(entries).toHaveLength(500);
  expect(entries[0]?.id).toBe("3");
  expect(entries.at(-1)?.id).toBe("502");
  await chats.removeConversation(bob.id);
  expect(await chats.entries(bob.id)).toEqual([]);
  expect(await chats.entries(carol.id)).toHaveLength(1);
});

test("of two who change a conversation at once, neither undoes what the other did", async () => {
  const bob = await conversation();
  await chats.addConversation(bob);
  const another = new Chats(db, vault);
  const count = ({ unread }: Conversation) => ({ unread: unread + 1 });
  await Promise.all([...Array(8)].flatMap(() => [chats.change(bob.id, count), another.change(bob.id, count)]));
  await Promise.all([chats.change(bob.id, () => ({ blocked: true })), another.change(bob.id, count)]);
  expect(await chats.conversations("alice.nectar")).toEqual([{ ...bob, blocked: true, unread: 17 }]);
});

test("what is gone is neither changed nor added to", async () => {
  const bob = await conversation();
  await chats.addConversation(bob);
  await chats.add(bob.id, text("1", "words", 1));
  await chats.removeConversation(bob.id);
  expect(await chats.change(bob.id, () => ({ unread: 1 }))).toBeUndefined();
  expect(await chats.add(bob.id, text("2", "more words", 2))).toBe("gone");
  expect(await chats.update(bob.id, text("1", "words", 1))).toBe(false);
  expect(await chats.conversations("alice.nectar")).toEqual([]);
  expect(await chats.entries(bob.id)).toEqual([]);
});

test("conversations of another name of ours stay out of sight", async () => {
  await chats.addConversation(await conversation("bob.nectar", "alice.nectar"));
  await chats.addConversation(await conversation("bob.nectar", "other.nectar"));
  expect(await chats.conversations("alice.nectar")).toHaveLength(1);
  expect(await chats.addConversation(await conversation())).toBe(false);
});

test("what a peer sends is checked before it is believed", () => {
  const message = { id: "1", text: "hello", at: 3 };
  expect(decodeChat(encodeChat(message))).toEqual(message);
  const bad: unknown[] = [
    null,
    [],
    { text: "x", at: 1 },
    { id: "", text: "x", at: 1 },
    { id: "x".repeat(65), text: "x", at: 1 },
    { id: "1", text: "x".repeat(TEXT_MAX + 1), at: 1 },
    { id: "1", text: 5, at: 1 },
    { id: "1", text: "x", at: "now" },
  ];
  for (const value of bad) expect(() => decodeChat(new TextEncoder().encode(JSON.stringify(value)))).toThrow();
  expect(() => decodeChat(new Uint8Array([0xff, 0xfe]))).toThrow("JSON");
});
