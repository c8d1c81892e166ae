/** The registry through ethers. Loaded lazily: nothing but this file imports ethers. */

import {
  AbiCoder,
  BaseWallet,
  BrowserProvider,
  Contract,
  FetchRequest,
  hexlify,
  Interface,
  isError,
  JsonRpcProvider,
  keccak256,
  Network,
  randomBytes,
  SigningKey,
  toQuantity,
  toUtf8Bytes,
  type GetUrlResponse,
  type TransactionReceipt,
  type TransactionRequest,
} from "ethers";
import type { Registry } from "nectar/remote";
import { ChainError, type ChainFailure, type ChainRecord, type Eip1193, type RegistryChain, type Signer } from "./chain.ts";

const RECORD = "(bytes32 networkingKey, uint8 hostKind, bytes host, uint16 port, uint8 schemes, uint32[] routers)";
const RESOLVED =
  "(address owner, address manager, bytes32 networkingKey, uint8 hostKind, bytes host, uint16 port, uint8 schemes, string[] routers, uint32 version, uint32 epoch)";

/** Of the contract, what this page uses. */
export const ABI = new Interface([
  "function registryVersion() view returns (uint32)",
  "function minCommitmentAge() view returns (uint64)",
  "function maxCommitmentAge() view returns (uint64)",
  "function fee() view returns (uint256)",
  "function commitments(bytes32 commitment) view returns (uint64)",
  `function resolve(string label) view returns (${RESOLVED})`,
  "function commit(bytes32 commitment)",
  `function register(string label, address owner, ${RECORD} record, bytes32 salt) payable returns (uint256)`,
  "function rotateKey(uint256 tokenId, bytes32 key)",
  `function setRecord(uint256 tokenId, ${RECORD} record)`,
  "error LabelInvalid(string label, uint8 rule)",
  "error NameTaken(uint256 tokenId)",
  "error NameUnknown(uint256 tokenId)",
  "error CommitmentLive(bytes32 commitment, uint256 until)",
  "error CommitmentUnknown(bytes32 commitment)",
  "error CommitmentTooNew(bytes32 commitment, uint256 from)",
  "error CommitmentTooOld(bytes32 commitment, uint256 until)",
  "error FeeMismatch(uint256 expected, uint256 sent)",
  "error FeeRefused(address treasury, uint256 fee)",
  "error NotAuthorized(uint256 tokenId, address account)",
  "error NetworkingKeyZero(uint256 tokenId)",
  "error TooManyRouters(uint256 count, uint256 max)",
  "error RouterUnknown(uint32 index)",
  "error RouterDuplicate(uint32 index)",
]);

/** The contract's refusals, and what they mean here. */
const REFUSALS: Record<string, [ChainFailure, string]> = {
  LabelInvalid: ["other", "the registry does not accept this name"],
  NameTaken: ["taken", "somebody else registered this name first"],
  CommitmentLive: ["live", "the commitment is in the chain already"],
  CommitmentUnknown: ["expired", "the chain does not know the commitment: start again"],
  CommitmentTooNew: ["too_new", "the commitment is too young"],
  CommitmentTooOld: ["expired", "the commitment is too old: start again"],
  FeeMismatch: ["other", "the fee changed meanwhile: try again"],
  FeeRefused: ["other", "the registry's treasury refused the fee"],
  NotAuthorized: ["not_owner", "this account does not own the name: choose the owner's account in the wallet"],
  RouterUnknown: ["other", "one of the routers is not enlisted in this registry"],
};

/** How long a transaction may take into a block. */
const MINED_WITHIN_MS = 180_000;
/** How often the chain is asked whether it has a transaction. */
const POLL_MS = 500;
/** What an endpoint's answer may take and be long: the node's `fetch_timeout` and `answer_bytes`
 * (node-core/src/registry/config.rs). */
const ANSWER_MS = 4_000;
const ANSWER_BYTES = 256 << 10;
/** Tries of an endpoint that says it is busy; with ethers' pauses between them, 4 s. */
const TRIES = 5;
/** How long a faucet may take, which waits for a block itself. */
const FAUCET_MS = 30_000;

/** Where the first coins of a development chain come from. */
export interface Faucet {
  url: string;
  fetcher?: typeof fetch;
}

/** A new account; the browser keeps its key. Good for development chains only. */
export function newLocalKey(): string {
  return hexlify(randomBytes(32));
}

/** Connects a signer with the registry: right network, right contract, and coins where a faucet gives some. */
export async function openChain(registry: Registry, signer: Signer, faucet?: Faucet): Promise<RegistryChain> {
  const reader = readerOf(registry);
  await translated(checkRegistry(reader, registry));
  if (signer.kind === "wallet") {
    await translated(switchChain(signer.provider, registry));
    const provider = new BrowserProvider(signer.provider as never, "any");
    const wallet = await translated(provider.getSigner());
    return new EthersChain(registry, reader, wallet.address, async (transaction) => {
      // The person may have moved the wallet since, and coins are worth something on other chains.
      await requireChain(signer.provider, registry);
      // Unchecked: ethers would look for the transaction through the wallet, without end if that is moved now.
      return wallet.sendUncheckedTransaction(transaction);
    });
  }
  // Not `Wallet`, which brings mnemonics, their word list and key files along.
  const wallet = new BaseWallet(new SigningKey(signer.privateKey), reader);
  if (faucet !== undefined) await translated(fund(wallet.address, reader, faucet));
  return new EthersChain(registry, reader, wallet.address, async (transaction) => (await wallet.sendTransaction(transaction)).hash);
}

/** The contract's `makeCommitment`. Made here: an endpoint that is asked learns the salt, and may answer with a commitment of its
 * own. */
export function commitmentOf(registry: Registry, label: string, owner: string, record: ChainRecord, salt: string): string {
  const coder = AbiCoder.defaultAbiCoder();
  const inner = keccak256(coder.encode([`tuple${RECORD}`], [record]));
  const types = ["uint256", "address", "string", "address", "bytes32", "bytes32"];
  return keccak256(coder.encode(types, [registry.chainId, registry.contract, label, owner, inner, salt]));
}

class EthersChain implements RegistryChain {
  readonly account: string;
  readonly #registry: Registry;
  readonly #reader: JsonRpcProvider;
  readonly #read: Contract;
  /** Signs and sends; resolves with the transaction's hash. */
  readonly #sign: (transaction: TransactionRequest) => Promise<string>;

  constructor(
    registry: Registry,
    reader: JsonRpcProvider,
    account: string,
    sign: (transaction: TransactionRequest) => Promise<string>,
  ) {
    this.account = account;
    this.#registry = registry;
    this.#reader = reader;
    this.#read = new Contract(registry.contract, ABI, reader);
    this.#sign = sign;
  }

  async holder(label: string): Promise<{ owner: string; key: string } | undefined> {
    try {
      const resolved = await this.#read.getFunction("resolve").staticCall(label);
      return { owner: String(resolved.owner), key: String(resolved.networkingKey) };
    } catch (error) {
      if (refusal(error) === "NameUnknown") return undefined;
      throw translate(error);
    }
  }

  async makeCommitment(label: string, record: ChainRecord, salt: string): Promise<string> {
    return commitmentOf(this.#registry, label, this.account, record, salt);
  }

  async committedAt(commitment: string): Promise<number> {
    return Number(await translated(this.#read.getFunction("commitments").staticCall(commitment)));
  }

  async ages(): Promise<{ min: number; max: number }> {
    const [min, max] = await translated(
      Promise.all([
        this.#read.getFunction("minCommitmentAge").staticCall(),
        this.#read.getFunction("maxCommitmentAge").staticCall(),
      ]),
    );
    return { min: Number(min), max: Number(max) };
  }

  async now(): Promise<number> {
    const block = await translated(this.#reader.getBlock("latest"));
    return block?.timestamp ?? 0;
  }

  commit(commitment: string): Promise<void> {
    return this.#send("commit", [commitment]);
  }

  async register(label: string, record: ChainRecord, salt: string): Promise<void> {
    const value = await translated(this.#read.getFunction("fee").staticCall());
    await this.#send("register", [label, this.account, record, salt], value);
  }

  rotateKey(label: string, key: string): Promise<void> {
    return this.#send("rotateKey", [tokenId(label), key]);
  }

  setRecord(label: string, record: ChainRecord): Promise<void> {
    return this.#send("setRecord", [tokenId(label), record]);
  }

  /** Asks the chain first, so that a refusal has its reason and costs nothing; then signs, and waits for the block. */
  async #send(method: string, args: unknown[], value = 0n): Promise<void> {
    try {
      const { contract, chainId } = this.#registry;
      const call = { to: contract, data: ABI.encodeFunctionData(method, args), value };
      const gas = await this.#reader.estimateGas({ ...call, from: this.account });
      // What a wallet returns first is a hash; it is the configured endpoint that says when the chain has it.
      const hash = await this.#sign({ ...call, chainId, gasLimit: (gas * 5n) / 4n });
      const receipt = await mined(this.#reader, hash);
      if (receipt.status !== 1) throw new ChainError("other", "the chain refused the transaction");
    } catch (error) {
      throw translate(error);
    }
  }
}

/** Waits until a transaction is in a block. The receipt is asked for, not new blocks: a chain that makes one per transaction
 * may have made the last one already. A poll that fails is made up for by the next one. */
async function mined(reader: JsonRpcProvider, hash: string): Promise<TransactionReceipt> {
  const end = Date.now() + MINED_WITHIN_MS;
  while (Date.now() < end) {
    const receipt = await reader.getTransactionReceipt(hash).catch(() => null);
    if (receipt !== null) return receipt;
    await sleep(POLL_MS);
  }
  throw new ChainError("unreachable", `no block has the transaction after ${MINED_WITHIN_MS / 1000} seconds: try again later`);
}

function readerOf(registry: Registry): JsonRpcProvider {
  const url = registry.rpcs[0];
  if (url === undefined) throw new ChainError("unreachable", "no RPC endpoint is configured");
  const network = Network.from(registry.chainId);
  const request = new FetchRequest(url);
  request.timeout = ANSWER_MS;
  request.setThrottleParams({ maxAttempts: TRIES });
  request.getUrlFunc = bounded;
  return new JsonRpcProvider(request, network, { staticNetwork: network, cacheTimeout: -1 });
}

/** Fetches as the node does (node-wasm/src/fetch.rs): nothing of the person's goes along, no redirect is followed, and an answer
 * has an end. */
async function bounded({ url, method, body }: FetchRequest): Promise<GetUrlResponse> {
  const response = await fetch(url, {
    method,
    headers: { "content-type": "application/json" },
    body: body as Uint8Array<ArrayBuffer> | null,
    cache: "no-store",
    credentials: "omit",
    referrer: "",
    redirect: "error",
    signal: AbortSignal.timeout(ANSWER_MS),
  });
  const answer = new Uint8Array(ANSWER_BYTES);
  let length = 0;
  const reader = response.body?.getReader();
  for (let part = await reader?.read(); part?.value !== undefined; part = await reader?.read()) {
    if (length + part.value.length > ANSWER_BYTES) {
      void reader?.cancel().catch(() => {});
      throw new ChainError("unreachable", "the chain's RPC endpoint says more than an answer may be long");
    }
    answer.set(part.value, length);
    length += part.value.length;
  }
  // No headers: an endpoint that asks for patience does not say for how long.
  return { statusCode: response.status, statusMessage: "", headers: {}, body: answer.subarray(0, length) };
}

async function checkRegistry(reader: JsonRpcProvider, registry: Registry): Promise<void> {
  const chainId = Number(await reader.send("eth_chainId", []));
  if (chainId !== registry.chainId) {
    throw new ChainError("wrong_chain", `the RPC endpoint serves chain ${chainId}, the registry is on chain ${registry.chainId}`);
  }
  try {
    await new Contract(registry.contract, ABI, reader).getFunction("registryVersion").staticCall();
  } catch (error) {
    if (isError(error, "BAD_DATA") || isError(error, "CALL_EXCEPTION")) {
      throw new ChainError("not_a_registry", `there is no nectar registry at ${registry.contract} on chain ${registry.chainId}`);
    }
    throw error;
  }
}

/** Asks the wallet for the registry's chain, and to learn it if it does not know it (EIP-3326, EIP-3085). */
async function switchChain(provider: Eip1193, registry: Registry): Promise<void> {
  await provider.request({ method: "eth_requestAccounts" });
  const chainId = toQuantity(registry.chainId);
  if (Number(await provider.request({ method: "eth_chainId" })) === registry.chainId) return;
  try {
    await provider.request({ method: "wallet_switchEthereumChain", params: [{ chainId }] });
  } catch (error) {
    if (codeOf(error) === 4001) throw error;
    await provider.request({
      method: "wallet_addEthereumChain",
      params: [
        {
          chainId,
          chainName: `Chain ${registry.chainId} (.${registry.tld})`,
          rpcUrls: registry.rpcs,
          nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
        },
      ],
    });
  }
  await requireChain(provider, registry);
}

async function requireChain(provider: Eip1193, registry: Registry): Promise<void> {
  const now = Number(await provider.request({ method: "eth_chainId" }));
  if (now !== registry.chainId) {
    throw new ChainError("wrong_chain", `the wallet is on chain ${now}: switch it to chain ${registry.chainId} and try again`);
  }
}

async function fund(address: string, reader: JsonRpcProvider, faucet: Faucet): Promise<void> {
  if ((await reader.getBalance(address)) > 0n) return;
  const response = await (faucet.fetcher ?? fetch)(faucet.url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ address }),
    signal: AbortSignal.timeout(FAUCET_MS),
  }).catch(() => {
    throw new ChainError("funds", "the faucet does not answer: try again");
  });
  if (!response.ok) {
    throw new ChainError("funds", `the faucet gave nothing (${response.status}): ${(await response.text()).slice(0, 200)}`);
  }
  for (let attempt = 0; attempt < 40; attempt++) {
    if ((await reader.getBalance(address)) > 0n) return;
    await sleep(250);
  }
  throw new ChainError("funds", "the faucet's coins did not arrive within 10 seconds: try again");
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function tokenId(label: string): bigint {
  return BigInt(keccak256(toUtf8Bytes(label)));
}

async function translated<T>(promise: Promise<T>): Promise<T> {
  try {
    return await promise;
  } catch (error) {
    throw translate(error);
  }
}

function translate(error: unknown): ChainError {
  if (error instanceof ChainError) return error;
  const name = refusal(error);
  const known = name === undefined ? undefined : REFUSALS[name];
  if (known !== undefined) return new ChainError(...known);
  if (isError(error, "ACTION_REJECTED") || codeOf(error) === 4001) return new ChainError("declined", "you declined in the wallet");
  if (codeOf(error) === -32002) return new ChainError("declined", "the wallet is already asking: open it and answer there");
  if (isError(error, "INSUFFICIENT_FUNDS")) return new ChainError("funds", "the account has not enough coins for this transaction");
  const late = error instanceof DOMException;
  if (late || isError(error, "NETWORK_ERROR") || isError(error, "TIMEOUT") || isError(error, "SERVER_ERROR") || error instanceof TypeError) {
    return new ChainError("unreachable", "the chain's RPC endpoint does not answer: check the connection and try again");
  }
  if (isError(error, "CALL_EXCEPTION")) return new ChainError("other", `the registry refused: ${name ?? error.reason ?? error.shortMessage}`);
  const message = error instanceof Error ? ((error as { shortMessage?: string }).shortMessage ?? error.message) : messageOf(error);
  return new ChainError("other", message);
}

/** The name of the contract's own error, however deep a wallet wraps it. */
function refusal(error: unknown): string | undefined {
  for (let at: unknown = error, depth = 0; typeof at === "object" && at !== null && depth < 6; depth++) {
    const { revert, data } = at as { revert?: { name?: string } | null; data?: unknown };
    if (typeof revert?.name === "string") return revert.name;
    if (typeof data === "string" && data.length >= 10) {
      const name = ABI.parseError(data)?.name;
      if (name !== undefined) return name;
    }
    const next = at as { info?: { error?: unknown }; error?: unknown; data?: unknown };
    at = next.info?.error ?? next.error ?? (typeof next.data === "object" ? next.data : undefined);
  }
  return undefined;
}

function codeOf(error: unknown): unknown {
  return typeof error === "object" && error !== null ? (error as { code?: unknown }).code : undefined;
}

function messageOf(error: unknown): string {
  const message = typeof error === "object" && error !== null ? (error as { message?: unknown }).message : undefined;
  return typeof message === "string" ? message : "the chain gave an error without a message";
}
