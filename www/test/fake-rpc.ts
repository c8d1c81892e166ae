/** An RPC endpoint that answers as a test wants. */

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { keccak256, toBeHex, toQuantity, Transaction } from "ethers";

type Answers = Record<string, (params: any[]) => unknown>;

/** What a call of the registry is answered with: 32 bytes that say 1. */
export const ONE = toBeHex(1, 32);

const HASH = `0x${"11".repeat(32)}`;
const RECEIPT = {
  blockHash: HASH,
  transactionIndex: "0x0",
  contractAddress: null,
  logs: [],
  logsBloom: "0x",
  gasUsed: "0x1",
  cumulativeGasUsed: "0x1",
  effectiveGasPrice: "0x1",
  status: "0x1",
  type: "0x2",
};

export class FakeRpc {
  url = "";
  head = 7;
  /** Methods in the order they were asked. */
  asked: string[] = [];
  /** What was sent, and is in no block yet. */
  pending: Transaction[] = [];
  receipts = new Map<string, object>();
  answers: Answers = {
    eth_chainId: () => toQuantity(31337),
    eth_call: () => ONE,
    eth_getBalance: () => toQuantity(10n ** 18n),
    eth_estimateGas: () => "0x5208",
    eth_getTransactionCount: () => "0x0",
    eth_gasPrice: () => "0x1",
    eth_maxPriorityFeePerGas: () => "0x1",
    eth_blockNumber: () => toQuantity(this.head),
    eth_getBlockByNumber: () => ({
      number: toQuantity(this.head),
      hash: HASH,
      parentHash: HASH,
      timestamp: "0x64",
      nonce: "0x0000000000000000",
      difficulty: "0x0",
      gasLimit: "0x1c9c380",
      gasUsed: "0x0",
      miner: `0x${"00".repeat(20)}`,
      extraData: "0x",
      baseFeePerGas: "0x1",
      transactions: [],
    }),
    eth_sendRawTransaction: ([raw]) => {
      this.pending.push(Transaction.from(raw));
      return keccak256(raw);
    },
    eth_getTransactionReceipt: ([hash]) => this.receipts.get(hash) ?? null,
  };
  #server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = JSON.parse(Buffer.concat(chunks).toString());
    try {
      const answered = Array.isArray(body) ? body.map((each) => this.#answer(each)) : this.#answer(body);
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify(answered));
    } catch {
      response.statusCode = 500;
      response.end("out of order");
    }
  });

  /** @param answers instead of the usual ones; one that throws makes the endpoint answer with status 500. */
  static async start(answers: Answers = {}): Promise<FakeRpc> {
    const rpc = new FakeRpc();
    Object.assign(rpc.answers, answers);
    await new Promise<void>((listening) => rpc.#server.listen(0, "127.0.0.1", listening));
    rpc.url = `http://127.0.0.1:${(rpc.#server.address() as AddressInfo).port}`;
    return rpc;
  }

  /** Makes one block with whatever is pending. */
  mine(): void {
    this.head++;
    for (const { hash, from, to } of this.pending.splice(0)) {
      this.receipts.set(hash!, { ...RECEIPT, transactionHash: hash, blockNumber: toQuantity(this.head), from, to });
    }
  }

  stop(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  #answer({ id, method, params }: { id: number; method: string; params: unknown[] }): object {
    this.asked.push(method);
    return { jsonrpc: "2.0", id, result: this.answers[method]?.(params) ?? null };
  }
}
