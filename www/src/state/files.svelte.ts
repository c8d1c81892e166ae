/** Files on their way, in either direction. */

import { NodeError, type RemoteNode, type Stream } from "nectar/remote";
import type { Conversation, FileEntry } from "../lib/chats.ts";
import { FILE_MAX, FILE_PROTOCOL, readHead, receiveFile, sendFile, sourceOf, type FileHead } from "../lib/transfer.ts";
import { explain, size } from "../lib/words.ts";
import type { Talk } from "./talk.svelte.ts";

/** What of a file exists in this tab only, by the id of its entry. */
export interface Transfer {
  /** The conversation that it belongs to. */
  conversation: string;
  state: "offered" | "waiting" | "running" | "done";
  done: number;
  size: number;
  /** Of a received file: where it can be saved from, while the page is open. */
  url?: string;
}

/** Files that one peer may offer without an answer. */
const OFFERS = 8;

export class Files {
  transfers = $state<Record<string, Transfer>>({});
  #node: RemoteNode;
  #talk: Talk;
  #offers = new Map<string, { stream: Stream; head: FileHead; conversation: Conversation; entry: FileEntry }>();
  #aborts = new Map<string, AbortController>();

  constructor(node: RemoteNode, talk: Talk) {
    this.#node = node;
    this.#talk = talk;
  }

  listen(): void {
    this.#node.serveStream(FILE_PROTOCOL, (stream) => {
      this.#offered(stream).catch((error: unknown) => stream.cancel(NodeError.from(error).code));
    });
  }

  async send(conversation: Conversation, file: File): Promise<void> {
    if (file.size > FILE_MAX) throw NodeError.of("too_large", `a file has at most ${size(FILE_MAX)}`);
    const source = sourceOf(file);
    const { name, type } = source;
    const entry: FileEntry = { ...this.#talk.mine(), kind: "file", name, size: source.size, type };
    await this.#talk.append(conversation, entry);
    await this.#run(conversation, entry, "waiting", async (progress, signal) => {
      await this.#talk.verify(conversation.peer);
      return { sha256: await sendFile(this.#node, conversation.peer, source, progress, signal), state: "delivered" };
    });
  }

  /** Takes a file that was offered. */
  async accept(id: string): Promise<void> {
    const offer = this.#offers.get(id);
    if (offer === undefined) return;
    this.#offers.delete(id);
    const { stream, head, conversation, entry } = offer;
    await this.#run(conversation, entry, "running", async (progress, signal) => {
      const { blob, sha256 } = await receiveFile(stream, head, progress, signal);
      return { sha256, state: "received", url: URL.createObjectURL(blob) };
    });
  }

  async decline(id: string): Promise<void> {
    const offer = this.#offers.get(id);
    if (offer === undefined) return;
    this.#forget(id);
    await this.#talk.update(offer.conversation, { ...offer.entry, state: "failed", error: "You declined." });
  }

  /** Ends a transfer that runs. */
  cancel(id: string): void {
    this.#aborts.get(id)?.abort();
  }

  /** Takes back and lets go of whatever a conversation has here: it is over. */
  drop(conversation: string): void {
    for (const [id, transfer] of Object.entries(this.transfers)) {
      if (transfer.conversation !== conversation) continue;
      this.cancel(id);
      this.#forget(id);
    }
  }

  #forget(id: string): void {
    this.#offers.get(id)?.stream.cancel();
    this.#offers.delete(id);
    const url = this.transfers[id]?.url;
    if (url !== undefined) URL.revokeObjectURL(url);
    delete this.transfers[id];
  }

  async #offered(stream: Stream): Promise<void> {
    const head = readHead(stream.metadata);
    const conversation = await this.#talk.admit(stream.from);
    const waiting = [...this.#offers.values()].filter((offer) => offer.conversation.id === conversation.id);
    if (waiting.length >= OFFERS) throw NodeError.of("queue_full");
    const entry: FileEntry = { ...this.#talk.mine(), mine: false, kind: "file", ...head };
    this.transfers[entry.id] = { conversation: conversation.id, state: "offered", done: 0, size: head.size };
    this.#offers.set(entry.id, { stream, head, conversation, entry });
    try {
      await this.#talk.append(conversation, entry);
    } catch (error) {
      this.#forget(entry.id);
      throw error;
    }
    await this.#talk.noticed(conversation, `offers a file, ${head.name}, ${size(head.size)}`);
  }

  async #run(
    conversation: Conversation,
    entry: FileEntry,
    first: Transfer["state"],
    work: (
      progress: (done: number) => void,
      signal: AbortSignal,
    ) => Promise<{ sha256: string; state: FileEntry["state"]; url?: string }>,
  ): Promise<void> {
    const { id } = entry;
    const abort = new AbortController();
    this.#aborts.set(id, abort);
    const shared = { conversation: conversation.id, size: entry.size };
    this.transfers[id] = { ...shared, state: first, done: 0 };
    const progress = (done: number) => {
      const transfer = this.transfers[id];
      if (transfer !== undefined) Object.assign(transfer, { done, state: "running" });
    };
    try {
      const { sha256, state, url } = await work(progress, abort.signal);
      if (abort.signal.aborted && url !== undefined) URL.revokeObjectURL(url);
      abort.signal.throwIfAborted();
      // Before its end is kept, during which it may be dropped: later nobody would let go of its URL.
      this.transfers[id] = { ...shared, state: "done", done: entry.size, ...(url === undefined ? {} : { url }) };
      await this.#talk.update(conversation, { ...entry, sha256, state });
    } catch (error) {
      this.#forget(id);
      await this.#talk.update(conversation, { ...entry, state: "failed", error: explain(error, conversation.peer) });
    } finally {
      this.#aborts.delete(id);
    }
  }
}
