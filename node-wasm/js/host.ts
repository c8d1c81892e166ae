import { NodeError } from "./error.ts";
import {
  PORT_PROTOCOL,
  post,
  type Calls,
  type Method,
  type Offer,
  type Port,
  type Running,
  type StreamHead,
  type ToHost,
  type ToPage,
} from "./protocol.ts";
import type { Stream } from "./stream.ts";
import type { Answer, IncomingMessage, IncomingRequest, NodeApi, NodeEvent, StartOptions, Undo } from "./types.ts";

/** Where nodes come from. */
export interface Runtime {
  start(options: StartOptions): Promise<NodeApi>;
  generateKey(): Promise<Uint8Array>;
}

export interface HostOptions {
  /** Tells builds of the page apart. */
  build: string;
  /** Web Locks, where the browser has them (secure contexts only). */
  locks?: LockManager | undefined;
}

/** Requests, streams and answers that one page may have open at once. */
const OPEN_PER_PAGE = 1024;

/** Runs one node for all pages of an origin. */
export class Host {
  #runtime: Runtime;
  #options: HostOptions;
  #pages = new Set<Page>();
  #running: { node: NodeApi; options: string; identity: Running["identity"]; release: Undo } | undefined;
  #changing: Promise<unknown> = Promise.resolve();
  #offers = new Map<string, Undo>();

  constructor(runtime: Runtime, options: HostOptions) {
    this.#runtime = runtime;
    this.#options = options;
  }

  /** A page connected. It is forgotten, with all that it opened, when it says so or dies. */
  accept(port: Port): void {
    const page = new Page(port, this);
    this.#pages.add(page);
  }

  /** Pages that are connected. */
  get pages(): number {
    return this.#pages.size;
  }

  get build(): string {
    return this.#options.build;
  }

  get locks(): LockManager | undefined {
    return this.#options.locks;
  }

  get running(): Running | undefined {
    const running = this.#running;
    if (running === undefined) return undefined;
    const { node, identity } = running;
    return { name: node.name, publicKey: node.publicKey.slice(), secure: node.secure, identity };
  }

  get node(): NodeApi {
    if (this.#running === undefined) throw NodeError.of("node_closed");
    return this.#running.node;
  }

  generateKey(): Promise<Uint8Array> {
    return this.#runtime.generateKey();
  }

  /** Starts the node, or joins the one that runs with the same options. */
  start(options: StartOptions, takeOver: boolean): Promise<Running> {
    return this.#exclusive(async () => {
      const wanted = JSON.stringify(options);
      const current = this.#running;
      const usable = current !== undefined && current.options === wanted && current.identity !== "superseded";
      if (!usable || takeOver) {
        await this.#stop();
        await this.#start(options, wanted, takeOver);
      }
      const running = this.running;
      if (running === undefined) throw NodeError.of("node_closed");
      return running;
    });
  }

  /** Stops the node for every page. */
  stop(): Promise<void> {
    return this.#exclusive(() => this.#stop());
  }

  /** @internal A page offers or withdraws a handler: the node needs one while any page has one. */
  offersChanged(kind: Offer, protocol: string): void {
    const key = `${kind} ${protocol}`;
    const wanted = this.#candidates(kind, protocol).length > 0;
    const undo = this.#offers.get(key);
    if (wanted && undo === undefined && this.#running !== undefined) {
      this.#offers.set(key, this.#register(this.#running.node, kind, protocol));
    } else if (!wanted && undo !== undefined) {
      undo();
      this.#offers.delete(key);
    }
  }

  /** @internal */
  left(page: Page): void {
    if (!this.#pages.delete(page)) return;
    for (const { kind, protocol } of page.offers.values()) this.offersChanged(kind, protocol);
  }

  async #start(options: StartOptions, wanted: string, takeOver: boolean): Promise<void> {
    let lost = false;
    const release = await this.#lockIdentity(options.name, takeOver, () => {
      lost = true;
      if (this.#running === undefined) return;
      this.#event(this.#running.node, { type: "identity", state: "superseded" });
      void this.stop();
    });
    let node: NodeApi;
    try {
      node = await this.#runtime.start(options);
      if (lost) {
        await node.close();
        throw elsewhere(options.name);
      }
    } catch (error) {
      release();
      throw error;
    }
    this.#running = { node, options: wanted, identity: "offline", release };
    node.on((event) => this.#event(node, event));
    for (const page of this.#pages) {
      for (const { kind, protocol } of page.offers.values()) this.offersChanged(kind, protocol);
    }
    this.#broadcast({ t: "running", running: this.running });
  }

  async #stop(): Promise<void> {
    const running = this.#running;
    if (running === undefined) return;
    this.#running = undefined;
    for (const undo of this.#offers.values()) undo();
    this.#offers.clear();
    for (const page of this.#pages) page.nodeClosed();
    this.#broadcast({ t: "running", running: undefined });
    try {
      await running.node.close();
    } finally {
      running.release();
    }
  }

  /** One process of this browser per identity, also where every page runs a node of its own.
   *
   * @param lost is called when another tab takes the identity over. */
  #lockIdentity(name: string | undefined, takeOver: boolean, lost: Undo): Promise<Undo> {
    const locks = this.locks;
    if (locks === undefined || name === undefined) return Promise.resolve(() => {});
    return new Promise((resolve, reject) => {
      let released = false;
      locks
        .request(`nectar identity ${name}`, takeOver ? { steal: true } : { ifAvailable: true }, (lock) => {
          if (lock === null) {
            reject(elsewhere(name));
            return;
          }
          return new Promise<void>((release) => {
            resolve(() => {
              released = true;
              release();
            });
          });
        })
        .catch(() => {
          if (!released) lost();
        });
    });
  }

  #event(node: NodeApi, event: NodeEvent): void {
    const running = this.#running;
    if (running?.node !== node) return;
    if (event.type === "identity") running.identity = event.state;
    this.#broadcast({ t: "event", event });
  }

  #broadcast(message: ToPage): void {
    for (const page of this.#pages) page.send(message);
  }

  #register(node: NodeApi, kind: Offer, protocol: string): Undo {
    switch (kind) {
      case "request":
        return node.serve(protocol, (request) => this.#best(kind, protocol).ask(protocol, request));
      case "message":
        return node.onMessage(protocol, (message) => this.#deliver(protocol, message));
      case "stream":
        return node.serveStream(protocol, (stream) => {
          const page = this.#candidates(kind, protocol)[0];
          if (page === undefined) stream.cancel(NodeError.of("no_handler").code);
          else page.incoming(stream);
        });
    }
  }

  /** A message goes to every page; it is delivered once one of them took it. */
  async #deliver(protocol: string, message: IncomingMessage): Promise<void> {
    const pages = this.#candidates("message", protocol);
    if (pages.length === 0) throw NodeError.of("no_handler");
    const last = pages.length - 1;
    const taken = pages.map((page, index) =>
      page.tell(protocol, index === last ? message : { ...message, payload: message.payload.slice() }),
    );
    try {
      await Promise.any(taken);
    } catch (error) {
      throw error instanceof AggregateError ? error.errors[0] : error;
    }
  }

  #best(kind: Offer, protocol: string): Page {
    const page = this.#candidates(kind, protocol)[0];
    if (page === undefined) throw NodeError.of("no_handler");
    return page;
  }

  /** Pages with a handler, the one that the person used last first. */
  #candidates(kind: Offer, protocol: string): Page[] {
    return [...this.#pages]
      .filter((page) => page.offers.has(`${kind} ${protocol}`))
      .sort((a, b) => b.activity - a.activity);
  }

  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#changing.then(work, work);
    this.#changing = done.catch(() => {});
    return done;
  }
}

function elsewhere(name: string | undefined): NodeError {
  return NodeError.of("superseded", `${name} is online in another tab of this browser`);
}

let activity = 0;

/** A stream, and which of its directions are through. */
interface Kept {
  stream: Stream;
  read: boolean;
  written: boolean;
}

/** One connected page and everything it holds. */
class Page {
  readonly offers = new Map<string, { kind: Offer; protocol: string }>();
  activity = ++activity;
  #port: Port;
  #host: Host;
  #calls = new Map<number, AbortController>();
  #asked = new Map<number, { resolve: (value: unknown) => void; reject: (error: unknown) => void }>();
  #streams = new Map<number, Kept>();
  #nextId = 1;
  #gone = false;

  constructor(port: Port, host: Host) {
    this.#port = port;
    this.#host = host;
    port.addEventListener("message", (event: MessageEvent<ToHost>) => this.#handle(event.data));
    port.addEventListener("close", () => this.#leave());
    port.start();
  }

  send(message: ToPage, ...views: (Uint8Array | undefined)[]): void {
    if (!this.#gone) post(this.#port, message, ...views);
  }

  /** Has the page answer a request. */
  ask(protocol: string, request: IncomingRequest): Promise<Uint8Array | Answer> {
    return this.#ask("request", protocol, request.from, request.payload, request.metadata) as Promise<Uint8Array | Answer>;
  }

  /** Gives the page a message; resolves when it took it. */
  async tell(protocol: string, message: IncomingMessage): Promise<void> {
    await this.#ask("message", protocol, message.from, message.payload, undefined);
  }

  /** Gives the page a stream that somebody opened. */
  incoming(stream: Stream): void {
    if (this.#streams.size >= OPEN_PER_PAGE) {
      stream.cancel(NodeError.of("overloaded").code);
      return;
    }
    const head = this.#keep(stream);
    this.send({ t: "stream", head }, head.metadata);
  }

  nodeClosed(): void {
    for (const call of this.#calls.values()) call.abort();
    this.#streams.clear();
  }

  #handle(message: ToHost): void {
    switch (message.t) {
      case "hello":
        this.#watch(message.lock);
        this.send({ t: "welcome", protocol: PORT_PROTOCOL, build: this.#host.build, running: this.#host.running });
        break;
      case "call":
        void this.#call(message.id, message.method, message.args);
        break;
      case "cancel":
        this.#calls.get(message.id)?.abort();
        break;
      case "offer":
        this.offers.set(`${message.kind} ${message.protocol}`, message);
        this.#host.offersChanged(message.kind, message.protocol);
        break;
      case "withdraw":
        this.offers.delete(`${message.kind} ${message.protocol}`);
        this.#host.offersChanged(message.kind, message.protocol);
        break;
      case "answer": {
        const asked = this.#asked.get(message.id);
        this.#asked.delete(message.id);
        if (message.error === undefined) asked?.resolve(message.value);
        else asked?.reject(NodeError.from(message.error));
        break;
      }
      case "reset":
        this.#streams.get(message.stream)?.stream.reset(message.code);
        this.#through(message.stream, "written");
        break;
      case "stopSending":
        this.#streams.get(message.stream)?.stream.stop(message.code);
        this.#through(message.stream, "read");
        break;
      case "forget":
        this.#streams.get(message.stream)?.stream.stop();
        this.#streams.delete(message.stream);
        break;
      case "active":
        this.activity = ++activity;
        break;
      case "bye":
        this.#leave();
        break;
    }
  }

  /** A page that crashes says no goodbye, but its lock falls free. */
  #watch(lock: string | undefined): void {
    if (lock === undefined || this.#host.locks === undefined) return;
    void this.#host.locks.request(lock, () => this.#leave()).catch(() => {});
  }

  async #call(id: number, method: Method, args: readonly unknown[]): Promise<void> {
    if (this.#calls.size >= OPEN_PER_PAGE) {
      this.send({ t: "result", id, error: NodeError.of("queue_full", "too many calls are open").toShape() });
      return;
    }
    const abort = new AbortController();
    this.#calls.set(id, abort);
    try {
      const value = await this.#perform(method, args, abort.signal);
      this.send({ t: "result", id, value }, ...owned(method, value));
    } catch (error) {
      this.send({ t: "result", id, error: NodeError.from(error).toShape() });
    } finally {
      this.#calls.delete(id);
    }
  }

  #perform<M extends Method>(method: M, args: readonly unknown[], signal: AbortSignal): Promise<unknown> {
    const host = this.#host;
    const table: { [K in Method]: (...args: Calls[K]["args"]) => Promise<Calls[K]["result"]> } = {
      start: (options, takeOver) => host.start(options, takeOver),
      stop: () => host.stop(),
      generateKey: () => host.generateKey(),
      request: async (to, protocol, payload, metadata, deadlineMs) =>
        host.node.request(to, protocol, payload, {
          ...(metadata === undefined ? {} : { metadata }),
          ...(deadlineMs === undefined ? {} : { deadlineMs }),
          signal,
        }),
      message: async (to, protocol, payload) => host.node.message(to, protocol, payload),
      openStream: async (to, protocol, metadata) => {
        const stream = await host.node.openStream(to, protocol, metadata);
        if (this.#gone || signal.aborted) {
          stream.cancel();
          throw NodeError.of("cancelled");
        }
        return this.#keep(stream);
      },
      read: async (id) => {
        const chunk = await this.#stream(id).read();
        if (chunk === undefined) this.#through(id, "read");
        return chunk;
      },
      write: async (id, chunk) => this.#stream(id).write(chunk),
      finish: async (id) => {
        await this.#stream(id).finish();
        this.#through(id, "written");
      },
      resolve: async (name, fresh) => host.node.resolve(name, fresh),
      available: async (label, tld) => host.node.available(label, tld),
      connect: async (name) => host.node.connect(name),
      peers: async () => host.node.peers(),
      routers: async () => host.node.routers(),
      ping: async (name) => host.node.ping(name),
    };
    if (!Object.hasOwn(table, method)) return Promise.reject(NodeError.of("invalid_argument", `no call ${method}`));
    return table[method](...(args as Calls[M]["args"]));
  }

  #ask(
    kind: "request" | "message",
    protocol: string,
    from: string | null,
    payload: Uint8Array,
    metadata: Uint8Array | undefined,
  ): Promise<unknown> {
    if (this.#asked.size >= OPEN_PER_PAGE) return Promise.reject(NodeError.of("overloaded"));
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#asked.set(id, { resolve, reject });
      this.send({ t: "ask", id, kind, protocol, from, payload, metadata }, payload, metadata);
    });
  }

  #stream(id: number): Stream {
    const kept = this.#streams.get(id);
    if (kept === undefined) throw NodeError.of("stream_reset", "the stream is gone");
    return kept.stream;
  }

  /** Forgets a stream once both of its directions are through. */
  #through(id: number, direction: "read" | "written"): void {
    const kept = this.#streams.get(id);
    if (kept === undefined) return;
    kept[direction] = true;
    if (kept.read && kept.written) this.#streams.delete(id);
  }

  #keep(stream: Stream): StreamHead {
    const id = this.#nextId++;
    this.#streams.set(id, { stream, read: false, written: false });
    return { id, from: stream.from, protocol: stream.protocol, metadata: stream.metadata };
  }

  #leave(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#host.left(this);
    for (const call of this.#calls.values()) call.abort();
    for (const asked of this.#asked.values()) {
      asked.reject(NodeError.of("handler_failed", "the page that handled it was closed"));
    }
    for (const { stream } of this.#streams.values()) stream.cancel();
    this.#asked.clear();
    this.#streams.clear();
    this.#port.close();
  }
}

/** The views of a result that nobody else holds. */
function owned(method: Method, value: unknown): (Uint8Array | undefined)[] {
  if (method === "read") return [value as Uint8Array | undefined];
  if (method === "request") return [(value as Answer).data];
  return [];
}
