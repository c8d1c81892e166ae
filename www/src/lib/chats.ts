/** Conversations as they are kept: sealed, but for blinded ids and the order of messages. */

import { settled, type Database, type Store } from "./db.ts";
import type { Sealed, Vault } from "./vault.ts";
import { cut, hex } from "./words.ts";

export interface Conversation {
  id: string;
  /** Whose conversation: own name at the time. */
  me: string;
  peer: string;
  /** The owner's epoch when the person last confirmed this contact. */
  epoch: number;
  /** Networking key at that time, in hexadecimal. */
  key: string;
  how: string;
  /** False while it is only a stranger who wrote. */
  accepted: boolean;
  blocked: boolean;
  unread: number;
}

export type MessageState = "sending" | "delivered" | "failed" | "received";

interface EntryBase {
  /** Unique in its conversation, together with the direction. */
  id: string;
  mine: boolean;
  /** When it was written, by its author's clock, in milliseconds. */
  at: number;
  /** Place in the conversation, by this browser's clock. */
  order: number;
  state: MessageState;
  /** What went wrong. */
  error?: string;
}

export interface TextEntry extends EntryBase {
  kind: "text";
  text: string;
}

export interface FileEntry extends EntryBase {
  kind: "file";
  name: string;
  size: number;
  type: string;
  sha256?: string;
}

export interface AskEntry extends EntryBase {
  kind: "ask";
  text: string;
  answer?: string;
  tookMs?: number;
}

export type Entry = TextEntry | FileEntry | AskEntry;

/** Longest text of one message, in characters. */
export const TEXT_MAX = 8_000;
/** Messages and offers of files that a stranger can leave before being accepted. */
export const STRANGER_MESSAGES = 50;
/** Strangers that wait for a decision. Who is blocked waits no more. */
export const STRANGERS = 32;
/** Messages that are loaded of one conversation. */
const LOADED = 500;

interface SealedConversation extends Sealed {
  id: string;
}

interface SealedMessage extends Sealed {
  conversation: string;
  id: string;
  order: number;
}

/** What became of a new entry: it may have been there before, there may be no room, its conversation may have been deleted. */
export type Added = "added" | "known" | "full" | "gone";

export class Chats {
  #db: Database;
  #vault: Vault;

  constructor(db: Database, vault: Vault) {
    this.#db = db;
    this.#vault = vault;
  }

  async conversations(me: string): Promise<Conversation[]> {
    const sealed = await this.#db.all<SealedConversation>("conversations");
    const opened = await Promise.all(
      sealed.map((each) => this.#vault.open<Conversation>(each, `conversation ${each.id}`).catch(() => undefined)),
    );
    return opened.filter((each): each is Conversation => each?.me === me);
  }

  /** The conversation of two names: the same id for every tab. */
  conversationId(me: string, peer: string): Promise<string> {
    return this.#vault.blind(`${me} ${peer}`);
  }

  /** Keeps a new conversation; false when it was there already. */
  async addConversation(conversation: Conversation): Promise<boolean> {
    const sealed = await this.#vault.seal(conversation, `conversation ${conversation.id}`);
    return this.#db.add("conversations", { id: conversation.id, ...sealed } satisfies SealedConversation);
  }

  /** Changes what `alter` returns of a conversation as it is kept now, whoever else changes it at the same time, and resolves
   * with the whole; undefined, and nothing is kept, when it is gone. */
  async change(id: string, alter: (now: Conversation) => Partial<Conversation>): Promise<Conversation | undefined> {
    const place = `conversation ${id}`;
    for (;;) {
      const before = await this.#db.get<SealedConversation>("conversations", id);
      if (before === undefined) return undefined;
      const now = await this.#vault.open<Conversation>(before, place);
      const after = { ...now, ...alter(now) };
      const sealed: SealedConversation = { id, ...(await this.#vault.seal(after, place)) };
      // Sealing takes longer than a transaction lives. Each sealed state has an iv of its own, which says whether it still stands.
      const same = (found: SealedConversation) => hex(found.iv) === hex(before.iv);
      if (await this.#replace("conversations", id, sealed, same)) return after;
    }
  }

  async removeConversation(id: string): Promise<void> {
    await this.#db.within(["conversations", "messages"], async (store) => {
      await settled(store("conversations").delete(id));
      await settled(store("messages").delete(messagesOf(id)));
    });
  }

  /** The latest entries, oldest first. */
  async entries(conversation: string): Promise<Entry[]> {
    const range = IDBKeyRange.bound([conversation, 0], [conversation, Infinity]);
    const sealed = await this.#db.last<SealedMessage>("messages", "order", range, LOADED);
    const opened = await Promise.all(
      sealed.map((each) => this.#vault.open<Entry>(each, place(conversation, each.id)).catch(() => undefined)),
    );
    return opened.filter((each): each is Entry => each !== undefined);
  }

  /** Keeps a new entry of a conversation, which may come to have `most` of them. */
  async add(conversation: string, entry: Entry, most = Infinity): Promise<Added> {
    const sealed = await this.#sealed(conversation, entry);
    return this.#db.within(["conversations", "messages"], async (store) => {
      if ((await settled(store("conversations").getKey(conversation))) === undefined) return "gone";
      if ((await settled(store("messages").getKey([conversation, sealed.id]))) !== undefined) return "known";
      if (most < Infinity && (await settled(store("messages").count(messagesOf(conversation)))) >= most) return "full";
      await settled(store("messages").add(sealed));
      return "added";
    });
  }

  /** Keeps what became of an entry; false when it is gone. */
  async update(conversation: string, entry: Entry): Promise<boolean> {
    const sealed = await this.#sealed(conversation, entry);
    return this.#replace("messages", [conversation, sealed.id], sealed, () => true);
  }

  /** Puts a value in the place of one that is there and that `still` says yes to; false otherwise. */
  #replace<T>(store: Store, key: IDBValidKey, value: T, still: (found: T) => boolean): Promise<boolean> {
    return this.#db.within([store], async (within) => {
      const found = await settled<T | undefined>(within(store).get(key));
      if (found === undefined || !still(found)) return false;
      await settled(within(store).put(value));
      return true;
    });
  }

  async #sealed(conversation: string, entry: Entry): Promise<SealedMessage> {
    // A peer picks the ids of what it sends: the direction keeps them apart from ours.
    const id = `${entry.mine ? "out" : "in"} ${entry.id}`;
    return { conversation, id, order: entry.order, ...(await this.#vault.seal(entry, place(conversation, id))) };
  }
}

/** What is kept and shown of an answer: as much as a message may have. */
export function answerText(answer: Uint8Array = new Uint8Array()): string {
  // So many bytes have more characters than that, whatever these are.
  const text = new TextDecoder().decode(answer.subarray(0, 4 * TEXT_MAX));
  return text.length <= TEXT_MAX ? text : `${cut(text, TEXT_MAX - 1)}…`;
}

/** What `chat.1` carries. */
export interface ChatMessage {
  id: string;
  text: string;
  at: number;
}

export function encodeChat(message: ChatMessage): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(message));
}

/** Reads what a peer sent; throws a sentence when it is no chat message. */
export function decodeChat(payload: Uint8Array): ChatMessage {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(payload));
  } catch {
    throw new Error("a chat.1 message is JSON");
  }
  const { id, text, at } = (value ?? {}) as Partial<Record<keyof ChatMessage, unknown>>;
  if (typeof id !== "string" || id.length === 0 || id.length > 64) throw new Error("id: a text of 1 to 64 characters");
  if (typeof text !== "string" || text.length > TEXT_MAX) throw new Error(`text: at most ${TEXT_MAX} characters`);
  if (typeof at !== "number" || !Number.isFinite(at)) throw new Error("at: milliseconds since 1970");
  return { id, text, at };
}

function messagesOf(conversation: string): IDBKeyRange {
  return IDBKeyRange.bound([conversation], [conversation, []]);
}

function place(conversation: string, id: string): string {
  return `message ${conversation} ${id}`;
}
