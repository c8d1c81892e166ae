/** The page as a whole: who we are, whether we are online, and what stands in the way. */

import {
  BuildMismatch,
  connect,
  NodeError,
  type IdentityState,
  type Registry,
  type RemoteNode,
  type ResolvedRecord,
  type RouterState,
  type Running,
  type StartOptions,
} from "nectar/remote";
import { Absence } from "../lib/absence.ts";
import { Chats } from "../lib/chats.ts";
import { fetchConfig, type Config } from "../lib/config.ts";
import { Database } from "../lib/db.ts";
import { isPrivate } from "../lib/hosts.ts";
import { Memory } from "../lib/identity.ts";
import { Vault } from "../lib/vault.ts";
import { explain, hex, statement } from "../lib/words.ts";
import { Talk } from "./talk.svelte.ts";

export type Phase =
  | { at: "loading"; what: string }
  | { at: "broken"; message: string }
  /** No secure context: no key, no name. */
  | { at: "guest" }
  | { at: "onboarding" }
  | { at: "home" };

/** Why the registered record and this browser do not fit. */
export type Problem =
  | { kind: "rotated"; record: ResolvedRecord }
  | { kind: "unregistered" }
  /** The chain cannot be asked; it is asked again as long as we are offline. */
  | { kind: "unreachable"; message: string }
  | { kind: "start"; message: string }
  /** The worker died, and the node with it. */
  | { kind: "ended" };

const ONLINE = "You are online.";

export class App {
  phase = $state<Phase>({ at: "loading", what: "Reading the configuration" });
  config = $state.raw<Config>({ version: 1, registries: [], routers: [] });
  /** What the server says now, if it differs from what was pinned. */
  offered = $state.raw<Config | undefined>(undefined);
  me = $state("");
  key = $state("");
  identity = $state<IdentityState["state"]>("offline");
  /** Offline for so long that the person has to know. */
  late = $state(false);
  problem = $state.raw<Problem | undefined>(undefined);
  routers = $state<RouterState[]>([]);
  /** Read out by screen readers. */
  announcement = $state("");

  node!: RemoteNode;
  memory: Memory | undefined;
  talk: Talk | undefined = $state.raw(undefined);

  #absence = new Absence(() => {
    this.late = true;
    // The chain may have been started anew, or another key registered, while this page was open.
    if (this.problem?.kind !== "start" && this.problem?.kind !== "ended") void this.checkRecord(true);
  });

  async start(): Promise<void> {
    try {
      const offered = await fetchConfig();
      const secure = isSecureContext && "subtle" in crypto;
      if (!secure) {
        this.config = offered;
        await this.#connect();
        this.#adopt(await this.node.start(this.#options(undefined)));
        this.phase = { at: "guest" };
        return;
      }
      const db = await Database.open();
      const vault = await Vault.open(db);
      this.memory = new Memory(db, vault);
      const { config, changed } = await this.memory.pin(offered);
      this.config = config;
      this.offered = changed ? offered : undefined;
      this.phase = { at: "loading", what: "Starting the node" };
      await this.#connect();
      const name = await this.memory.name();
      if (name === undefined) {
        this.#adopt(await this.node.start(this.#options(undefined)));
        this.phase = { at: "onboarding" };
        return;
      }
      await this.#home(name, new Chats(db, vault));
    } catch (error) {
      this.phase = { at: "broken", message: wordsForStart(error) };
    }
  }

  /** The registry of an ending. */
  registry(tld: string): Registry | undefined {
    return this.config.registries.find((registry) => registry.tld === tld);
  }

  get tlds(): string[] {
    return this.config.registries.map(({ tld }) => tld);
  }

  /** The name is ours now: go online under it. */
  async become(name: string): Promise<void> {
    await this.memory?.setName(name);
    await this.memory?.dropDraft(name);
    // Survives the reload, of this tab alone.
    history.replaceState({ registered: true }, "");
    location.reload();
  }

  /** Forgets which name this browser had; key and conversations stay. */
  async forget(): Promise<void> {
    await this.memory?.setName(undefined);
    await this.node.stop();
    location.reload();
  }

  /** Goes online here, although another place is. */
  async takeOver(): Promise<void> {
    this.#is("offline");
    await this.#startNamed(true);
  }

  /** Accepts what the server says about the network now. */
  async acceptOffered(): Promise<void> {
    if (this.offered !== undefined) await this.memory?.repin($state.snapshot(this.offered));
    await this.node.stop();
    location.reload();
  }

  /** Compares the registered record with this browser's key. */
  async checkRecord(fresh: boolean): Promise<void> {
    try {
      const record = await this.node.resolve(this.me, fresh);
      this.problem = hex(record.key) === this.key ? undefined : { kind: "rotated", record };
    } catch (error) {
      if (error instanceof NodeError && error.is("name_unknown")) this.problem = { kind: "unregistered" };
      else if (this.identity === "offline" && (this.problem === undefined || this.problem.kind === "unreachable")) {
        this.problem = { kind: "unreachable", message: statement(error) };
      }
    }
  }

  /** The key was registered: start anew with it. */
  async rekeyed(): Promise<void> {
    this.problem = undefined;
    await this.#startNamed(true, true);
  }

  announce(text: string): void {
    this.announcement = text;
  }

  async #home(name: string, chats: Chats): Promise<void> {
    this.me = name;
    this.key = hex(await this.node.generateKey());
    const talk = new Talk(this.node, chats, name, (text) => this.announce(text));
    await talk.load();
    this.talk = talk;
    this.phase = { at: "home" };
    await this.#startNamed(false);
  }

  async #startNamed(takeOver: boolean, fresh = false): Promise<void> {
    try {
      this.#adopt(await this.node.start(this.#options(this.me), takeOver));
      this.problem = undefined;
      this.routers = await this.node.routers();
      await this.talk?.online();
    } catch (error) {
      // That the worker died has been said.
      if (!this.node.closed) this.problem = { kind: "start", message: explain(error) };
      return;
    }
    await this.checkRecord(fresh);
  }

  async #connect(): Promise<void> {
    this.node = await connect({
      worker: new URL("/worker.js", location.href),
      build: __NECTAR_BUILD__,
      here: async () => (await import("nectar/here")).hostHere(__NECTAR_BUILD__),
    });
    this.node.on((event) => {
      if (event.type === "identity") {
        this.#is(event.state);
        if (event.state === "online") this.announce(ONLINE);
        else if (this.announcement === ONLINE) this.announce("");
      } else if (event.type === "router") {
        const { type: _, ...router } = event;
        const index = this.routers.findIndex(({ name }) => name === router.name);
        if (index < 0) this.routers.push(router);
        else this.routers[index] = router;
      }
    });
    this.node.onRunning((running) => {
      if (running === undefined) return this.#stopped();
      // Another tab changed who this origin is.
      const name = this.me === "" ? undefined : this.me;
      if (running.name !== name && this.phase.at !== "loading") location.reload();
      else this.#adopt(running);
    });
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") this.node.active();
    });
    addEventListener("focus", () => this.node.active());
  }

  /** No node runs: what it said of itself, its routers and its peers holds no more. */
  #stopped(): void {
    // Whoever has the name somewhere else keeps it.
    if (this.identity !== "superseded") this.#is("offline");
    for (const router of this.routers) router.state = "offline";
    if (this.talk !== undefined) this.talk.peers = {};
    if (this.node.closed) this.problem = { kind: "ended" };
  }

  #adopt(running: Running): void {
    this.#is(running.identity);
    this.key = hex(running.publicKey);
  }

  #is(identity: IdentityState["state"]): void {
    this.identity = identity;
    if (identity === "offline" && this.me !== "") {
      this.#absence.begin();
      return;
    }
    this.#absence.end();
    this.late = false;
    if (this.problem?.kind === "unreachable") this.problem = undefined;
    const contradicted = this.problem?.kind === "unregistered" || this.problem?.kind === "rotated";
    if (identity === "online" && contradicted) void this.checkRecord(true);
  }

  #options(name: string | undefined): StartOptions {
    return {
      ...(name === undefined ? { guest: true } : { name }),
      registries: this.config.registries,
      routers: this.config.routers.map(({ name, url }) => ({ name, url })),
      // A page from this machine or a private network may reach what runs there.
      allowPrivate: isPrivate(location.hostname),
      userAgent: `nectar-page/${__NECTAR_BUILD__}`,
    };
  }
}

function wordsForStart(error: unknown): string {
  if (error instanceof BuildMismatch) {
    return "Another version of this page is open in another tab. Close its other tabs, then reload this one.";
  }
  if (error instanceof NodeError) return explain(error);
  return error instanceof Error ? error.message : String(error);
}

export const app = new App();
