/** Registers a name: commit, wait, reveal. Can be left at any point and taken up again. */

import { ChainError, type ChainRecord, type RegistryChain } from "./chain.ts";

/** Everything that must survive a closed tab: without the salt a commitment is lost. */
export interface Draft {
  label: string;
  tld: string;
  chainId: number;
  contract: string;
  owner: string;
  record: ChainRecord;
  /** 32 random bytes, `0x` and hexadecimal. */
  salt: string;
  /** Who signs: "local", or the wallet's reverse domain name. */
  signer: string;
}

export type Step =
  | { step: "checking" }
  /** The person is to sign the commitment. */
  | { step: "committing" }
  /** Until `until`, by `Date.now()`; `total` in milliseconds. */
  | { step: "waiting"; until: number; total: number }
  /** The person is to sign the registration. */
  | { step: "revealing" }
  | { step: "done" };

export interface Surroundings {
  chain: RegistryChain;
  /** Keeps the draft; resolves when it is safe. */
  save(draft: Draft): Promise<void>;
  show(step: Step): void;
  now(): number;
  sleep(ms: number): Promise<void>;
  newSalt(): string;
  /** Who has a name by the node's own reading, with its quorum; undefined when nobody has it. */
  owner(name: string): Promise<string | undefined>;
}

/** A block may carry a time somewhat behind ours: how often a reveal that came too early is tried again. */
const EARLY_RETRIES = 30;
const EARLY_DELAY_MS = 1_000;
/** The other endpoints may be some blocks behind the one that has a name first: how often they are asked again. */
const BEHIND_RETRIES = 30;
const BEHIND_DELAY_MS = 1_000;

/** Brings a draft to its end from wherever it stands; resolves when the name is registered with the draft's record. */
export async function register(draft: Draft, around: Surroundings): Promise<void> {
  const { chain, show } = around;
  if (chain.account.toLowerCase() !== draft.owner.toLowerCase()) {
    throw new ChainError("not_owner", `this registration was begun by ${draft.owner}: choose that account in the wallet`);
  }
  show({ step: "checking" });
  if ((await chain.holder(draft.label)) !== undefined) {
    await ours(draft, around);
    return show({ step: "done" });
  }

  const ages = await chain.ages();
  let current = draft;
  let commitment = await chain.makeCommitment(current.label, current.record, current.salt);
  let since = await chain.committedAt(commitment);
  const blockTime = await chain.now();
  if (since > 0 && blockTime > since + ages.max) {
    current = { ...current, salt: around.newSalt() };
    commitment = await chain.makeCommitment(current.label, current.record, current.salt);
    since = 0;
  }
  // From here on the salt is worth money: it is safe before the chain hears of it.
  await around.save(current);

  let waitMs: number;
  if (since === 0) {
    show({ step: "committing" });
    await commitOnce(commitment, chain);
    waitMs = ages.min * 1000;
  } else {
    // Our clock may be ahead of the chain's and never behind it by much: the later of the two says how much is left.
    const elapsed = Math.max(blockTime, around.now() / 1000) - since;
    waitMs = Math.min(Math.max(0, ages.min - elapsed), ages.min) * 1000;
  }
  if (waitMs > 0) {
    show({ step: "waiting", until: around.now() + waitMs, total: ages.min * 1000 });
    await around.sleep(waitMs);
  }

  show({ step: "revealing" });
  await reveal(current, around);
  await ours(current, around);
  show({ step: "done" });
}

/** Resolves when a name that is said to be registered is ours. After this the draft is dropped, and the salt with it: one
 * endpoint's word is not enough. */
async function ours(draft: Draft, around: Surroundings): Promise<void> {
  const name = `${draft.label}.${draft.tld}`;
  for (let attempt = 0; ; attempt++) {
    const owner = await around.owner(name);
    if (owner?.toLowerCase() === draft.owner.toLowerCase()) return;
    if (owner !== undefined) {
      throw new ChainError("taken", `${name} was registered by somebody else meanwhile: choose another name`);
    }
    if (attempt === BEHIND_RETRIES) {
      throw new ChainError("unreachable", `the chain's endpoints do not agree on whether ${name} is registered: try again later`);
    }
    await around.sleep(BEHIND_DELAY_MS);
  }
}

async function commitOnce(commitment: string, chain: RegistryChain): Promise<void> {
  try {
    await chain.commit(commitment);
  } catch (error) {
    // The tab was closed after the wallet sent it: it is in the chain already.
    if (error instanceof ChainError && error.failure === "live") return;
    throw error;
  }
}

async function reveal(draft: Draft, around: Surroundings): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await around.chain.register(draft.label, draft.record, draft.salt);
    } catch (error) {
      if (!(error instanceof ChainError)) throw error;
      // By whom is found out.
      if (error.failure === "taken") return;
      if (error.failure !== "too_new" || attempt === EARLY_RETRIES) throw error;
      await around.sleep(EARLY_DELAY_MS);
    }
  }
}
