/** The module that wasm-bindgen makes of node-wasm; bundlers map the name to `node-wasm/pkg/node_wasm.js`. */
declare module "nectar-wasm" {
  export default function init(input?: { module_or_path: unknown }): Promise<unknown>;

  export class WasmNode {
    static start(options: object): Promise<WasmNode>;
    name(): string | undefined;
    publicKey(): Uint8Array;
    secure(): boolean;
    request(
      name: string,
      protocol: string,
      payload: Uint8Array,
      metadata: Uint8Array | undefined,
      deadlineMs: number | undefined,
      cancel: AbortSignal | undefined,
    ): Promise<{ kind: "success" | "protocol" | "error"; data?: Uint8Array; code?: number; message?: string }>;
    message(name: string, protocol: string, payload: Uint8Array): Promise<void>;
    serve(
      protocol: string,
      handler: (request: { from: string | null; payload: Uint8Array; metadata?: Uint8Array }) => Promise<Uint8Array | object>,
    ): void;
    unserve(protocol: string): void;
    onMessage(
      protocol: string,
      handler: (message: { from: string | null; payload: Uint8Array }) => void | Promise<void>,
    ): void;
    openStream(name: string, protocol: string, metadata?: Uint8Array): Promise<WasmStream>;
    serveStream(protocol: string, handler: (stream: WasmStream) => void): void;
    events(handler: (event: import("./types.ts").NodeEvent) => void): void;
    resolve(name: string, fresh: boolean): Promise<import("./types.ts").ResolvedRecord>;
    available(label: string, tld: string): Promise<boolean>;
    connect(name: string): Promise<void>;
    peers(): import("./types.ts").PeerState[];
    routers(): import("./types.ts").RouterState[];
    ping(name: string): Promise<number>;
    close(): Promise<void>;
  }

  export class WasmStream {
    from(): string | null;
    protocol(): string;
    metadata(): Uint8Array | undefined;
    read(): Promise<Uint8Array | undefined>;
    write(chunk: Uint8Array): Promise<void>;
    finish(): Promise<void>;
    reset(code: number): void;
    stop(code: number): void;
  }

  /** Makes or loads the key of this origin and returns its public half, 32 bytes. */
  export function generateKey(): Promise<Uint8Array>;
}
