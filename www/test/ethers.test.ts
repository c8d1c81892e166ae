import { afterEach, expect, test, vi } from "vitest";
import type { Registry } from "nectar/remote";
import { newLocalKey, openChain } from "../src/lib/ethers.ts";
import { FakeRpc } from "./fake-rpc.ts";

const COMMITMENT = `0x${"cd".repeat(32)}`;

const started: FakeRpc[] = [];
afterEach(() => {
  vi.useRealTimers();
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
  const limited = vi.spyOn(AbortSignal, "timeout").mockImplementation(() => AbortSignal.abort(new DOMException("late", "TimeoutError")));
  const fetcher = (_url: unknown, init?: RequestInit) =>
    new Promise<Response>((_, reject) => {
      if (init?.signal?.aborted) reject(init.signal.reason);
    });
  const opened = openChain(registry(fake.url), local(), { url: "/faucet", fetcher });
  await expect(opened).rejects.toMatchObject({ failure: "funds", message: expect.stringContaining("does not answer") });
  limited.mockRestore();
});
