/** Contacts, conversations, requests. Files are in `files.svelte.ts`. */

import { NodeError, type PeerState, type RemoteNode, type ResolvedRecord } from "nectar/remote";
import {
  answerText,
  Chats,
  decodeChat,
  encodeChat,
  STRANGER_MESSAGES,
  STRANGERS,
  TEXT_MAX,
  type AskEntry,
  type Conversation,
  type Entry,
  type TextEntry,
} from "../lib/chats.ts";
import { explain, hex } from "../lib/words.ts";
import { Files } from "./files.svelte.ts";

export const CHAT_PROTOCOL = "chat.1";
export const ASK_PROTOCOL = "echo.1";

export class Talk {
  conversations = $state<Conversation[]>([]);
  selected = $state<string | undefined>(undefined);
  entries = $state<Entry[]>([]);
  peers = $state<Record<string, PeerState>>({});
  /** Contacts whose name has another owner than the one that the person confirmed. */
  sold = $state<Record<string, ResolvedRecord>>({});
  readonly me: string;
  readonly files: Files;

  #node: RemoteNode;
  #chats: Chats;
  #announce: (text: string) => void;
  #tabs = new BroadcastChannel("nectar-page");
  #order = 0;
  /** Grows whenever the conversations change here: what was read before is older. */
  #changes = 0;
  /** Strangers who are being looked up. */
  #coming = new Map<string, Promise<Conversation>>();
  /** Ids of what this tab sends right now. */
  #sending = new Set<string>();

  constructor(node: RemoteNode, chats: Chats, me: string, announce: (text: string) => void) {
    this.#node = node;
    this.#chats = chats;
    this.#announce = announce;
    this.me = me;
    this.files = new Files(node, this);
  }

  /** Loads what is kept, and listens. */
  async load(): Promise<void> {
    await this.#read();
    this.#tabs.addEventListener("message", (event: MessageEvent<string>) => void this.#reload(event.data));
    this.#node.on((event) => {
      if (event.type !== "peer") return;
      const { type: _, ...peer } = event;
      const before = this.peers[peer.name]?.state;
      this.peers[peer.name] = peer;
      if (before !== "online" && peer.state === "online") void this.verify(peer.name).catch(() => {});
    });
    this.#node.onMessage(CHAT_PROTOCOL, ({ from, payload }) => this.#receive(from, payload));
    this.files.listen();
  }

  /** The node runs: look for all contacts. */
  async online(): Promise<void> {
    for (const peer of await this.#node.peers()) this.peers[peer.name] = peer;
    for (const { peer, accepted, blocked } of this.conversations) {
      if (accepted && !blocked) void this.#node.connect(peer).catch(() => {});
    }
  }

  get current(): Conversation | undefined {
    return this.conversations.find(({ id }) => id === this.selected);
  }

  /** Adds a contact; throws when nobody has the name. */
  async add(peer: string): Promise<Conversation> {
    if (peer === this.me) throw NodeError.of("myself", "that is your own name");
    const record = await this.#node.resolve(peer, true);
    const conversation = await this.#obtain(peer, record, true);
    void this.#node.connect(peer).catch(() => {});
    await this.select(conversation.id);
    return conversation;
  }

  async select(id: string | undefined): Promise<void> {
    this.selected = id;
    this.entries = [];
    const conversation = this.current;
    if (conversation === undefined) return;
    const entries = await this.#chats.entries(conversation.id);
    if (this.selected === id) this.entries = entries;
    if (conversation.unread > 0) await this.#change(conversation.id, () => ({ unread: 0 }));
    if (conversation.accepted) void this.verify(conversation.peer).catch(() => {});
  }

  async accept(conversation: Conversation): Promise<void> {
    await this.#change(conversation.id, () => ({ accepted: true, blocked: false }));
    void this.#node.connect(conversation.peer).catch(() => {});
  }

  async block(conversation: Conversation): Promise<void> {
    await this.#change(conversation.id, () => ({ blocked: true }));
    this.files.drop(conversation.id);
    if (this.selected === conversation.id) await this.select(undefined);
  }

  async remove(conversation: Conversation): Promise<void> {
    await this.#chats.removeConversation(conversation.id);
    this.files.drop(conversation.id);
    delete this.sold[conversation.peer];
    this.#changes++;
    this.conversations = this.conversations.filter(({ id }) => id !== conversation.id);
    if (this.selected === conversation.id) await this.select(undefined);
    this.#tell(conversation.id);
  }

  /** The person knows the name's new owner. */
  async confirmOwner(conversation: Conversation): Promise<void> {
    const record = this.sold[conversation.peer];
    if (record === undefined) return;
    await this.#change(conversation.id, () => ({ epoch: record.epoch, key: hex(record.key), how: record.how }));
    delete this.sold[conversation.peer];
  }

  async sendText(conversation: Conversation, text: string): Promise<void> {
    if (text.length > TEXT_MAX) throw NodeError.of("too_large", `a message has at most ${TEXT_MAX} characters`);
    const entry: TextEntry = { ...this.mine(), kind: "text", text };
    await this.append(conversation, entry);
    await this.#deliver(conversation, entry);
  }

  async retry(conversation: Conversation, entry: Entry): Promise<void> {
    if (entry.kind === "text") await this.#deliver(conversation, entry);
    else if (entry.kind === "ask") await this.#ask(conversation, entry);
  }

  /** Sends a request and keeps its answer in the conversation. */
  async ask(conversation: Conversation, text: string): Promise<void> {
    const entry: AskEntry = { ...this.mine(), kind: "ask", text };
    await this.append(conversation, entry);
    await this.#ask(conversation, entry);
  }

  /** Whether an entry that says "sending" is being sent by this tab. */
  isSending(entry: Entry): boolean {
    return this.#sending.has(entry.id);
  }

  /** @internal Keeps what became of an entry, and shows it, unless it was deleted meanwhile. */
  async update(conversation: Conversation, entry: Entry): Promise<void> {
    if (!(await this.#chats.update(conversation.id, entry))) return;
    this.#show(conversation, entry);
    this.#tell(conversation.id);
  }

  /** @internal The conversation that something of a peer belongs to; throws when the peer may not write. */
  async admit(from: string | null): Promise<Conversation> {
    if (from === null) throw NodeError.of("not_allowed", "this person takes messages of named nodes only");
    const known = this.conversations.find(({ peer }) => peer === from) ?? (await this.#newcomer(from));
    // What a new owner writes would stand below what the former one wrote.
    if (known.blocked || this.sold[from] !== undefined) throw NodeError.of("not_allowed");
    return known;
  }

  /** Lets a stranger wait for the person's decision. The place is taken before anything is waited for. */
  #newcomer(from: string): Promise<Conversation> {
    const coming = this.#coming.get(from);
    if (coming !== undefined) return coming;
    const waiting = this.conversations.filter(({ accepted, blocked }) => !accepted && !blocked);
    if (waiting.length + this.#coming.size >= STRANGERS) {
      throw NodeError.of("queue_full", "too many strangers wait for this person's decision");
    }
    const obtained = this.#node.resolve(from, false).then((record) => this.#obtain(from, record, false));
    const settled = obtained.finally(() => this.#coming.delete(from));
    this.#coming.set(from, settled);
    return settled;
  }

  /** @internal */
  async noticed(conversation: Conversation, what: string): Promise<void> {
    this.#announce(`${conversation.peer}: ${what}`);
    if (this.selected === conversation.id && document.visibilityState === "visible") return;
    await this.#change(conversation.id, ({ unread }) => ({ unread: unread + 1 }));
  }

  /** Changes a conversation as it is kept now, and does nothing to one that was deleted. */
  async #change(id: string, alter: (now: Conversation) => Partial<Conversation>): Promise<void> {
    const changed = await this.#chats.change(id, alter);
    if (changed === undefined) return;
    this.#changes++;
    const index = this.conversations.findIndex((each) => each.id === id);
    if (index >= 0) this.conversations[index] = changed;
    this.#tell(id);
  }

  /** Reads the conversations anew, until none changed here while they were read. */
  async #read(): Promise<void> {
    let before;
    let read;
    do {
      before = this.#changes;
      read = await this.#chats.conversations(this.me);
    } while (before !== this.#changes);
    this.conversations = read;
  }

  async #obtain(peer: string, record: ResolvedRecord, accepted: boolean): Promise<Conversation> {
    const id = await this.#chats.conversationId(this.me, peer);
    const fresh: Conversation = {
      id,
      me: this.me,
      peer,
      epoch: record.epoch,
      key: hex(record.key),
      how: record.how,
      accepted,
      blocked: false,
      unread: 0,
    };
    if (!(await this.#chats.addConversation(fresh))) {
      await this.#read();
      const known = this.conversations.find((each) => each.id === id);
      if (known !== undefined) {
        if (accepted && (!known.accepted || known.blocked)) await this.accept(known);
        return known;
      }
    }
    this.#changes++;
    if (!this.conversations.some((each) => each.id === id)) this.conversations.push(fresh);
    this.#tell(id);
    return this.conversations.find((each) => each.id === id) ?? fresh;
  }

  async #receive(from: string | null, payload: Uint8Array): Promise<void> {
    let message;
    try {
      message = decodeChat(payload);
    } catch (error) {
      throw NodeError.of("invalid_argument", error instanceof Error ? error.message : String(error));
    }
    const conversation = await this.admit(from);
    const entry: TextEntry = {
      kind: "text",
      id: message.id,
      mine: false,
      at: message.at,
      order: this.#nextOrder(),
      state: "received",
      text: message.text,
    };
    if (await this.append(conversation, entry)) await this.noticed(conversation, message.text);
  }

  async #deliver(conversation: Conversation, entry: TextEntry): Promise<void> {
    await this.#run(conversation, entry, async () => {
      await this.#node.message(conversation.peer, CHAT_PROTOCOL, encodeChat({ id: entry.id, text: entry.text, at: entry.at }));
      return entry;
    });
  }

  async #ask(conversation: Conversation, entry: AskEntry): Promise<void> {
    await this.#run(conversation, entry, async () => {
      const begun = performance.now();
      const answer = await this.#node.request(conversation.peer, ASK_PROTOCOL, new TextEncoder().encode(entry.text));
      return { ...entry, answer: answerText(answer.data), tookMs: performance.now() - begun };
    });
  }

  /** Does what an entry stands for, and keeps how it went. */
  async #run(conversation: Conversation, entry: Entry, work: () => Promise<Entry>): Promise<void> {
    if (this.#sending.has(entry.id)) return;
    this.#sending.add(entry.id);
    const { error: _, ...clean } = $state.snapshot(entry);
    try {
      await this.update(conversation, { ...clean, state: "sending" } as Entry);
      await this.verify(conversation.peer);
      const done = await work();
      await this.update(conversation, { ...done, state: "delivered" });
    } catch (error) {
      const words = explain(error, conversation.peer);
      await this.update(conversation, { ...clean, state: "failed", error: words } as Entry);
      this.#announce(`Not delivered. ${words}`);
    } finally {
      this.#sending.delete(entry.id);
    }
  }

  /** @internal Names can be sold: throws when this one has another owner than the one the person confirmed. */
  async verify(peer: string): Promise<void> {
    const find = () => this.conversations.find((each) => each.peer === peer);
    if (find() === undefined) return;
    const record = await this.#node.resolve(peer, false);
    // The person may have deleted the contact meanwhile, or confirmed its owner.
    const conversation = find();
    if (conversation === undefined) return;
    if (record.epoch !== conversation.epoch) {
      this.sold[peer] = record;
      throw NodeError.of("epoch_changed");
    }
    delete this.sold[peer];
    const key = hex(record.key);
    if (key !== conversation.key || record.how !== conversation.how) {
      await this.#change(conversation.id, (now) => (now.epoch === record.epoch ? { key, how: record.how } : {}));
    }
  }

  /** @internal Keeps a new entry and shows it; false when it was there already. */
  async append(conversation: Conversation, entry: Entry): Promise<boolean> {
    const { accepted, blocked } = this.conversations.find(({ id }) => id === conversation.id) ?? conversation;
    if (blocked && !entry.mine) throw NodeError.of("not_allowed");
    const added = await this.#chats.add(conversation.id, entry, accepted ? Infinity : STRANGER_MESSAGES);
    if (added === "full") throw NodeError.of("queue_full", "this person has to accept you first");
    if (added === "gone") throw NodeError.of("cancelled", "the conversation was deleted");
    if (added === "known") return false;
    this.#show(conversation, entry);
    this.#tell(conversation.id);
    return true;
  }

  #show(conversation: Conversation, entry: Entry): void {
    if (this.selected !== conversation.id) return;
    const index = this.entries.findIndex(({ id, mine }) => id === entry.id && mine === entry.mine);
    if (index < 0) this.entries.push(entry);
    else this.entries[index] = entry;
  }

  /** @internal What every new entry of ours has. */
  mine(): { id: string; mine: true; at: number; order: number; state: "sending" } {
    const order = this.#nextOrder();
    return { id: crypto.randomUUID(), mine: true, at: Date.now(), order, state: "sending" };
  }

  /** Grows even when two entries come within one millisecond. */
  #nextOrder(): number {
    this.#order = Math.max(this.#order + 0.001, Date.now());
    return this.#order;
  }

  #tell(conversation: string): void {
    this.#tabs.postMessage(conversation);
  }

  /** Another tab changed a conversation. */
  async #reload(id: string): Promise<void> {
    await this.#read();
    const changed = this.conversations.find((each) => each.id === id);
    if (changed === undefined || changed.blocked) this.files.drop(id);
    if (this.selected !== id) return;
    const entries = await this.#chats.entries(id);
    if (this.selected === id) this.entries = entries;
  }
}
