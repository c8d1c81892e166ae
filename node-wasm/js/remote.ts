import { NodeError } from "./error.ts";
import { EventQueue } from "./events.ts";
import {
  PORT_PROTOCOL,
  post,
  type Calls,
  type Method,
  type Port,
  type Running,
  type StreamHead,
  type ToHost,
  type ToPage,
} from "./protocol.ts";
import { Stream, type StreamBackend } from "./stream.ts";
import type {
  Answer,
  MessageHandler,
  NodeApi,
  NodeEvent,
  PeerState,
  RequestHandler,
  RequestOptions,
  ResolvedRecord,
  RouterState,
  StartOptions,
  Undo,
} from "./types.ts";

export type { Running } from "./protocol.ts";
export { codes, type CodeName } from "./codes.ts";
export { NodeError } from "./error.ts";
export { Stream } from "./stream.ts";
export type * from "./types.ts";

export interface ConnectOptions {
  /** Address of the worker's script: always the same one, or two builds would run two nodes of one name. */
  worker: URL;
  /** Tells builds of the page apart. */
  build: string;
  /** Runs the node in the page, where there is no SharedWorker. */
  here: () => Promise<{ accept(port: Port): void }>;
}

/** The worker runs another build of this page: its pages must close before this one can work. */
export class BuildMismatch extends Error {
  override readonly name = "BuildMismatch";
}

/** Reaches the origin's one node: in a SharedWorker, or in this page where the browser has none. */
export async function connect(options: ConnectOptions): Promise<RemoteNode> {
  if (typeof SharedWorker === "undefined") {
    const { port1, port2 } = new MessageChannel();
    (await options.here()).accept(port1);
    return RemoteNode.over(port2, options.build);
  }
  const worker = new SharedWorker(options.worker, { type: "module", name: "nectar" });
  const broken = new Promise<never>((_, reject) => {
    worker.addEventListener("error", () => reject(new Error("the node's worker could not be loaded")));
  });
  return Promise.race([RemoteNode.over(worker.port, options.build, await holdLock()), broken]);
}

/** A node that runs behind a port. */
export class RemoteNode implements NodeApi {
  #port: Port;
  #running: Running | undefined;
  #calls = new Map<number, { resolve: (value: never) => void; reject: (error: unknown) => void }>();
  #sinks = new Set<(event: NodeEvent) => void>();
  #watchers = new Set<(running: Running | undefined) => void>();
  #requests = new Map<string, RequestHandler>();
  #messages = new Map<string, Set<MessageHandler>>();
  #streams = new Map<string, (stream: Stream) => void>();
  #nextId = 1;
  #closed = false;
  #letGo: Undo;

  private constructor(port: Port, running: Running | undefined, letGo: Undo) {
    this.#port = port;
    this.#running = running;
    this.#letGo = letGo;
    port.addEventListener("close", () => this.#close());
  }

  /** Speaks with a host over a port. `lock` is held for as long as this page lives. */
  static over(port: Port, build: string, lock?: { name: string; release: Undo }): Promise<RemoteNode> {
    return new Promise((resolve, reject) => {
      let remote: RemoteNode | undefined;
      port.addEventListener("message", (event: MessageEvent<ToPage>) => {
        const message = event.data;
        if (remote !== undefined) return remote.#handle(message);
        if (message.t !== "welcome") return;
        if (message.protocol !== PORT_PROTOCOL || message.build !== build) {
          post(port, { t: "bye" });
          lock?.release();
          reject(new BuildMismatch("another version of this page is open in another tab"));
          return;
        }
        remote = new RemoteNode(port, message.running, lock?.release ?? (() => {}));
        resolve(remote);
      });
      port.start();
      post(port, { t: "hello", protocol: PORT_PROTOCOL, build, lock: lock?.name });
    });
  }

  /** Starts the origin's node, or joins it when it runs with the same options.
   *
   * @param takeOver starts anew even then, and takes the identity from other tabs and places. */
  async start(options: StartOptions, takeOver = false): Promise<Running> {
    // Proxies of frameworks do not pass through ports; options are plain data.
    this.#running = await this.#call("start", [JSON.parse(JSON.stringify(options)) as StartOptions, takeOver]);
    return this.#running;
  }

  /** Stops the origin's node for every page. */
  stop(): Promise<void> {
    return this.#call("stop", []);
  }

  generateKey(): Promise<Uint8Array> {
    return this.#call("generateKey", []);
  }

  /** The node that runs, if any. */
  get running(): Running | undefined {
    return this.#running;
  }

  /** Whether this let go of the node, or its worker died: nothing can be asked any more. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Called when another node runs, or none. */
  onRunning(handler: (running: Running | undefined) => void): Undo {
    this.#watchers.add(handler);
    return () => void this.#watchers.delete(handler);
  }

  /** The person looks at this page: what comes in goes here first. */
  active(): void {
    this.#send({ t: "active" });
  }

  get name(): string | undefined {
    return this.#running?.name;
  }

  get publicKey(): Uint8Array {
    if (this.#running === undefined) throw NodeError.of("node_closed");
    return this.#running.publicKey;
  }

  get secure(): boolean {
    return this.#running?.secure ?? false;
  }

  request(to: string, protocol: string, payload: Uint8Array, options: RequestOptions = {}): Promise<Answer> {
    const { metadata, deadlineMs, signal } = options;
    return this.#call("request", [to, protocol, payload, metadata, deadlineMs], { signal, views: [payload, metadata] });
  }

  message(to: string, protocol: string, payload: Uint8Array): Promise<void> {
    return this.#call("message", [to, protocol, payload], { views: [payload] });
  }

  serve(protocol: string, handler: RequestHandler): Undo {
    this.#requests.set(protocol, handler);
    this.#send({ t: "offer", kind: "request", protocol });
    return () => {
      if (this.#requests.get(protocol) !== handler) return;
      this.#requests.delete(protocol);
      this.#send({ t: "withdraw", kind: "request", protocol });
    };
  }

  onMessage(protocol: string, handler: MessageHandler): Undo {
    const handlers = this.#messages.get(protocol) ?? new Set();
    this.#messages.set(protocol, handlers);
    handlers.add(handler);
    if (handlers.size === 1) this.#send({ t: "offer", kind: "message", protocol });
    return () => {
      if (!handlers.delete(handler) || handlers.size > 0) return;
      this.#send({ t: "withdraw", kind: "message", protocol });
    };
  }

  async openStream(to: string, protocol: string, metadata?: Uint8Array): Promise<Stream> {
    return this.#stream(await this.#call("openStream", [to, protocol, metadata], { views: [metadata] }));
  }

  serveStream(protocol: string, handler: (stream: Stream) => void): Undo {
    this.#streams.set(protocol, handler);
    this.#send({ t: "offer", kind: "stream", protocol });
    return () => {
      if (this.#streams.get(protocol) !== handler) return;
      this.#streams.delete(protocol);
      this.#send({ t: "withdraw", kind: "stream", protocol });
    };
  }

  on(handler: (event: NodeEvent) => void): Undo {
    this.#sinks.add(handler);
    return () => void this.#sinks.delete(handler);
  }

  events(): AsyncIterableIterator<NodeEvent> {
    return new EventQueue((push) => this.on(push));
  }

  resolve(name: string, fresh = false): Promise<ResolvedRecord> {
    return this.#call("resolve", [name, fresh]);
  }

  available(label: string, tld: string): Promise<boolean> {
    return this.#call("available", [label, tld]);
  }

  connect(name: string): Promise<void> {
    return this.#call("connect", [name]);
  }

  peers(): Promise<PeerState[]> {
    return this.#call("peers", []);
  }

  routers(): Promise<RouterState[]> {
    return this.#call("routers", []);
  }

  ping(name: string): Promise<number> {
    return this.#call("ping", [name]);
  }

  /** Lets go of the node, which runs on for other pages. */
  async close(): Promise<void> {
    this.#send({ t: "bye" });
    this.#close();
  }

  #handle(message: ToPage): void {
    switch (message.t) {
      case "welcome":
        break;
      case "result": {
        const call = this.#calls.get(message.id);
        this.#calls.delete(message.id);
        if (message.error === undefined) call?.resolve(message.value as never);
        else call?.reject(NodeError.from(message.error));
        break;
      }
      case "ask":
        void this.#answer(message);
        break;
      case "stream": {
        const stream = this.#stream(message.head);
        const handler = this.#streams.get(message.head.protocol);
        if (handler === undefined) stream.cancel(NodeError.of("no_handler").code);
        else handler(stream);
        break;
      }
      case "event":
        if (message.event.type === "identity" && this.#running !== undefined) {
          this.#running = { ...this.#running, identity: message.event.state };
        }
        for (const sink of [...this.#sinks]) sink(message.event);
        break;
      case "running":
        this.#running = message.running;
        for (const watcher of [...this.#watchers]) watcher(message.running);
        break;
    }
  }

  async #answer(ask: Extract<ToPage, { t: "ask" }>): Promise<void> {
    const { id, kind, protocol, from, payload, metadata } = ask;
    try {
      if (kind === "message") {
        const handlers = [...(this.#messages.get(protocol) ?? [])];
        if (handlers.length === 0) throw NodeError.of("no_handler");
        await Promise.all(handlers.map((handler) => handler({ from, payload })));
        this.#send({ t: "answer", id });
        return;
      }
      const handler = this.#requests.get(protocol);
      if (handler === undefined) throw NodeError.of("no_handler");
      const value = await handler({ from, payload, ...(metadata === undefined ? {} : { metadata }) });
      this.#send({ t: "answer", id, value }, value instanceof Uint8Array ? value : value.data);
    } catch (error) {
      this.#send({ t: "answer", id, error: NodeError.from(error).toShape() });
    }
  }

  #stream(head: StreamHead): Stream {
    const backend: StreamBackend = {
      from: head.from,
      protocol: head.protocol,
      metadata: head.metadata,
      read: () => this.#call("read", [head.id]),
      write: (chunk) => this.#call("write", [head.id, chunk], { views: [chunk] }),
      finish: () => this.#call("finish", [head.id]),
      reset: (code) => this.#send({ t: "reset", stream: head.id, code }),
      stop: (code) => this.#send({ t: "stopSending", stream: head.id, code }),
    };
    forgotten.register(backend, () => this.#send({ t: "forget", stream: head.id }));
    return new Stream(backend);
  }

  #call<M extends Method>(
    method: M,
    args: Calls[M]["args"],
    options: { signal?: AbortSignal | undefined; views?: (Uint8Array | undefined)[] } = {},
  ): Promise<Calls[M]["result"]> {
    if (this.#closed) return Promise.reject(NodeError.of("node_closed"));
    const { signal, views = [] } = options;
    if (signal?.aborted) return Promise.reject(NodeError.of("cancelled"));
    const id = this.#nextId++;
    const done = new Promise<Calls[M]["result"]>((resolve, reject) => {
      this.#calls.set(id, { resolve, reject });
      this.#send({ t: "call", id, method, args }, ...views);
    });
    if (signal === undefined) return done;
    const cancel = () => this.#send({ t: "cancel", id });
    signal.addEventListener("abort", cancel, { once: true });
    return done.finally(() => signal.removeEventListener("abort", cancel));
  }

  #send(message: ToHost, ...views: (Uint8Array | undefined)[]): void {
    if (!this.#closed) post(this.#port, message, ...views);
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#running = undefined;
    for (const call of this.#calls.values()) call.reject(NodeError.of("node_closed"));
    this.#calls.clear();
    this.#letGo();
    this.#port.close();
    for (const sink of [...this.#sinks]) sink({ type: "identity", state: "offline" });
    for (const watcher of [...this.#watchers]) watcher(undefined);
  }
}

/** Streams that a page dropped without ending them are dropped by the worker, too. */
const forgotten = new FinalizationRegistry<Undo>((forget) => forget());

/** Takes a lock that falls free when this page dies, however it dies. */
async function holdLock(): Promise<{ name: string; release: Undo } | undefined> {
  if (!("locks" in navigator)) return undefined;
  const name = `nectar page ${crypto.randomUUID()}`;
  return new Promise((resolve, reject) => {
    navigator.locks
      .request(name, () => new Promise<void>((release) => resolve({ name, release })))
      .catch(reject);
  });
}
