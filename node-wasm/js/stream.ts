import { codes } from "./codes.ts";

/** The operations beneath a stream, in this thread or behind a port. */
export interface StreamBackend {
  readonly from: string | null;
  readonly protocol: string;
  readonly metadata: Uint8Array | undefined;
  /** The next chunk; undefined after the last. */
  read(): Promise<Uint8Array | undefined>;
  /** Resolves when there is room for more. */
  write(chunk: Uint8Array): Promise<void>;
  finish(): Promise<void>;
  /** Ends our sending direction early. */
  reset(code: number): void;
  /** Asks the other side to end its sending direction. */
  stop(code: number): void;
}

/** Bytes of any length in both directions, with flow control.
 *
 * Read and write either with the methods or through the WHATWG views, not both at once. */
export class Stream {
  #backend: StreamBackend;
  #readable: ReadableStream<Uint8Array> | undefined;
  #writable: WritableStream<Uint8Array> | undefined;

  constructor(backend: StreamBackend) {
    this.#backend = backend;
  }

  /** Who opened it, proved by the handshake; null for a guest. Of a stream we opened: whom we opened it to. */
  get from(): string | null {
    return this.#backend.from;
  }

  get protocol(): string {
    return this.#backend.protocol;
  }

  get metadata(): Uint8Array | undefined {
    return this.#backend.metadata;
  }

  read(): Promise<Uint8Array | undefined> {
    return this.#backend.read();
  }

  write(chunk: Uint8Array): Promise<void> {
    return this.#backend.write(chunk);
  }

  finish(): Promise<void> {
    return this.#backend.finish();
  }

  reset(code: number = codes.cancelled.code): void {
    this.#backend.reset(code);
  }

  stop(code: number = codes.cancelled.code): void {
    this.#backend.stop(code);
  }

  /** Gives up both directions. */
  cancel(code: number = codes.cancelled.code): void {
    this.reset(code);
    this.stop(code);
  }

  get readable(): ReadableStream<Uint8Array> {
    this.#readable ??= new ReadableStream<Uint8Array>(
      {
        pull: async (controller) => {
          const chunk = await this.read();
          if (chunk === undefined) controller.close();
          else controller.enqueue(chunk);
        },
        cancel: () => this.stop(),
      },
      { highWaterMark: 0 },
    );
    return this.#readable;
  }

  get writable(): WritableStream<Uint8Array> {
    this.#writable ??= new WritableStream<Uint8Array>({
      write: (chunk) => this.write(chunk),
      close: () => this.finish(),
      abort: () => this.reset(),
    });
    return this.#writable;
  }
}
