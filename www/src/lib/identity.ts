/** What this browser remembers of itself. */

import type { ChainRecord } from "./chain.ts";
import { trustAnchor, type Config } from "./config.ts";
import type { Database } from "./db.ts";
import type { Draft } from "./registration.ts";
import type { Sealed, Vault } from "./vault.ts";

export class Memory {
  #db: Database;
  #vault: Vault;

  constructor(db: Database, vault: Vault) {
    this.#db = db;
    this.#vault = vault;
  }

  /** The name that this browser goes online as. */
  name(): Promise<string | undefined> {
    return this.#db.get<string>("values", "name");
  }

  async setName(name: string | undefined): Promise<void> {
    if (name === undefined) await this.#db.delete("values", "name");
    else await this.#db.put("values", name, "name");
  }

  /** Registrations that were begun, one per name: tabs may register at the same time. */
  async drafts(): Promise<Draft[]> {
    const keys = await this.#db.keys("values", IDBKeyRange.bound(draftKey(""), draftKey("\uffff")));
    const drafts = await Promise.all(keys.map((key) => this.#sealed<Draft>(String(key)).catch(() => undefined)));
    return drafts.filter((each) => each !== undefined);
  }

  async keepDraft(draft: Draft): Promise<void> {
    await this.#seal(draftKey(`${draft.label}.${draft.tld}`), draft);
  }

  async dropDraft(name: string): Promise<void> {
    await this.#db.delete("values", draftKey(name));
  }

  /** Private key of this browser's account on a development chain. */
  localAccount(): Promise<string | undefined> {
    return this.#sealed<string>("account");
  }

  async setLocalAccount(privateKey: string): Promise<void> {
    await this.#seal("account", privateKey);
  }

  /** Pins the configuration at first use; later ones that name other registries are not taken without a word.
   *
   * Routers are not trusted and may come and go. */
  async pin(offered: Config): Promise<{ config: Config; changed: boolean }> {
    const pinned = await this.#db.get<Config>("values", "config");
    if (pinned === undefined || trustAnchor(pinned) === trustAnchor(offered)) {
      await this.#db.put("values", offered, "config");
      return { config: offered, changed: false };
    }
    return { config: { ...offered, registries: pinned.registries }, changed: true };
  }

  async repin(config: Config): Promise<void> {
    await this.#db.put("values", config, "config");
  }

  async #sealed<T>(name: string): Promise<T | undefined> {
    const sealed = await this.#db.get<Sealed>("values", name);
    return sealed === undefined ? undefined : this.#vault.open<T>(sealed, `value ${name}`);
  }

  async #seal(name: string, value: unknown): Promise<void> {
    await this.#db.put("values", await this.#vault.seal(value, `value ${name}`), name);
  }
}

function draftKey(name: string): string {
  return `draft ${name}`;
}

/** A fresh salt: without it, a commitment could be guessed. */
export function newSalt(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  return `0x${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** A new registration. */
export function newDraft(
  registry: { tld: string; chainId: number; contract: string },
  label: string,
  owner: string,
  record: ChainRecord,
  signer: string,
): Draft {
  const { tld, chainId, contract } = registry;
  return { label, tld, chainId, contract, owner, record, salt: newSalt(), signer };
}
