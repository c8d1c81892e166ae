/** What the page needs of a chain; `ethers.ts` does it, in a chunk of its own that only registration loads. */

/** A record as the contract takes it. */
export interface ChainRecord {
  /** `0x` and 64 hexadecimal digits. */
  networkingKey: string;
  hostKind: number;
  host: string;
  port: number;
  schemes: number;
  routers: number[];
}

/** A tab's record: reached through routers only. */
export function indirectRecord(networkingKey: string, routers: number[]): ChainRecord {
  return { networkingKey, hostKind: 0, host: "0x", port: 0, schemes: 0, routers };
}

/** The registry, seen by one account. Sending methods resolve when the chain has the transaction. */
export interface RegistryChain {
  readonly account: string;
  /** Owner and networking key of a name; undefined when nobody has it. */
  holder(label: string): Promise<{ owner: string; key: string } | undefined>;
  makeCommitment(label: string, record: ChainRecord, salt: string): Promise<string>;
  /** When the commitment was made, in seconds; 0 when there is none. */
  committedAt(commitment: string): Promise<number>;
  /** The window in which a commitment can be revealed, in seconds of age. */
  ages(): Promise<{ min: number; max: number }>;
  /** Time of the newest block, in seconds. */
  now(): Promise<number>;
  commit(commitment: string): Promise<void>;
  /** Pays exactly the fee. */
  register(label: string, record: ChainRecord, salt: string): Promise<void>;
  rotateKey(label: string, key: string): Promise<void>;
  setRecord(label: string, record: ChainRecord): Promise<void>;
}

export type ChainFailure =
  /** The person said no in the wallet. */
  | "declined"
  | "taken"
  | "not_owner"
  | "too_new"
  | "live"
  | "expired"
  | "funds"
  | "wrong_chain"
  | "not_a_registry"
  | "unreachable"
  | "other";

/** Why a chain did not do what it was asked. */
export class ChainError extends Error {
  override readonly name = "ChainError";
  readonly failure: ChainFailure;

  constructor(failure: ChainFailure, message: string) {
    super(message);
    this.failure = failure;
  }
}

/** EIP-1193. */
export interface Eip1193 {
  request(call: { method: string; params?: unknown[] | object }): Promise<unknown>;
}

/** Who signs and pays. */
export type Signer =
  | { kind: "wallet"; provider: Eip1193 }
  /** An account of this browser on a development chain. */
  | { kind: "local"; privateKey: string };
