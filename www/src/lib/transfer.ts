/** Files between two people: protocol `file.1`, one stream per file.
 *
 * The sender opens the stream with `{name, size, type}` as metadata and waits. The receiver answers `{"accept":true}`
 * and a line feed, or resets. The bytes follow. At their end the receiver says `{"sha256":"…","size":n}` and a line
 * feed, and both ends compare. */

import { NodeError, type NodeApi, type Stream } from "nectar/remote";
import { Sha256 } from "./sha256.ts";

export const FILE_PROTOCOL = "file.1";
/** Largest file, in bytes: what a browser can be expected to hold. */
export const FILE_MAX = 2 ** 31;

const CHUNK = 64 << 10;
/** Received pieces are handed to the browser's blob storage, which may be on disk, in portions of this size. */
const PORTION = 8 << 20;
/** Longest line that the other side may answer. */
const LINE_MAX = 1024;

export interface FileHead {
  name: string;
  size: number;
  type: string;
}

export interface FileSource extends FileHead {
  slice(from: number, to: number): Promise<Uint8Array>;
}

export type Progress = (done: number) => void;

/** Sends a file; resolves with its SHA-256 when the receiver has it and saw the same. */
export async function sendFile(
  node: Pick<NodeApi, "openStream">,
  to: string,
  file: FileSource,
  progress: Progress,
  signal: AbortSignal,
): Promise<string> {
  const { name, size, type } = file;
  const stream = await node.openStream(to, FILE_PROTOCOL, json({ name, size, type } satisfies FileHead));
  const stop = () => stream.cancel();
  signal.addEventListener("abort", stop, { once: true });
  try {
    signal.throwIfAborted();
    const answers = new Lines(stream);
    const answer = await answers.next();
    if (answer["accept"] !== true) throw NodeError.of("cancelled", "the other side declined");
    const hash = new Sha256();
    for (let at = 0; at < size; ) {
      const chunk = await file.slice(at, Math.min(at + CHUNK, size));
      if (chunk.length === 0) throw NodeError.of("invalid_argument", "the file became shorter while it was sent");
      signal.throwIfAborted();
      hash.update(chunk);
      at += chunk.length;
      await stream.write(chunk);
      progress(at);
    }
    await stream.finish();
    const ours = hash.hex();
    const receipt = await answers.next();
    if (receipt["sha256"] !== ours || receipt["size"] !== size) {
      throw NodeError.of("handler_failed", "the other side received something else: send it again");
    }
    return ours;
  } catch (error) {
    stream.cancel();
    throw signal.aborted ? NodeError.of("cancelled") : error;
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/** Reads what a sender says about its file; throws a sentence when it makes no sense. */
export function readHead(metadata: Uint8Array | undefined): FileHead {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(metadata ?? new Uint8Array()));
  } catch {
    throw NodeError.of("invalid_argument", "file.1 metadata is JSON");
  }
  const { name, size, type } = (value ?? {}) as Record<string, unknown>;
  if (typeof name !== "string" || typeof type !== "string" || typeof size !== "number") {
    throw NodeError.of("invalid_argument", "file.1 metadata has name, size and type");
  }
  if (!Number.isSafeInteger(size) || size < 0) throw NodeError.of("invalid_argument", "the size is not one");
  if (size > FILE_MAX) throw NodeError.of("too_large", "the file is larger than 2 GiB");
  return { name: safeName(name), size, type: /^[\w.+-]+\/[\w.+-]+$/.test(type) ? type : "application/octet-stream" };
}

/** Accepts a file and receives it; resolves with the file and its SHA-256. */
export async function receiveFile(
  stream: Stream,
  head: FileHead,
  progress: Progress,
  signal: AbortSignal,
): Promise<{ blob: Blob; sha256: string }> {
  const stop = () => stream.cancel();
  signal.addEventListener("abort", stop, { once: true });
  try {
    await stream.write(line({ accept: true }));
    const hash = new Sha256();
    let blob = new Blob([], { type: head.type });
    let portion: Uint8Array<ArrayBuffer>[] = [];
    let held = 0;
    let done = 0;
    for (let chunk = await stream.read(); chunk !== undefined; chunk = await stream.read()) {
      done += chunk.length;
      if (done > head.size) throw NodeError.of("flow_violated", "more bytes came than were announced");
      hash.update(chunk);
      portion.push(chunk as Uint8Array<ArrayBuffer>);
      held += chunk.length;
      if (held >= PORTION) {
        blob = new Blob([blob, ...portion], { type: head.type });
        portion = [];
        held = 0;
      }
      progress(done);
    }
    if (done !== head.size) throw NodeError.of("stream_reset", "the file ended early");
    const sha256 = hash.hex();
    await stream.write(line({ sha256, size: done }));
    await stream.finish();
    return { blob: new Blob([blob, ...portion], { type: head.type }), sha256 };
  } catch (error) {
    stream.cancel();
    throw signal.aborted ? NodeError.of("cancelled") : error;
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/** A file that the person picked. */
export function sourceOf(file: File): FileSource {
  return {
    name: file.name,
    size: file.size,
    type: file.type || "application/octet-stream",
    slice: async (from, to) => new Uint8Array(await file.slice(from, to).arrayBuffer()),
  };
}

/** A peer's file name without path, control or direction characters, at most 200 characters long. */
function safeName(name: string): string {
  const last = name.split(/[/\\]/).at(-1) ?? "";
  const clean = last.replace(/[\p{Cc}\p{Cf}]/gu, "").trim().replace(/^\.+/, "");
  return clean.length === 0 ? "file" : clean.slice(-200);
}

/** JSON objects, one per line, as the other side answers. */
class Lines {
  #stream: Stream;
  #pending = "";
  #decoder = new TextDecoder();

  constructor(stream: Stream) {
    this.#stream = stream;
  }

  async next(): Promise<Record<string, unknown>> {
    for (;;) {
      const end = this.#pending.indexOf("\n");
      if (end >= 0) {
        const text = this.#pending.slice(0, end);
        this.#pending = this.#pending.slice(end + 1);
        try {
          return JSON.parse(text) as Record<string, unknown>;
        } catch {
          throw NodeError.of("handler_failed", "the other side answered something that is not file.1");
        }
      }
      if (this.#pending.length > LINE_MAX) throw NodeError.of("handler_failed", "the other side's answer is too long");
      const chunk = await this.#stream.read();
      if (chunk === undefined) throw NodeError.of("stream_reset", "the other side ended the transfer");
      this.#pending += this.#decoder.decode(chunk, { stream: true });
    }
  }
}

function json(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

function line(value: unknown): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(value)}\n`);
}
