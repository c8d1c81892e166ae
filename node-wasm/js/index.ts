/// <reference path="./wasm.d.ts" />
import init, { generateKey as generateWasmKey, WasmNode, type WasmStream } from "nectar-wasm";
import { NodeError } from "./error.ts";
import { EventQueue } from "./events.ts";
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

export * from "./types.ts";
export { codes, type CodeName } from "./codes.ts";
export { NodeError } from "./error.ts";
export { Stream } from "./stream.ts";

/** A node that runs in this thread.
 *
 * ```ts
 * const node = await Node.start({ name: "alice.nectar", registries });
 * node.serve("greet.1", ({ from }) => new TextEncoder().encode(`hello ${from}`));
 * const answer = await node.request("bob.nectar", "greet.1", new Uint8Array());
 * ``` */
export class Node implements NodeApi {
  #wasm: WasmNode;
  #sinks = new Set<(event: NodeEvent) => void>();
  #requests = new Map<string, RequestHandler>();
  #messages = new Map<string, Set<MessageHandler>>();
  #streams = new Map<string, (stream: Stream) => void>();

  private constructor(wasm: WasmNode) {
    this.#wasm = wasm;
    wasm.events((event) => this.#sinks.forEach((sink) => sink(event)));
  }

  /** Resolves when the node runs, which is before it is online. */
  static async start(options: StartOptions): Promise<Node> {
    await loaded();
    return new Node(await typed(WasmNode.start(options)));
  }

  get name(): string | undefined {
    return this.#wasm.name();
  }

  get publicKey(): Uint8Array {
    return this.#wasm.publicKey();
  }

  get secure(): boolean {
    return this.#wasm.secure();
  }

  async request(to: string, protocol: string, payload: Uint8Array, options: RequestOptions = {}): Promise<Answer> {
    const answer = await typed(
      this.#wasm.request(to, protocol, payload, options.metadata, options.deadlineMs, options.signal),
    );
    switch (answer.kind) {
      case "success":
        return answer.data === undefined ? { kind: "success" } : { kind: "success", data: answer.data };
      case "protocol":
        return { kind: "protocol", data: answer.data ?? new Uint8Array() };
      case "error":
        throw NodeError.ofNumber(answer.code ?? 0, answer.message);
    }
  }

  message(to: string, protocol: string, payload: Uint8Array): Promise<void> {
    return typed(this.#wasm.message(to, protocol, payload));
  }

  serve(protocol: string, handler: RequestHandler): Undo {
    const known = this.#requests.has(protocol);
    this.#requests.set(protocol, handler);
    if (!known) {
      this.#wasm.serve(protocol, async (request) => {
        const current = this.#requests.get(protocol);
        if (current === undefined) throw NodeError.of("no_handler").toShape();
        return shaped(current(request));
      });
    }
    return () => {
      if (this.#requests.get(protocol) !== handler) return;
      this.#requests.delete(protocol);
      this.#wasm.unserve(protocol);
    };
  }

  onMessage(protocol: string, handler: MessageHandler): Undo {
    let handlers = this.#messages.get(protocol);
    if (handlers === undefined) {
      handlers = new Set();
      this.#messages.set(protocol, handlers);
      this.#wasm.onMessage(protocol, async (message) => {
        const current = [...(this.#messages.get(protocol) ?? [])];
        if (current.length === 0) throw NodeError.of("no_handler").toShape();
        await shaped(Promise.all(current.map((each) => each(message))));
      });
    }
    const all = handlers;
    all.add(handler);
    return () => void all.delete(handler);
  }

  async openStream(to: string, protocol: string, metadata?: Uint8Array): Promise<Stream> {
    return wrap(await typed(this.#wasm.openStream(to, protocol, metadata)));
  }

  serveStream(protocol: string, handler: (stream: Stream) => void): Undo {
    const known = this.#streams.has(protocol);
    this.#streams.set(protocol, handler);
    if (!known) {
      this.#wasm.serveStream(protocol, (raw) => {
        const stream = wrap(raw);
        const current = this.#streams.get(protocol);
        if (current === undefined) stream.cancel(NodeError.of("no_handler").code);
        else current(stream);
      });
    }
    return () => {
      // The entry stays known to the module, which keeps one callback per protocol for good.
      if (this.#streams.get(protocol) === handler) {
        this.#streams.set(protocol, (stream) => stream.cancel(NodeError.of("no_handler").code));
      }
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
    return typed(this.#wasm.resolve(name, fresh));
  }

  available(label: string, tld: string): Promise<boolean> {
    return typed(this.#wasm.available(label, tld));
  }

  connect(name: string): Promise<void> {
    return typed(this.#wasm.connect(name));
  }

  async peers(): Promise<PeerState[]> {
    return this.#wasm.peers();
  }

  async routers(): Promise<RouterState[]> {
    return this.#wasm.routers();
  }

  ping(name: string): Promise<number> {
    return typed(this.#wasm.ping(name));
  }

  close(): Promise<void> {
    return typed(this.#wasm.close());
  }
}

/** Makes or loads this origin's key and returns its public half. The private half cannot be exported. */
export async function generateKey(): Promise<Uint8Array> {
  await loaded();
  return typed(generateWasmKey());
}

let loading: Promise<unknown> | undefined;

function loaded(): Promise<unknown> {
  loading ??= init().catch((error: unknown) => {
    loading = undefined;
    throw error;
  });
  return loading;
}

async function typed<T>(promise: Promise<T>): Promise<T> {
  try {
    return await promise;
  } catch (thrown) {
    throw NodeError.from(thrown);
  }
}

/** Handlers answer the module with plain data, also when they throw. */
async function shaped<T>(value: Promise<T> | T): Promise<T> {
  try {
    return await value;
  } catch (thrown) {
    throw NodeError.from(thrown).toShape();
  }
}

function wrap(raw: WasmStream): Stream {
  const backend: StreamBackend = {
    from: raw.from() ?? null,
    protocol: raw.protocol(),
    metadata: raw.metadata(),
    read: () => typed(raw.read()),
    write: (chunk) => typed(raw.write(chunk)),
    finish: () => typed(raw.finish()),
    reset: (code) => raw.reset(code),
    stop: (code) => raw.stop(code),
  };
  return new Stream(backend);
}
