/** What passes between a page and the worker that runs its node. */

import type { ErrorShape, IdentityState, NodeEvent, StartOptions } from "./types.ts";

/** Pages and workers of different protocols do not understand each other. */
export const PORT_PROTOCOL = 1;

/** What the worker knows about the node it runs. */
export interface Running {
  name: string | undefined;
  publicKey: Uint8Array;
  secure: boolean;
  identity: IdentityState["state"];
}

/** The kinds of handlers that a page can offer for a protocol. */
export type Offer = "request" | "message" | "stream";

export interface StreamHead {
  id: number;
  from: string | null;
  protocol: string;
  metadata: Uint8Array | undefined;
}

/** Calls of a page with their arguments and results. */
export interface Calls {
  start: { args: [options: StartOptions, takeOver: boolean]; result: Running };
  stop: { args: []; result: void };
  generateKey: { args: []; result: Uint8Array };
  request: {
    args: [to: string, protocol: string, payload: Uint8Array, metadata: Uint8Array | undefined, deadlineMs: number | undefined];
    result: import("./types.ts").Answer;
  };
  message: { args: [to: string, protocol: string, payload: Uint8Array]; result: void };
  openStream: { args: [to: string, protocol: string, metadata: Uint8Array | undefined]; result: StreamHead };
  read: { args: [stream: number]; result: Uint8Array | undefined };
  write: { args: [stream: number, chunk: Uint8Array]; result: void };
  finish: { args: [stream: number]; result: void };
  resolve: { args: [name: string, fresh: boolean]; result: import("./types.ts").ResolvedRecord };
  available: { args: [label: string, tld: string]; result: boolean };
  connect: { args: [name: string]; result: void };
  peers: { args: []; result: import("./types.ts").PeerState[] };
  routers: { args: []; result: import("./types.ts").RouterState[] };
  ping: { args: [name: string]; result: number };
}

export type Method = keyof Calls;

/** From the page. */
export type ToHost =
  /** `lock` is a Web Lock that the page holds while it lives. */
  | { t: "hello"; protocol: number; build: string; lock: string | undefined }
  | { t: "call"; id: number; method: Method; args: readonly unknown[] }
  | { t: "cancel"; id: number }
  | { t: "offer"; kind: Offer; protocol: string }
  | { t: "withdraw"; kind: Offer; protocol: string }
  | { t: "answer"; id: number; value?: unknown; error?: ErrorShape }
  | { t: "reset"; stream: number; code: number }
  | { t: "stopSending"; stream: number; code: number }
  /** The page is through with a stream in both directions. */
  | { t: "forget"; stream: number }
  /** The person looks at this page now: new streams and requests go here first. */
  | { t: "active" }
  | { t: "bye" };

/** From the worker. */
export type ToPage =
  | { t: "welcome"; protocol: number; build: string; running: Running | undefined }
  | { t: "result"; id: number; value?: unknown; error?: ErrorShape }
  | { t: "ask"; id: number; kind: "request" | "message"; protocol: string; from: string | null; payload: Uint8Array; metadata: Uint8Array | undefined }
  | { t: "stream"; head: StreamHead }
  | { t: "event"; event: NodeEvent }
  /** Another node runs now, or none. */
  | { t: "running"; running: Running | undefined };

/** The part of a `MessagePort` that both sides use. */
export interface Port {
  postMessage(message: unknown, transfer: Transferable[]): void;
  addEventListener(type: "message", listener: (event: MessageEvent) => void): void;
  addEventListener(type: "close", listener: () => void): void;
  start(): void;
  close(): void;
}

/** Posts a message; buffers that views in it cover whole move instead of being copied. */
export function post(port: Port, message: ToHost | ToPage, ...views: (Uint8Array | undefined)[]): void {
  const transfer = new Set<ArrayBuffer>();
  for (const view of views) {
    if (view !== undefined && view.byteLength === view.buffer.byteLength && view.buffer instanceof ArrayBuffer) {
      transfer.add(view.buffer);
    }
  }
  port.postMessage(message, [...transfer]);
}
