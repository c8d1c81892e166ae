import { expect, test } from "vitest";
import { NodeError, Stream } from "nectar/remote";
import { readHead, receiveFile, sendFile, type FileSource } from "../src/lib/transfer.ts";
import { hex } from "../src/lib/words.ts";
import { pair, type WasmStream } from "./fake-wasm.ts";

const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

function wrap(raw: WasmStream): Stream {
  return new Stream({
    from: raw.from(),
    protocol: raw.protocol(),
    metadata: raw.metadata(),
    read: () => raw.read(),
    write: (chunk) => raw.write(chunk),
    finish: () => raw.finish(),
    reset: raw.reset,
    stop: raw.stop,
  });
}

function source(bytes: Uint8Array, size = bytes.length): FileSource {
  return { name: "a.bin", size, type: "application/x-test", slice: async (from, to) => bytes.slice(from, to) };
}

/** A sender whose stream ends at `other`. */
function line(file: FileSource, abort = new AbortController()) {
  let other!: Stream;
  const progress: number[] = [];
  const node = {
    openStream: async (to: string, protocol: string, metadata?: Uint8Array) => {
      const [ours, theirs] = pair(to, protocol, metadata);
      other = wrap(theirs);
      return wrap(ours);
    },
  };
  const sent = sendFile(node, "bob.nectar", file, (done) => progress.push(done), abort.signal);
  sent.catch(() => {});
  return { sent, progress, abort, other: async () => (await Promise.resolve(), other) };
}

const never = new AbortController().signal;

test("a file arrives whole, and both sides name the same hash", async () => {
  const bytes = Uint8Array.from({ length: 300_001 }, (_, index) => index * 31);
  const { sent, progress, other } = line(source(bytes));
  const stream = await other();
  const head = readHead(stream.metadata);
  expect(head).toEqual({ name: "a.bin", size: bytes.length, type: "application/x-test" });
  const received = await receiveFile(stream, head, () => {}, never);
  const expected = hex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
  expect(received.sha256).toBe(expected);
  expect(await sent).toBe(expected);
  expect(Buffer.compare(new Uint8Array(await received.blob.arrayBuffer()), bytes)).toBe(0);
  expect(progress.at(-1)).toBe(bytes.length);
  expect(progress.length).toBeGreaterThan(3);
});

test("an empty file is a file", async () => {
  const { sent, other } = line(source(new Uint8Array()));
  const stream = await other();
  const { blob } = await receiveFile(stream, readHead(stream.metadata), () => {}, never);
  expect(blob.size).toBe(0);
  expect(await sent).toMatch(/^e3b0c442/);
});

test("declining ends the sender with the reason", async () => {
  const { sent, other } = line(source(new Uint8Array(10)));
  (await other()).cancel(NodeError.of("cancelled").code);
  await expect(sent).rejects.toMatchObject({ name: "cancelled" });
});

test("cancelling in the middle ends both sides", async () => {
  const { sent, other, abort } = line(source(new Uint8Array(2_000_000)));
  const stream = await other();
  const received = receiveFile(stream, readHead(stream.metadata), (done) => done > 500_000 && abort.abort(), never);
  await expect(received).rejects.toMatchObject({ name: "cancelled" });
  await expect(sent).rejects.toMatchObject({ name: "cancelled" });
});

test("more or fewer bytes than announced are an error on the receiving side", async () => {
  for (const [announced, code] of [
    [5, "flow_violated"],
    [50, "stream_reset"],
  ] as const) {
    const [ours, theirs] = pair("bob.nectar", "file.1", encode({ name: "x", size: announced, type: "a/b" }));
    const stream = wrap(theirs);
    const received = receiveFile(stream, readHead(stream.metadata), () => {}, never);
    received.catch(() => {});
    await ours.read();
    await ours.write(new Uint8Array(10));
    await ours.finish();
    await expect(received).rejects.toMatchObject({ name: code });
  }
});

test("a file that became shorter, and a receiver that saw something else, are errors of the sender", async () => {
  const shrunk = line(source(new Uint8Array(10), 20));
  const stream = await shrunk.other();
  receiveFile(stream, readHead(stream.metadata), () => {}, never).catch(() => {});
  await expect(shrunk.sent).rejects.toMatchObject({ name: "invalid_argument" });

  const lied = line(source(new Uint8Array(10)));
  const liar = await lied.other();
  await liar.write(new TextEncoder().encode('{"accept":true}\n{"sha256":"00","size":10}\n'));
  await expect(lied.sent).rejects.toMatchObject({ name: "handler_failed" });

  const noise = line(source(new Uint8Array(10)));
  await (await noise.other()).write(new TextEncoder().encode("hello\n"));
  await expect(noise.sent).rejects.toThrow("not file.1");
});

test("what a sender says about its file is not believed", () => {
  expect(() => readHead(undefined)).toThrow("JSON");
  expect(() => readHead(encode({ name: "x", size: -1, type: "a/b" }))).toThrow("size");
  expect(() => readHead(encode({ name: "x", size: 1e15, type: "a/b" }))).toThrow("2 GiB");
  expect(() => readHead(encode({ name: 1, size: 1, type: "a/b" }))).toThrow("name");
  const name = (text: string) => readHead(encode({ name: text, size: 1, type: "a/b" })).name;
  expect(name("../../etc/passwd")).toBe("passwd");
  expect(name("C:\\x\\evil.exe")).toBe("evil.exe");
  expect(name("invoice\u202Efdp.exe")).toBe("invoicefdp.exe");
  expect(name("..")).toBe("file");
  expect(name("é".repeat(300))).toHaveLength(200);
  expect(readHead(encode({ name: "x", size: 1, type: "text/html\r\nx" })).type).toBe("application/octet-stream");
});
