import { afterEach, expect, test, vi } from "vitest";
import { codes } from "nectar/codes";
import { Host, type Runtime } from "nectar/host";
import type { Port } from "nectar/protocol";
import { BuildMismatch, NodeError, RemoteNode, Stream } from "nectar/remote";
import type { IncomingMessage, MessageHandler, NodeApi, NodeEvent, RequestHandler, StartOptions, Undo } from "nectar/types";

/** A node whose other side is the test. */
class Scripted implements NodeApi {
  publicKey = new Uint8Array(32).fill(7);
  secure = true;
  closed = false;
  served = new Map<string, RequestHandler>();
  messages = new Map<string, MessageHandler>();
  streams = new Map<string, (stream: Stream) => void>();
  opened: Recorded[] = [];
  #sinks = new Set<(event: NodeEvent) => void>();

  constructor(readonly name: string | undefined) {}

  request = vi.fn<NodeApi["request"]>(async (_to, _protocol, payload) => ({ kind: "success", data: payload }));
  message = vi.fn(async () => {});
  serve = (protocol: string, handler: RequestHandler): Undo => put(this.served, protocol, handler);
  onMessage = (protocol: string, handler: MessageHandler): Undo => put(this.messages, protocol, handler);
  serveStream = (protocol: string, handler: (stream: Stream) => void): Undo => put(this.streams, protocol, handler);
  openStream = async (to: string, protocol: string, metadata?: Uint8Array) => {
    const backend = new Recorded(to, protocol, metadata);
    this.opened.push(backend);
    return new Stream(backend);
  };
  on = (handler: (event: NodeEvent) => void): Undo => {
    this.#sinks.add(handler);
    return () => void this.#sinks.delete(handler);
  };
  events = () => {
    throw new Error("unused");
  };
  resolve = async (name: string) => {
    throw NodeError.of("name_unknown", `nobody is ${name}`);
  };
  available = async () => true;
  connect = async () => {};
  peers = async () => [];
  routers = async () => [];
  ping = async () => 5;
  close = async () => void (this.closed = true);
  emit(event: NodeEvent) {
    for (const sink of this.#sinks) sink(event);
  }
}

class Recorded {
  calls: unknown[][] = [];
  chunks: (Uint8Array | undefined)[] = [];
  constructor(
    readonly from: string,
    readonly protocol: string,
    readonly metadata: Uint8Array | undefined,
  ) {}
  read = async () => this.chunks.shift();
  write = async (chunk: Uint8Array) => void this.calls.push(["write", ...chunk]);
  finish = async () => void this.calls.push(["finish"]);
  reset = (code: number) => void this.calls.push(["reset", code]);
  stop = (code: number) => void this.calls.push(["stop", code]);
}

function put<T>(map: Map<string, T>, key: string, value: T): Undo {
  map.set(key, value);
  return () => void map.delete(key);
}

/** Web Locks, as far as host and pages use them. */
class Locks {
  #held = new Map<string, { end: (error?: unknown) => void }>();
  #waiting = new Map<string, (() => void)[]>();

  async request(name: string, ...rest: unknown[]): Promise<unknown> {
    const callback = rest.at(-1) as (lock: object | null) => unknown;
    const options = (rest.length > 1 ? rest[0] : {}) as { ifAvailable?: boolean; steal?: boolean };
    if (options.steal) this.#held.get(name)?.end(new DOMException("stolen", "AbortError"));
    else if (this.#held.has(name)) {
      if (options.ifAvailable) return callback(null);
      await new Promise<void>((resolve) => this.#waiting.set(name, [...(this.#waiting.get(name) ?? []), resolve]));
    }
    const mine = { end: (_?: unknown) => {} };
    const stolen = new Promise((_, reject) => (mine.end = reject));
    stolen.catch(() => {});
    this.#held.set(name, mine);
    try {
      return await Promise.race([callback({ name }), stolen]);
    } finally {
      if (this.#held.get(name) === mine) this.#held.delete(name);
      this.#waiting.get(name)?.shift()?.();
    }
  }
}

const open: { close(): void }[] = [];
afterEach(() => {
  for (const each of open.splice(0)) each.close();
});

function setting(build = "one", locks?: Locks) {
  const nodes: Scripted[] = [];
  /** What a node that starts waits for. */
  const set: { starting?: Promise<void> } = {};
  const runtime: Runtime = {
    start: async (options) => {
      const node = new Scripted(options.name);
      nodes.push(node);
      await set.starting;
      return node;
    },
    generateKey: async () => new Uint8Array([1, 2, 3]),
  };
  const host = new Host(runtime, { build, locks: locks as unknown as LockManager | undefined });
  const page = async (as = build, lock?: { name: string; release: Undo }) => {
    const { port1, port2 } = new MessageChannel();
    open.push(port1, port2);
    host.accept(port1 as unknown as Port);
    return RemoteNode.over(port2 as unknown as Port, as, lock);
  };
  return Object.assign(set, { host, nodes, page });
}

const options = (name?: string): StartOptions => ({ registries: [], ...(name === undefined ? { guest: true } : { name }) });
const bytes = (...values: number[]) => new Uint8Array(values);
const settle = () => new Promise((resolve) => setTimeout(resolve, 20));

test("two pages share one node, and each learns what runs", async () => {
  const { nodes, page } = setting();
  const one = await page();
  const two = await page();
  const told = vi.fn();
  two.onRunning(told);
  await Promise.all([one.start(options("alice.nectar")), two.start(options("alice.nectar"))]);
  expect(nodes).toHaveLength(1);
  expect(one.name).toBe("alice.nectar");
  expect(two.publicKey).toEqual(nodes[0]?.publicKey);
  expect(told).toHaveBeenCalledWith(expect.objectContaining({ name: "alice.nectar", secure: true }));
  const late = await page();
  expect(late.running?.name).toBe("alice.nectar");
});

test("other options stop the old node before the new one starts, and handlers move over", async () => {
  const { nodes, page } = setting();
  const one = await page();
  one.serve("greet.1", () => bytes(1));
  await one.start(options());
  expect(nodes[0]?.served.has("greet.1")).toBe(true);
  await one.start(options("alice.nectar"));
  expect(nodes[0]?.closed).toBe(true);
  expect(nodes[0]?.served.size).toBe(0);
  expect(nodes[1]?.served.has("greet.1")).toBe(true);
  await one.start(options("alice.nectar"), true);
  expect(nodes).toHaveLength(3);
});

test("a page of another build is turned away", async () => {
  const { host, page } = setting();
  await expect(page("two")).rejects.toBeInstanceOf(BuildMismatch);
  await settle();
  expect(host.pages).toBe(0);
});

test("requests cross in both directions, with their errors", async () => {
  const { nodes, page } = setting();
  const one = await page();
  await one.start(options("alice.nectar"));
  const node = nodes[0]!;
  expect(await one.request("bob.nectar", "echo.1", bytes(1, 2), { deadlineMs: 100 })).toEqual({ kind: "success", data: bytes(1, 2) });
  expect(node.request.mock.calls[0]?.[3]).toMatchObject({ deadlineMs: 100 });

  node.request.mockRejectedValueOnce(new NodeError({ code: 303, name: "circuit_rate", message: "slow down", retryAfterMs: 500 }));
  const failure = await one.request("bob.nectar", "echo.1", bytes()).catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(NodeError);
  expect(failure).toMatchObject({ code: 303, name: "circuit_rate", message: "slow down", retryAfterMs: 500, fault: "limit", retry: "later" });
  expect(failure).toMatchObject({ said: undefined });
  node.request.mockRejectedValueOnce(NodeError.ofNumber(303, "in the peer's words"));
  await expect(one.request("bob.nectar", "echo.1", bytes())).rejects.toMatchObject({ message: "in the peer's words", said: true });
  await expect(one.resolve("nobody.nectar")).rejects.toMatchObject({ name: "name_unknown" });

  const undo = one.serve("add.1", ({ from, payload }) => {
    if (from === null) throw NodeError.of("not_allowed");
    return bytes(payload[0]! + 1);
  });
  await settle();
  const handler = node.served.get("add.1")!;
  expect(await handler({ from: "bob.nectar", payload: bytes(41) })).toEqual(bytes(42));
  await expect(Promise.resolve(handler({ from: null, payload: bytes(1) }))).rejects.toMatchObject({ name: "not_allowed" });
  undo();
  await settle();
  expect(node.served.has("add.1")).toBe(false);
});

test("a payload that fills its buffer moves; a view of a larger one is copied", async () => {
  const { page } = setting();
  const one = await page();
  await one.start(options("alice.nectar"));
  const whole = bytes(1, 2, 3);
  const view = bytes(9, 8, 7).subarray(0, 2);
  await one.request("bob.nectar", "echo.1", whole);
  expect(whole.byteLength).toBe(0);
  expect((await one.request("bob.nectar", "echo.1", view)) as object).toMatchObject({ data: bytes(9, 8) });
  expect(view.byteLength).toBe(2);
});

test("cancelling reaches the node", async () => {
  const { nodes, page } = setting();
  const one = await page();
  await one.start(options("alice.nectar"));
  nodes[0]!.request.mockImplementationOnce(
    (_to, _protocol, _payload, { signal } = {}) =>
      new Promise((_, reject) => signal?.addEventListener("abort", () => reject(NodeError.of("cancelled")))),
  );
  const abort = new AbortController();
  const asked = one.request("bob.nectar", "echo.1", bytes(), { signal: abort.signal });
  await settle();
  abort.abort();
  await expect(asked).rejects.toMatchObject({ name: "cancelled" });
});

test("a message goes to every page and counts once one of them took it", async () => {
  const { nodes, page } = setting();
  const [one, two] = [await page(), await page()];
  await one.start(options("alice.nectar"));
  const first = vi.fn<MessageHandler>(() => {
    throw NodeError.of("queue_full");
  });
  const second = vi.fn<MessageHandler>();
  one.onMessage("chat.1", first);
  const undo = two.onMessage("chat.1", second);
  await settle();
  const deliver = (message: IncomingMessage) => Promise.resolve(nodes[0]!.messages.get("chat.1")!(message));
  await deliver({ from: "bob.nectar", payload: bytes(1, 2) });
  await vi.waitFor(() => expect(first).toHaveBeenCalledTimes(1));
  expect(second).toHaveBeenCalledWith({ from: "bob.nectar", payload: bytes(1, 2) });
  undo();
  await settle();
  await expect(deliver({ from: "bob.nectar", payload: bytes(3) })).rejects.toMatchObject({ name: "queue_full" });
});

test("a stream goes to the page that the person used last", async () => {
  const { nodes, page } = setting();
  const [one, two] = [await page(), await page()];
  await one.start(options("alice.nectar"));
  const got: string[] = [];
  one.serveStream("file.1", () => got.push("one"));
  two.serveStream("file.1", () => got.push("two"));
  await settle();
  const arrive = () => nodes[0]!.streams.get("file.1")!(new Stream(new Recorded("bob.nectar", "file.1", undefined)));
  arrive();
  await settle();
  one.active();
  await settle();
  arrive();
  await settle();
  expect(got).toEqual(["two", "one"]);
});

test("streams carry chunks, ends and cancellation, by methods and by WHATWG views", async () => {
  const { nodes, page } = setting();
  const one = await page();
  await one.start(options("alice.nectar"));
  const stream = await one.openStream("bob.nectar", "file.1", bytes(5));
  const backend = nodes[0]!.opened[0]!;
  expect([stream.from, stream.protocol, stream.metadata]).toEqual(["bob.nectar", "file.1", bytes(5)]);
  backend.chunks = [bytes(1), bytes(2, 3)];
  const read: number[] = [];
  for await (const chunk of stream.readable as unknown as AsyncIterable<Uint8Array>) read.push(...chunk);
  expect(read).toEqual([1, 2, 3]);
  const writer = stream.writable.getWriter();
  await writer.write(bytes(4));
  await writer.close();
  expect(backend.calls).toEqual([["write", 4], ["finish"]]);

  const other = await one.openStream("bob.nectar", "file.1");
  other.cancel();
  await settle();
  expect(nodes[0]!.opened[1]!.calls).toEqual([
    ["reset", codes.cancelled.code],
    ["stop", codes.cancelled.code],
  ]);
  await expect(other.read()).rejects.toMatchObject({ name: "stream_reset" });
});

test("a page that closes leaves nothing behind in the worker", async () => {
  const { host, nodes, page } = setting();
  const one = await page();
  await one.start(options("alice.nectar"));
  one.serve("greet.1", () => new Promise(() => {}));
  one.onMessage("chat.1", () => {});
  one.serveStream("file.1", () => {});
  await one.openStream("bob.nectar", "file.1");
  await settle();
  const node = nodes[0]!;
  const unanswered = Promise.resolve(node.served.get("greet.1")!({ from: "bob.nectar", payload: bytes() }));
  unanswered.catch(() => {});
  await one.close();
  await settle();
  expect(host.pages).toBe(0);
  expect([node.served.size, node.messages.size, node.streams.size]).toEqual([0, 0, 0]);
  expect(node.opened[0]!.calls).toEqual([
    ["reset", codes.cancelled.code],
    ["stop", codes.cancelled.code],
  ]);
  await expect(unanswered).rejects.toMatchObject({ name: "handler_failed" });
  expect(node.closed).toBe(false);
  await expect(one.ping("bob.nectar")).rejects.toMatchObject({ name: "node_closed" });
});

test("a page that dies without a word is noticed by its lock", async () => {
  const locks = new Locks();
  const { host, nodes, page } = setting("one", locks);
  let die: Undo = () => {};
  void locks.request("page lock", () => new Promise<void>((resolve) => (die = resolve)));
  const one = await page("one", { name: "page lock", release: () => {} });
  await one.start(options("alice.nectar"));
  one.serve("greet.1", () => bytes());
  await settle();
  expect([host.pages, nodes[0]!.served.size]).toEqual([1, 1]);
  die();
  await settle();
  expect([host.pages, nodes[0]!.served.size]).toEqual([0, 0]);
});

test("a worker that dies is told to whoever watches", async () => {
  const { page } = setting();
  const one = await page();
  await one.start(options("alice.nectar"));
  const told: unknown[] = [];
  one.on((event) => told.push(event));
  one.onRunning((running) => told.push(running));
  expect(one.closed).toBe(false);
  for (const port of open.splice(0)) port.close();
  await vi.waitFor(() => expect(told).toEqual([{ type: "identity", state: "offline" }, undefined]));
  expect(one.closed).toBe(true);
});

test("one identity runs once in a browser, and can be taken over", async () => {
  const locks = new Locks();
  const here = setting("one", locks);
  const there = setting("one", locks);
  const one = await here.page();
  const two = await there.page();
  const events: NodeEvent[] = [];
  one.on((event) => events.push(event));
  await one.start(options("alice.nectar"));
  await expect(two.start(options("alice.nectar"))).rejects.toMatchObject({ name: "superseded" });
  expect(there.nodes).toHaveLength(0);
  await two.start(options("alice.nectar"), true);
  await settle();
  expect(events).toContainEqual({ type: "identity", state: "superseded" });
  expect(here.nodes[0]?.closed).toBe(true);
  expect(two.running?.name).toBe("alice.nectar");
});

test("an identity that is taken over while its node starts is given up as soon as it has", async () => {
  const locks = new Locks();
  const here = setting("one", locks);
  const there = setting("one", locks);
  let goOn: Undo = () => {};
  here.starting = new Promise<void>((resolve) => (goOn = resolve));
  const started = (await here.page()).start(options("alice.nectar"));
  started.catch(() => {});
  await settle();
  await (await there.page()).start(options("alice.nectar"), true);
  goOn();
  await expect(started).rejects.toMatchObject({ name: "superseded" });
  expect(here.nodes[0]?.closed).toBe(true);
  expect([here.host.running, there.host.running?.name]).toEqual([undefined, "alice.nectar"]);
});

test("events reach every page, as callbacks and as an iterator", async () => {
  const { nodes, page } = setting();
  const [one, two] = [await page(), await page()];
  await one.start(options("alice.nectar"));
  await settle();
  const iterator = two.events();
  const seen = vi.fn();
  one.on(seen);
  nodes[0]!.emit({ type: "identity", state: "online" });
  nodes[0]!.emit({ type: "peer", name: "bob.nectar", state: "online", route: "direct" });
  expect((await iterator.next()).value).toEqual({ type: "identity", state: "online" });
  expect((await iterator.next()).value).toMatchObject({ type: "peer", name: "bob.nectar" });
  await iterator.return?.();
  expect((await iterator.next()).done).toBe(true);
  expect(seen).toHaveBeenCalledTimes(2);
  expect(two.running?.identity).toBe("online");
});

test("calls that the worker does not know are refused by name", async () => {
  const { host } = setting();
  const { port1, port2 } = new MessageChannel();
  open.push(port1, port2);
  host.accept(port1 as unknown as Port);
  const answer = new Promise<MessageEvent>((resolve) => port2.addEventListener("message", resolve as never, { once: true }));
  port2.start();
  port2.postMessage({ t: "call", id: 1, method: "constructor", args: [] });
  expect((await answer).data).toMatchObject({ t: "result", id: 1, error: { name: "invalid_argument" } });
});
