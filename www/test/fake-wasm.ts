/** Stands in for the wasm module in tests of the page: names come from the real chain, peers are scripted.
 *
 * `echo` answers, writes back and takes files; `bob` writes first and offers a file when told "file"; `sold` changes
 * its owner when told "sell"; nobody else is online. Told "drop", we
 * lose our routers, come back and lose them for good; "break", the peer's connection. */

import { Contract, isError, JsonRpcProvider } from "ethers";
import { NodeError } from "nectar/remote";
import type { NodeEvent, ResolvedRecord, StartOptions } from "nectar/remote";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export default async function init(): Promise<void> {}

type Handler<T> = (input: T) => unknown;
interface Incoming {
  from: string | null;
  payload: Uint8Array;
}

export class WasmNode {
  static async start(options: StartOptions): Promise<WasmNode> {
    return new WasmNode(options, await generateKey());
  }

  #messages = new Map<string, Handler<Incoming>>();
  #streams = new Map<string, Handler<WasmStream>>();
  #sink: (event: NodeEvent) => void = () => {};
  #routers: { name: string; state: "online"; latencyMs: number }[] = [];
  #epochs = new Map<string, number>();
  #closed = false;

  private constructor(
    readonly options: StartOptions,
    readonly key: Uint8Array,
  ) {
    setTimeout(() => this.#goOnline(), 200);
  }

  name = () => this.options.name;
  publicKey = () => this.key.slice();
  secure = () => true;
  serve(): void {}
  unserve(): void {}
  peers = () => [];
  routers = () => this.#routers;
  ping = async () => 12;

  async request(name: string, protocol: string, payload: Uint8Array) {
    this.#reach(name);
    if (protocol !== "echo.1") return { kind: "error", code: NodeError.of("no_handler").code };
    return { kind: "success", data: encoder.encode(`echo: ${decoder.decode(payload)}`) };
  }

  async message(name: string, protocol: string, payload: Uint8Array): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, 150));
    this.#reach(name);
    const { text } = JSON.parse(decoder.decode(payload)) as { text: string };
    if (labelOf(name) === "sold" && text === "sell") this.#epochs.set("sold", 2);
    if (labelOf(name) === "bob" && text === "file") {
      setTimeout(() => this.#offerFile(name), 100);
      return;
    }
    if (text === "drop") {
      for (const [index, state] of (["offline", "online", "offline"] as const).entries()) {
        setTimeout(() => this.#sink({ type: "identity", state }), 300 * (index + 1));
      }
    }
    if (text === "break") setTimeout(() => this.#sink({ type: "peer", name, state: "interrupted", error: NodeError.of("pipe_lost").toShape() }), 300);
    if (text === "supersede") setTimeout(() => this.#sink({ type: "identity", state: "superseded" }), 100);
    setTimeout(() => this.#say(name, protocol, `You said: ${text}`), 200);
  }

  onMessage(protocol: string, handler: Handler<Incoming>): void {
    this.#messages.set(protocol, handler);
  }

  async openStream(name: string, protocol: string, metadata?: Uint8Array): Promise<WasmStream> {
    this.#reach(name);
    const [ours, theirs] = pair(name, protocol, metadata);
    void takeFile(theirs);
    return ours;
  }

  serveStream(protocol: string, handler: Handler<WasmStream>): void {
    this.#streams.set(protocol, handler);
  }

  events(sink: (event: NodeEvent) => void): void {
    this.#sink = sink;
  }

  async resolve(name: string): Promise<ResolvedRecord> {
    const scripted = ["echo", "bob", "sold"].indexOf(labelOf(name));
    if (scripted >= 0) {
      const epoch = this.#epochs.get(labelOf(name)) ?? 1;
      return { name, key: new Uint8Array(32).fill(scripted + epoch), epoch, version: 1, routers: [], how: "one RPC" };
    }
    try {
      const found = await this.#registry(name).getFunction("resolve").staticCall(labelOf(name));
      const key = Uint8Array.from(String(found.networkingKey).slice(2).match(/../g) ?? [], (byte) => parseInt(byte, 16));
      return { name, key, owner: String(found.owner), epoch: Number(found.epoch), version: Number(found.version), routers: [...found.routers], how: "one RPC" };
    } catch (error) {
      throw NodeError.of(isError(error, "CALL_EXCEPTION") ? "name_unknown" : "rpc_unreachable").toShape();
    }
  }

  async available(label: string, tld: string): Promise<boolean> {
    return this.#registry(`${label}.${tld}`).getFunction("available").staticCall(label);
  }

  async connect(name: string): Promise<void> {
    const known = ["echo", "bob", "sold"].includes(labelOf(name));
    this.#sink({ type: "peer", name, state: "connecting" });
    await new Promise((resolve) => setTimeout(resolve, 150));
    if (known) this.#sink({ type: "peer", name, state: "online", route: "via loach.nectar", latencyMs: 31, how: "one RPC" });
    else this.#sink({ type: "peer", name, state: "offline", error: NodeError.of("offline").toShape() });
  }

  async close(): Promise<void> {
    this.#closed = true;
  }

  #goOnline(): void {
    if (this.#closed) return;
    this.#routers = (this.options.routers ?? []).map(({ name }, index) => ({ name, state: "online", latencyMs: 18 + 9 * index }));
    for (const router of this.#routers) this.#sink({ type: "router", ...router });
    if (this.options.name === undefined) return;
    this.#sink({ type: "identity", state: "online" });
    setTimeout(() => this.#say("bob.nectar", "chat.1", "Hello, it is Bob."), 1500);
  }

  #say(name: string, protocol: string, text: string): void {
    if (this.#closed) return;
    const payload = encoder.encode(JSON.stringify({ id: crypto.randomUUID(), text, at: Date.now() }));
    void Promise.resolve(this.#messages.get(protocol)?.({ from: name, payload })).catch(() => {});
  }

  #offerFile(name: string): void {
    const bytes = encoder.encode("what Bob sends\n".repeat(40_000));
    const head = { name: "notes.txt", size: bytes.length, type: "text/plain" };
    const [ours, theirs] = pair(name, "file.1", encoder.encode(JSON.stringify(head)));
    this.#streams.get("file.1")?.(theirs);
    void (async () => {
      await ours.read();
      for (let at = 0; at < bytes.length; at += 50_000) await ours.write(bytes.slice(at, at + 50_000));
      await ours.finish();
    })();
  }

  #registry(name: string): Contract {
    const registry = this.options.registries.find(({ tld }) => name.endsWith(`.${tld}`));
    if (registry === undefined) throw NodeError.of("tld_unknown").toShape();
    const provider = new JsonRpcProvider(registry.rpcs[0], registry.chainId, { staticNetwork: true, cacheTimeout: -1 });
    return new Contract(
      registry.contract,
      [
        "function available(string) view returns (bool)",
        "function resolve(string) view returns (tuple(address owner, address manager, bytes32 networkingKey, uint8 hostKind, bytes host, uint16 port, uint8 schemes, string[] routers, uint32 version, uint32 epoch))",
      ],
      provider,
    );
  }

  #reach(name: string): void {
    if (!["echo", "bob", "sold"].includes(labelOf(name))) throw NodeError.of("offline").toShape();
  }
}

export class WasmStream {
  #in: Pipe;
  #out: Pipe;

  constructor(
    readonly peer: string,
    readonly proto: string,
    readonly meta: Uint8Array | undefined,
    input: Pipe,
    output: Pipe,
  ) {
    this.#in = input;
    this.#out = output;
  }

  from = () => this.peer;
  protocol = () => this.proto;
  metadata = () => this.meta?.slice();
  read = () => this.#in.read();
  write = (chunk: Uint8Array) => this.#out.write(chunk.slice());
  finish = async () => this.#out.end();
  reset = (code: number) => this.#out.fail(code);
  stop = (code: number) => this.#in.fail(code);
}

/** One direction of a stream, with room for four chunks. */
class Pipe {
  #chunks: Uint8Array[] = [];
  #ended = false;
  #failed: number | undefined;
  #wake: (() => void)[] = [];

  async read(): Promise<Uint8Array | undefined> {
    for (;;) {
      if (this.#failed !== undefined) throw NodeError.ofNumber(this.#failed).toShape();
      const chunk = this.#chunks.shift();
      this.#changed();
      if (chunk !== undefined) return chunk;
      if (this.#ended) return undefined;
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
  }

  async write(chunk: Uint8Array): Promise<void> {
    while (this.#chunks.length >= 4 && this.#failed === undefined) await new Promise<void>((resolve) => this.#wake.push(resolve));
    if (this.#failed !== undefined) throw NodeError.ofNumber(this.#failed).toShape();
    this.#chunks.push(chunk);
    this.#changed();
  }

  end(): void {
    this.#ended = true;
    this.#changed();
  }

  fail(code: number): void {
    this.#failed ??= code;
    this.#changed();
  }

  #changed(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }
}

export function pair(peer: string, protocol: string, metadata?: Uint8Array): [WasmStream, WasmStream] {
  const there = new Pipe();
  const back = new Pipe();
  return [
    new WasmStream(peer, protocol, metadata, back, there),
    new WasmStream(peer, protocol, metadata, there, back),
  ];
}

/** The receiving end of `file.1`. */
async function takeFile(stream: WasmStream): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 800));
  await stream.write(encoder.encode('{"accept":true}\n'));
  const parts: Uint8Array<ArrayBuffer>[] = [];
  for (let chunk = await stream.read(); chunk !== undefined; chunk = await stream.read()) {
    parts.push(chunk as Uint8Array<ArrayBuffer>);
  }
  const bytes = await new Blob(parts).arrayBuffer();
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const sha256 = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  await stream.write(encoder.encode(`${JSON.stringify({ sha256, size: bytes.byteLength })}\n`));
  stream.finish();
}

function labelOf(name: string): string {
  return name.split(".")[0] ?? "";
}

/** The same key for as long as the browser keeps this origin's data. */
export async function generateKey(): Promise<Uint8Array> {
  const open = indexedDB.open("fake-node", 1);
  open.onupgradeneeded = () => open.result.createObjectStore("keys");
  const db = await new Promise<IDBDatabase>((resolve) => (open.onsuccess = () => resolve(open.result)));
  const store = db.transaction("keys", "readwrite").objectStore("keys");
  const found = store.get("key");
  const known = await new Promise<Uint8Array | undefined>((resolve) => (found.onsuccess = () => resolve(found.result as Uint8Array)));
  if (known !== undefined) return known;
  const key = crypto.getRandomValues(new Uint8Array(32));
  store.put(key, "key");
  return key;
}
