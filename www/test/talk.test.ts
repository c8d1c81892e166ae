import "fake-indexeddb/auto";
import { NodeError, type MessageHandler, type NodeEvent, type RemoteNode, type Stream } from "nectar/remote";
import { beforeEach, expect, test, vi } from "vitest";
import { Chats, encodeChat, STRANGER_MESSAGES, STRANGERS, TEXT_MAX, type AskEntry } from "../src/lib/chats.ts";
import { Database } from "../src/lib/db.ts";
import { Vault } from "../src/lib/vault.ts";
import { Talk } from "../src/state/talk.svelte.ts";

const ME = "me.nectar";

/** Tabs of one browser, of which a test has one, and speaks for the others. */
class Tabs {
  static #listeners = new Set<(event: { data: string }) => void>();
  static say(data: string) {
    for (const each of Tabs.#listeners) each({ data });
  }
  addEventListener = (_: string, listener: (event: { data: string }) => void) => void Tabs.#listeners.add(listener);
  postMessage() {}
}

/** A node whose peers are the test. */
class FakeNode {
  messages!: MessageHandler;
  streams!: (stream: Stream) => void;
  emit!: (event: NodeEvent) => void;
  epoch = 1;
  how = "2 of 3 RPCs";
  /** While it is set, look-ups and messages wait for it. */
  gate: Promise<void> | undefined;

  on = (sink: (event: NodeEvent) => void) => ((this.emit = sink), () => {});
  onMessage = (_: string, handler: MessageHandler) => ((this.messages = handler), () => {});
  serveStream = (_: string, handler: (stream: Stream) => void) => ((this.streams = handler), () => {});
  connect = async () => {};
  message = vi.fn(async () => this.gate);
  request = vi.fn<RemoteNode["request"]>();
  resolve = async (name: string) => {
    const { epoch, how } = this;
    await this.gate;
    return { name, key: new Uint8Array(32).fill(epoch), epoch, version: 1, routers: [], how };
  };

  /** Makes look-ups and messages wait; returns what lets them go on. */
  hold(): () => void {
    let release = () => {};
    this.gate = new Promise<void>((resolve) => (release = resolve));
    return () => {
      this.gate = undefined;
      release();
    };
  }
}

let count = 0;
let visibilityState: DocumentVisibilityState;

beforeEach(() => {
  visibilityState = "hidden";
  vi.stubGlobal("BroadcastChannel", Tabs);
  vi.stubGlobal("document", { get visibilityState() { return visibilityState; } });
});

async function setting(announce: (text: string) => void = () => {}) {
  const db = await Database.open(`talk ${++count}`);
  const chats = new Chats(db, await Vault.open(db));
  const node = new FakeNode();
  const talk = new Talk(node as unknown as RemoteNode, chats, ME, announce);
  await talk.load();
  const write = async (from: string, text = "hi", id: string = crypto.randomUUID()) =>
    node.messages({ from, payload: encodeChat({ id, text, at: 1 }) });
  const kept = () => chats.conversations(ME);
  const with_ = (peer: string) => talk.conversations.find((each) => each.peer === peer)!;
  return { db, chats, node, talk, write, kept, with_ };
}

test("who is blocked while a message of his is noted stays blocked", async () => {
  let noted = () => {};
  const { talk, write, kept, with_ } = await setting(() => noted());
  await write("eve.nectar");
  let blocked: Promise<void> | undefined;
  noted = () => (blocked = talk.block(with_("eve.nectar")));
  await write("eve.nectar");
  await blocked;
  expect(await kept()).toMatchObject([{ blocked: true, unread: 2 }]);
  expect(talk.conversations).toMatchObject([{ blocked: true }]);
});

test("who is blocked while his record is looked up stays blocked", async () => {
  const { talk, node, write, kept, with_ } = await setting();
  await talk.add("eve.nectar");
  const release = node.hold();
  node.how = "3 of 3 RPCs";
  const verified = talk.verify("eve.nectar");
  await talk.block(with_("eve.nectar"));
  release();
  await verified;
  expect(await kept()).toMatchObject([{ blocked: true, how: "3 of 3 RPCs" }]);
  await expect(write("eve.nectar")).rejects.toThrow(NodeError);
});

test("what another tab told does not undo what was done here since", async () => {
  const { talk, chats, write, kept, with_ } = await setting();
  await write("eve.nectar");
  const { id } = with_("eve.nectar");
  const read = chats.conversations.bind(chats);
  let release = () => {};
  vi.spyOn(chats, "conversations").mockImplementationOnce(async (me) => {
    const before = await read(me);
    await new Promise<void>((resolve) => (release = resolve));
    return before;
  });
  Tabs.say(id);
  await vi.waitFor(() => expect(chats.conversations).toHaveBeenCalled());
  await talk.block(with_("eve.nectar"));
  release();
  await vi.waitFor(async () => expect(await kept()).toMatchObject([{ blocked: true }]));
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(talk.conversations).toMatchObject([{ blocked: true }]);
});

test("a contact that was deleted while its record was looked up does not come back", async () => {
  const { talk, node, kept } = await setting();
  const bob = await talk.add("bob.nectar");
  const release = node.hold();
  node.how = "3 of 3 RPCs";
  const verified = talk.verify("bob.nectar");
  await talk.remove(bob);
  release();
  await verified;
  expect(await kept()).toEqual([]);
  expect(talk.conversations).toEqual([]);
});

test("a message of a contact that was deleted while it was sent does not come back", async () => {
  const { talk, chats, node } = await setting();
  const bob = await talk.add("bob.nectar");
  const release = node.hold();
  const sent = talk.sendText(bob, "a secret");
  await vi.waitFor(async () => expect(await chats.entries(bob.id)).toHaveLength(1));
  await talk.remove(bob);
  release();
  await sent;
  expect(await chats.entries(bob.id)).toEqual([]);
});

test("nothing is written to a contact that is gone", async () => {
  const { talk, chats } = await setting();
  const bob = await talk.add("bob.nectar");
  await talk.remove(bob);
  await expect(talk.sendText(bob, "a secret")).rejects.toThrow("deleted");
  expect(await chats.entries(bob.id)).toEqual([]);
});

/** Lets `times` run at once; how many of them were taken. */
async function taken(times: number, run: (index: number) => Promise<unknown>): Promise<number> {
  const results = await Promise.allSettled(Array.from({ length: times }, (_, index) => run(index)));
  return results.filter(({ status }) => status === "fulfilled").length;
}

test("strangers who are blocked keep no other stranger out", async () => {
  const { talk, write, with_ } = await setting();
  for (let i = 0; i < STRANGERS; i++) {
    await write(`eve${i}.nectar`);
    await talk.block(with_(`eve${i}.nectar`));
  }
  await write("honest.nectar");
  expect(with_("honest.nectar")).toMatchObject({ accepted: false, unread: 1 });
});

test("of a hundred strangers who come at once, as many are let in as may wait", async () => {
  const { talk, write, with_ } = await setting();
  expect(await taken(100, (i) => write(`eve${i}.nectar`))).toBe(STRANGERS);
  expect(talk.conversations).toHaveLength(STRANGERS);
  await talk.accept(with_("eve0.nectar"));
  expect(await taken(1, () => write("honest.nectar"))).toBe(1);
});

test("a stranger whose messages come at once takes one place, and none when nobody can say who it is", async () => {
  const { talk, node, write } = await setting();
  expect(await taken(STRANGERS + 1, () => write("eve.nectar"))).toBe(STRANGERS + 1);
  expect(talk.conversations).toHaveLength(1);
  vi.spyOn(node, "resolve").mockRejectedValue(NodeError.of("chain_unavailable"));
  expect(await taken(STRANGERS, (i) => write(`nobody${i}.nectar`))).toBe(0);
  vi.mocked(node.resolve).mockRestore();
  expect(await taken(STRANGERS - 1, (i) => write(`eve${i}.nectar`))).toBe(STRANGERS - 1);
});

test("a stranger leaves so many messages and no more, also at once, and in a conversation that is open", async () => {
  const { talk, chats, write, with_ } = await setting();
  visibilityState = "visible";
  await write("eve.nectar", "first", "first");
  const { id } = with_("eve.nectar");
  await talk.select(id);
  expect(await taken(2 * STRANGER_MESSAGES, () => write("eve.nectar"))).toBe(STRANGER_MESSAGES - 1);
  expect(await chats.entries(id)).toHaveLength(STRANGER_MESSAGES);
  await write("eve.nectar", "first", "first");
  await talk.accept(with_("eve.nectar"));
  await write("eve.nectar");
  expect(talk.entries).toHaveLength(STRANGER_MESSAGES + 1);
});

test("a file that a stranger offers counts as a message", async () => {
  const { node, chats, write, with_ } = await setting();
  await write("eve.nectar");
  for (let i = 1; i < STRANGER_MESSAGES; i++) await write("eve.nectar");
  const { stream, cancelled } = offered("eve.nectar");
  node.streams(stream);
  await cancelled;
  expect(await chats.entries(with_("eve.nectar").id)).toHaveLength(STRANGER_MESSAGES);
});

test("what a peer answers is kept up to the length of a message, and what it says went wrong as its words", async () => {
  const { talk, chats, node } = await setting();
  const bob = await talk.add("bob.nectar");
  node.request.mockResolvedValueOnce({ kind: "success", data: new TextEncoder().encode("€".repeat(TEXT_MAX + 1)) });
  await talk.ask(bob, "how much?");
  node.request.mockResolvedValueOnce({ kind: "success", data: new TextEncoder().encode("€".repeat(TEXT_MAX)) });
  await talk.ask(bob, "and now?");
  node.request.mockRejectedValueOnce(NodeError.ofNumber(NodeError.of("not_allowed").code, "sign in first"));
  await talk.ask(bob, "why?");
  const [long, short, failed] = (await chats.entries(bob.id)) as AskEntry[];
  expect(long?.answer).toBe(`${"€".repeat(TEXT_MAX - 1)}…`);
  expect(short?.answer).toBe("€".repeat(TEXT_MAX));
  expect(failed?.error).toBe("bob.nectar says: “sign in first”");
});

test("what the new owner of a name writes is refused until the person knows it", async () => {
  const { talk, node, chats, write, with_ } = await setting();
  const bob = await talk.add("bob.nectar");
  node.epoch = 2;
  await expect(talk.verify("bob.nectar")).rejects.toMatchObject({ name: "epoch_changed" });
  await expect(write("bob.nectar", "it is me, your old friend")).rejects.toMatchObject({ name: "not_allowed" });
  expect(await chats.entries(bob.id)).toEqual([]);
  await talk.confirmOwner(with_("bob.nectar"));
  await write("bob.nectar");
  expect(await chats.entries(bob.id)).toHaveLength(1);

  node.epoch = 3;
  await talk.verify("bob.nectar").catch(() => {});
  await talk.remove(with_("bob.nectar"));
  await write("bob.nectar", "a stranger like any other");
  expect(with_("bob.nectar")).toMatchObject({ accepted: false, epoch: 3 });
});

test("whoever is deleted or blocked takes offers and received files along", async () => {
  const revoked = vi.spyOn(URL, "revokeObjectURL");
  for (const leave of ["remove", "block", "remove in another tab"] as const) {
    const { talk, node, chats, with_ } = await setting();
    const files = talk.files;
    await talk.add("bob.nectar");
    await talk.add("carol.nectar");
    const [received, running, waiting, other] = [offered("bob.nectar"), offered("bob.nectar"), offered("bob.nectar"), offered("carol.nectar")];
    for (const { stream } of [received, running, waiting, other]) node.streams(stream);
    await vi.waitFor(() => expect(Object.keys(files.transfers)).toHaveLength(4));
    const [first, second, , fourth] = Object.keys(files.transfers) as [string, string, string, string];
    received.goOn();
    await files.accept(first);
    const { url } = files.transfers[first]!;
    const accepted = files.accept(second);
    const bob = with_("bob.nectar");
    if (leave === "remove" || leave === "block") await talk[leave](bob);
    else {
      await chats.removeConversation(bob.id);
      Tabs.say(bob.id);
    }
    await Promise.all([running.cancelled, waiting.cancelled, accepted]);
    expect(revoked).toHaveBeenLastCalledWith(url);
    expect(Object.keys(files.transfers)).toEqual([fourth]);
  }
});

/** A file of one byte that somebody offers, which comes when it may go on; `cancelled` resolves when it is refused or taken back. */
function offered(from: string) {
  const metadata = new TextEncoder().encode(JSON.stringify({ name: "a.txt", size: 1, type: "text/plain" }));
  let cancel = () => {};
  const cancelled = new Promise<void>((resolve) => (cancel = resolve));
  let goOn = () => {};
  const gone = cancelled.then(() => Promise.reject(NodeError.of("cancelled")));
  gone.catch(() => {});
  const chunks = [new Promise<Uint8Array>((resolve) => (goOn = () => resolve(new Uint8Array(1)))), Promise.resolve(undefined)];
  const read = () => Promise.race([chunks.shift(), gone]);
  const stream = { from, protocol: "file.1", metadata, cancel, read, write: async () => {}, finish: async () => {} };
  return { stream: stream as unknown as Stream, cancelled, goOn: () => goOn() };
}
