/** Conversations as they are kept: sealed, but for blinded ids and the order of messages. */

import type { Database } from "./db.ts";
import type { Sealed, Vault } from "./vault.ts";

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
/** Messages that a stranger can leave before being accepted. */
export const STRANGER_MESSAGES = 50;
/** Strangers that wait for a decision. */
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

  async saveConversation(conversation: Conversation): Promise<void> {
    const sealed = await this.#vault.seal(conversation, `conversation ${conversation.id}`);
    await this.#db.put("conversations", { id: conversation.id, ...sealed } satisfies SealedConversation);
  }

  async removeConversation(id: string): Promise<void> {
    await this.#db.delete("messages", IDBKeyRange.bound([id], [id, []]));
    await this.#db.delete("conversations", id);
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

  /** Keeps a new entry; false when it was there already. */
  async add(conversation: string, entry: Entry): Promise<boolean> {
    return this.#db.add("messages", await this.#sealed(conversation, entry));
  }

  async update(conversation: string, entry: Entry): Promise<void> {
    await this.#db.put("messages", await this.#sealed(conversation, entry));
  }

  async #sealed(conversation: string, entry: Entry): Promise<SealedMessage> {
    // A peer picks the ids of what it sends: the direction keeps them apart from ours.
    const id = `${entry.mine ? "out" : "in"} ${entry.id}`;
    return { conversation, id, order: entry.order, ...(await this.#vault.seal(entry, place(conversation, id))) };
  }
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

function place(conversation: string, id: string): string {
  return `message ${conversation} ${id}`;
}
