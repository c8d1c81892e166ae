/** A registry of names: the ending people write, and where on which chain it lives. */
export interface Registry {
  tld: string;
  chainId: number;
  contract: string;
  rpcs: string[];
  /** How many RPC endpoints must agree; by default 1 of 1, 2 of 3. */
  quorum?: number;
}

/** Where a router that is known beforehand is dialled. */
export interface RouterAddress {
  name: string;
  url: string;
}

/** A record that needs no chain: a line of a hosts file for names. */
export interface PinnedRecord {
  name: string;
  /** Networking key, 64 hexadecimal digits. */
  key: string;
  routing?: { host: string; port: number; schemes: ("ws" | "wss")[] };
  routers: string[];
}

export interface StartOptions {
  /** Who this node is, as `label.tld`. Without it, `guest` must be true. */
  name?: string;
  /** A node without a name, which may do what a router grants guests. */
  guest?: boolean;
  registries: Registry[];
  routers?: RouterAddress[];
  pinned?: PinnedRecord[];
  /** Dial loopback and private addresses, which is refused otherwise. */
  allowPrivate?: boolean;
  userAgent?: string;
  limits?: Record<string, number>;
}

/** What the registry says about a name, and how that is known. */
export interface ResolvedRecord {
  name: string;
  /** Networking key, 32 bytes. */
  key: Uint8Array;
  /** The account that owns the name; absent for pinned records. */
  owner?: string;
  /** Grows by one at every transfer: another epoch is another owner. */
  epoch: number;
  /** Grows by one at every change. */
  version: number;
  routing?: { host: string; port: number; schemes: ("ws" | "wss")[] };
  routers: string[];
  /** "pinned", "one RPC", "2 of 3 RPCs", … */
  how: string;
}

export interface PeerState {
  name: string;
  /** "interrupted": the connection broke; what is under way goes on as soon as there is another. */
  state: "connecting" | "online" | "interrupted" | "offline";
  /** "direct", or "via " and the router's name. */
  route?: string;
  latencyMs?: number;
  how?: string;
  error?: ErrorShape;
}

export interface RouterState {
  name: string;
  state: "connecting" | "online" | "interrupted" | "offline" | "refused";
  latencyMs?: number;
  error?: ErrorShape;
}

export interface IdentityState {
  state: "online" | "offline" | "superseded";
}

export type NodeEvent =
  | ({ type: "router" } & RouterState)
  | ({ type: "peer" } & PeerState)
  | ({ type: "identity" } & IdentityState)
  | { type: "log"; level?: string; message: string };

/** An error as plain data, as it crosses ports and the border to wasm. */
export interface ErrorShape {
  code: number;
  name: string;
  message: string;
  retryAfterMs?: number;
  /** The message is the peer's own words. */
  said?: true;
}

/** How a request was answered; failures are thrown as `NodeError`. */
export type Answer =
  | { kind: "success"; data?: Uint8Array }
  /** The protocol's own kind of refusal: its meaning is the protocol's. */
  | { kind: "protocol"; data: Uint8Array };

export interface IncomingRequest {
  /** Who asks, proved by the handshake; null for a guest. */
  from: string | null;
  payload: Uint8Array;
  metadata?: Uint8Array;
}

export interface IncomingMessage {
  /** Who sent it, proved by the handshake; null for a guest. */
  from: string | null;
  payload: Uint8Array;
}

export type RequestHandler = (request: IncomingRequest) => Promise<Uint8Array | Answer> | Uint8Array | Answer;
export type MessageHandler = (message: IncomingMessage) => Promise<void> | void;

export interface RequestOptions {
  metadata?: Uint8Array;
  /** 30 s unless told otherwise. */
  deadlineMs?: number;
  signal?: AbortSignal;
}

/** Takes back what the call that returned it put in place. */
export type Undo = () => void;

/** What a node does for an application, be it in this thread or behind a port.
 *
 * Payloads whose view covers a whole buffer may be handed to another thread: do not touch them after the call. */
export interface NodeApi {
  /** Own name; undefined for a guest. */
  readonly name: string | undefined;
  /** Own networking key, 32 bytes. */
  readonly publicKey: Uint8Array;
  /** Whether the key sits in WebCrypto, out of reach of scripts. */
  readonly secure: boolean;
  request(to: string, protocol: string, payload: Uint8Array, options?: RequestOptions): Promise<Answer>;
  /** Resolves when the other application took it. */
  message(to: string, protocol: string, payload: Uint8Array): Promise<void>;
  /** Answers requests of a protocol. One handler each: the newest. */
  serve(protocol: string, handler: RequestHandler): Undo;
  onMessage(protocol: string, handler: MessageHandler): Undo;
  openStream(to: string, protocol: string, metadata?: Uint8Array): Promise<import("./stream.ts").Stream>;
  serveStream(protocol: string, handler: (stream: import("./stream.ts").Stream) => void): Undo;
  on(handler: (event: NodeEvent) => void): Undo;
  /** The same events as an endless iterator; leaving the loop ends the subscription. */
  events(): AsyncIterableIterator<NodeEvent>;
  /** @param fresh asks the chain even if the cache knows. */
  resolve(name: string, fresh?: boolean): Promise<ResolvedRecord>;
  available(label: string, tld: string): Promise<boolean>;
  /** Opens a session to a contact and keeps trying. */
  connect(name: string): Promise<void>;
  peers(): Promise<PeerState[]>;
  routers(): Promise<RouterState[]>;
  /** Round trip in milliseconds. */
  ping(name: string): Promise<number>;
  close(): Promise<void>;
}
