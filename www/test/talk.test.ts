import "fake-indexeddb/auto";
import { NodeError, type MessageHandler, type NodeEvent, type RemoteNode, type Stream } from "nectar/remote";
import { beforeEach, expect, test, vi } from "vitest";
import { Chats, encodeChat } from "../src/lib/chats.ts";
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
