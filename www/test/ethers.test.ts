import { afterEach, expect, test, vi } from "vitest";
import type { Registry } from "nectar/remote";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { indirectRecord, type ChainRecord } from "../src/lib/chain.ts";
import { commitmentOf, newLocalKey, openChain } from "../src/lib/ethers.ts";
import { FakeRpc } from "./fake-rpc.ts";

const COMMITMENT = `0x${"cd".repeat(32)}`;

const started: { stop(): void }[] = [];
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
  for (const each of started.splice(0)) each.stop();
});

async function rpc(...answers: Parameters<typeof FakeRpc.start>): Promise<FakeRpc> {
  const fake = await FakeRpc.start(...answers);
  started.push(fake);
  return fake;
}

function registry(...rpcs: string[]): Registry {
  return { tld: "nectar", chainId: 31337, contract: `0x${"ab".repeat(20)}`, rpcs };
}

function local() {
  return { kind: "local", privateKey: newLocalKey() } as const;
}

test("a transaction is found in its block although that is the last one, and although a poll fails", async () => {
  let polls = 0;
  const fake = await rpc({
    eth_getTransactionReceipt: ([hash]) => {
      // The block comes right after the first look, and no other one follows.
      if (++polls === 1) setImmediate(() => fake.mine());
      if (polls === 2) throw new Error("out of order");
      return fake.receipts.get(hash) ?? null;
    },
  });
  const chain = await openChain(registry(fake.url), local());
  await chain.commit(COMMITMENT);
  expect(fake.head).toBe(8);
  expect(polls).toBe(3);
});

test("a transaction that no block takes is given up with words", async () => {
  const fake = await rpc();
  const chain = await openChain(registry(fake.url), local());
  vi.useFakeTimers({ toFake: ["Date"] });
  const sent = chain.commit(COMMITMENT);
  await vi.waitFor(() => expect(fake.asked).toContain("eth_getTransactionReceipt"));
  vi.setSystemTime(Date.now() + 181_000);
  await expect(sent).rejects.toMatchObject({ failure: "unreachable", message: expect.stringContaining("no block") });
});

test("a faucet that does not answer is not waited for without end", async () => {
  const fake = await rpc({ eth_getBalance: () => "0x0" });
  const timeout = AbortSignal.timeout.bind(AbortSignal);
  vi.spyOn(AbortSignal, "timeout").mockImplementation((ms) => (ms === 30_000 ? AbortSignal.abort() : timeout(ms)));
  const fetcher = (_url: unknown, init?: RequestInit) =>
    new Promise<Response>((_, reject) => {
      if (init?.signal?.aborted) reject(init.signal.reason);
    });
  const opened = openChain(registry(fake.url), local(), { url: "/faucet", fetcher });
  await expect(opened).rejects.toMatchObject({ failure: "funds", message: expect.stringContaining("does not answer") });
});

const OWNER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const SALT = `0x${"5a".repeat(32)}`;

test("a commitment is the one that the contract makes", () => {
  // What contracts/artifacts/NectarRegistry.json, the first thing deployed on a fresh anvil, answers to makeCommitment.
  const deployed = { ...registry(), contract: "0x5FbDB2315678afecb367f032d93F642f64180aa3" };
  const tab = indirectRecord(`0x${"ab".repeat(32)}`, [1, 2]);
  expect(commitmentOf(deployed, "alice", OWNER, tab, SALT)).toBe("0x5a8a499b9e14f5b97b22793d730dab2438edf1f30c3a180d6cd1a2bab23ff534");
  const host = `0x${Buffer.from("node.example.org").toString("hex")}`;
  const server: ChainRecord = { ...tab, hostKind: 3, host, port: 9000, schemes: 3, routers: [] };
  expect(commitmentOf(deployed, "alice", OWNER, server, SALT)).toBe("0xe331ca192a82d8e1acbe4d97ddb649d38ce4fb136705c58bf114fd5bf192fcd8");
});

test("no endpoint is asked what to commit to, and so none chooses it or hears of the salt before", async () => {
  const fake = await rpc();
  const chain = await openChain(registry(fake.url), local());
  const before = fake.asked.length;
  const record = indirectRecord(`0x${"ab".repeat(32)}`, [1]);
  const commitment = await chain.makeCommitment("alice", record, SALT);
  expect(commitment).toBe(commitmentOf(registry(), "alice", chain.account, record, SALT));
  expect(fake.asked).toHaveLength(before);
});

/** A wallet whose person may move it to another chain. */
function wallet(chainId = "0x7a69") {
  const state = { chainId, asked: [] as string[], sent: [] as Record<string, string>[] };
  const provider = {
    on() {},
    removeListener() {},
    async request({ method, params }: { method: string; params?: unknown }) {
      state.asked.push(method);
      if (method === "eth_requestAccounts" || method === "eth_accounts") return [OWNER];
      if (method === "eth_chainId") return state.chainId;
      if (method !== "eth_sendTransaction") return null;
      state.sent.push((params as [Record<string, string>])[0]);
      return `0x${"77".repeat(32)}`;
    },
  };
  return { state, signer: { kind: "wallet", provider } as const };
}

test("a wallet that was moved to another chain meanwhile is given nothing to sign", async () => {
  const fake = await rpc();
  const { state, signer } = wallet();
  const chain = await openChain(registry(fake.url), signer);
  state.chainId = "0x1";
  const sent = chain.register("alice", indirectRecord(`0x${"ab".repeat(32)}`, [1]), SALT);
  await expect(sent).rejects.toMatchObject({ failure: "wrong_chain", message: expect.stringContaining("is on chain 1: switch it to chain 31337") });
  expect(state.sent).toEqual([]);
});

test("what a wallet signs names its chain, and whether it is in a block is asked of the endpoint alone", async () => {
  const fake = await rpc();
  const { state, signer } = wallet();
  const chain = await openChain(registry(fake.url), signer);
  fake.answers["eth_getTransactionReceipt"] = ([hash]) => {
    // As soon as it has signed, the wallet is moved away, and knows no such transaction there.
    state.chainId = "0x1";
    fake.pending.push({ hash, from: OWNER, to: registry().contract } as never);
    fake.mine();
    return fake.receipts.get(hash);
  };
  await chain.commit(COMMITMENT);
  expect(state.sent).toMatchObject([{ chainId: "0x7a69", from: OWNER.toLowerCase(), to: registry().contract }]);
  expect(state.asked).not.toContain("eth_getTransactionByHash");
});

test("an endpoint that drips, has no end, sends us elsewhere or asks for patience is one that does not answer", async () => {
  const listeners: RequestListener[] = [
    (_, response) => void setInterval(() => response.write(" "), 10).unref(),
    (_, response) => response.end(JSON.stringify({ jsonrpc: "2.0", id: 1, result: "0x7a69", more: " ".repeat(256 << 10) })),
    (request, response) => response.writeHead(request.url === "/" ? 307 : 200, { location: "/elsewhere" }).end(),
    (_, response) => response.writeHead(429, { "retry-after": "999999999" }).end(),
  ];
  const timeout = AbortSignal.timeout.bind(AbortSignal);
  const limits = vi.spyOn(AbortSignal, "timeout").mockImplementation((ms) => timeout(ms / 20));
  const asked: unknown[] = [];
  const opened = listeners.map(async (listener) => {
    const server = createServer((request, response) => {
      asked.push(request.url);
      listener(request, response);
    });
    started.push({ stop: () => (server.closeAllConnections(), server.close()) });
    await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
    const { port } = server.address() as AddressInfo;
    await expect(openChain(registry(`http://127.0.0.1:${port}`), local())).rejects.toMatchObject({ failure: "unreachable" });
  });
  await Promise.all(opened);
  expect(limits).toHaveBeenCalledWith(4_000);
  expect(asked).not.toContain("/elsewhere");
});
