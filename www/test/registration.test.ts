import { readFileSync } from "node:fs";
import { Interface } from "ethers";
import { NodeError } from "nectar/remote";
import { expect, test } from "vitest";
import { ChainError, indirectRecord, type ChainRecord, type RegistryChain } from "../src/lib/chain.ts";
import { register, type Draft, type Step, type Surroundings } from "../src/lib/registration.ts";

const MIN = 60;
const MAX = 600;
const ME = "0xAbC0000000000000000000000000000000000001";

/** The contract's rules, on a clock of the test's own. */
class Chain implements RegistryChain {
  account = ME;
  time = 1_000_000;
  names = new Map<string, { owner: string; key: string }>();
  commitments = new Map<string, number>();
  sent: string[] = [];
  /** Thrown by the next call of a method, once. */
  fail = new Map<string, ChainError>();
  /** Happens after the next commitment is in the chain, as if the tab died there. */
  dieAfterCommit = false;

  async holder(label: string) {
    return this.names.get(label);
  }
  async makeCommitment(label: string, record: ChainRecord, salt: string) {
    return JSON.stringify([label, this.account, record, salt]);
  }
  async committedAt(commitment: string) {
    return this.commitments.get(commitment) ?? 0;
  }
  async ages() {
    return { min: MIN, max: MAX };
  }
  async now() {
    return this.time;
  }
  async commit(commitment: string) {
    this.#failure("commit");
    const at = this.commitments.get(commitment);
    if (at !== undefined && this.time <= at + MAX) throw new ChainError("live", "live");
    this.sent.push("commit");
    this.commitments.set(commitment, this.time);
    if (this.dieAfterCommit) throw new Error("the tab died");
  }
  async register(label: string, record: ChainRecord, salt: string) {
    this.#failure("register");
    const at = this.commitments.get(await this.makeCommitment(label, record, salt));
    if (at === undefined) throw new ChainError("expired", "unknown");
    if (this.time < at + MIN) throw new ChainError("too_new", "too new");
    if (this.time > at + MAX) throw new ChainError("expired", "too old");
    if (this.names.has(label)) throw new ChainError("taken", "taken");
    this.sent.push("register");
    this.names.set(label, { owner: this.account, key: record.networkingKey });
  }
  async rotateKey() {}
  async setRecord() {}

  #failure(method: string) {
    const error = this.fail.get(method);
    this.fail.delete(method);
    if (error !== undefined) throw error;
  }
}

function setting(chain = new Chain()) {
  const steps: Step["step"][] = [];
  const saved: Draft[] = [];
  let slept = 0;
  let salts = 0;
  const around: Surroundings = {
    chain,
    save: async (draft) => void saved.push(draft),
    show: ({ step }) => void steps.push(step),
    now: () => chain.time * 1000,
    sleep: async (ms) => {
      slept += ms;
      chain.time += ms / 1000;
    },
    newSalt: () => `salt ${++salts}`,
    owner: async (name) => chain.names.get(name.replace(".nectar", ""))?.owner,
  };
  const draft: Draft = {
    label: "alice",
    tld: "nectar",
    chainId: 31337,
    contract: "0x",
    owner: ME.toLowerCase(),
    record: indirectRecord("0x11", [1, 2]),
    salt: "first salt",
    signer: "local",
  };
  return { chain, around, draft, steps, saved, slept: () => slept };
}

test("a name is committed to, waited for and revealed", async () => {
  const { chain, around, draft, steps, saved, slept } = setting();
  await register(draft, around);
  expect(steps).toEqual(["checking", "committing", "waiting", "revealing", "done"]);
  expect(chain.sent).toEqual(["commit", "register"]);
  expect(slept()).toBe(MIN * 1000);
  expect(saved).toEqual([draft]);
});

test("the salt is safe before the chain hears of the commitment", async () => {
  const { chain, around, draft, saved } = setting();
  around.save = async (current) => {
    expect(chain.sent).toEqual([]);
    saved.push(current);
  };
  await register(draft, around);
  expect(saved).toHaveLength(1);
});

test("a tab that died right after its commitment goes on with the same salt and waits for the rest only", async () => {
  const { chain, around, draft, steps, slept } = setting();
  chain.dieAfterCommit = true;
  await expect(register(draft, around)).rejects.toThrow("the tab died");
  chain.dieAfterCommit = false;
  chain.time += 20;
  steps.length = 0;
  await register(draft, around);
  expect(steps).toEqual(["checking", "waiting", "revealing", "done"]);
  expect(chain.sent).toEqual(["commit", "register"]);
  expect(slept()).toBe((MIN - 20) * 1000);
});

test("a commitment that is in the chain although the read missed it does not stop the registration", async () => {
  const { chain, around, draft } = setting();
  await register(draft, { ...around, chain: Object.assign(chain, { dieAfterCommit: true }) }).catch(() => {});
  chain.dieAfterCommit = false;
  const read = chain.committedAt;
  chain.committedAt = async () => 0;
  await register(draft, around);
  chain.committedAt = read;
  expect(chain.names.has("alice")).toBe(true);
});

test("a commitment that grew too old is made anew under another salt, which is kept first", async () => {
  const { chain, around, draft, saved } = setting();
  chain.dieAfterCommit = true;
  await register(draft, around).catch(() => {});
  chain.dieAfterCommit = false;
  chain.time += MAX + 1;
  await register(draft, around);
  expect(saved.at(-1)?.salt).toBe("salt 1");
  expect(chain.names.get("alice")?.owner).toBe(ME);
});

test("a name that was registered while the tab was closed is done, not taken", async () => {
  const { chain, around, draft, steps } = setting();
  chain.names.set("alice", { owner: ME, key: "0x11" });
  await register(draft, around);
  expect(steps).toEqual(["checking", "done"]);
});

test("a name that somebody else got meanwhile is said to be taken", async () => {
  const { chain, around, draft } = setting();
  chain.names.set("alice", { owner: "0x2", key: "0x11" });
  await expect(register(draft, around)).rejects.toMatchObject({ failure: "taken" });
  chain.names.clear();
  chain.fail.set("register", new ChainError("taken", "taken"));
  const race = around.sleep;
  around.sleep = async (ms) => {
    await race(ms);
    chain.names.set("alice", { owner: "0x2", key: "0x22" });
  };
  await expect(register(draft, around)).rejects.toMatchObject({ failure: "taken" });
});

test("one endpoint alone can say neither that a name is taken nor that it is ours", async () => {
  for (const owner of ["0x2", ME]) {
    const lied = setting();
    lied.chain.holder = async () => ({ owner, key: "0x11" });
    // "taken" is what drops a draft, and with it the salt; "done" goes online under the name.
    await expect(register(lied.draft, lied.around)).rejects.toMatchObject({ failure: "unreachable" });
    expect(lied.steps).toEqual(["checking"]);
  }
  const refused = setting();
  refused.chain.fail.set("register", new ChainError("taken", "taken"));
  await expect(register(refused.draft, refused.around)).rejects.toMatchObject({ failure: "unreachable" });
  await register(refused.draft, refused.around);
  expect(refused.steps.at(-1)).toBe("done");
});

test("one endpoint alone cannot have a registration end that is in no block", async () => {
  const { chain, around, draft, steps, slept } = setting();
  // It keeps the reveal to itself, and says that it is done.
  chain.register = async () => {};
  await expect(register(draft, around)).rejects.toMatchObject({ failure: "unreachable" });
  expect(steps).not.toContain("done");
  expect(slept()).toBeGreaterThan(10_000);
});

test("a registration whose block the others have not yet waits for them", async () => {
  const { around, draft, steps } = setting();
  const owner = around.owner;
  let behind = 5;
  around.owner = async (name) => (behind-- > 0 ? undefined : owner(name));
  await register(draft, around);
  expect(steps.at(-1)).toBe("done");
});

test("while nobody else can be asked, the draft of a name that is said to be taken is kept", async () => {
  const { chain, around, draft } = setting();
  chain.names.set("alice", { owner: "0x2", key: "0x11" });
  around.owner = async () => {
    throw NodeError.of("chain_unavailable");
  };
  await expect(register(draft, around)).rejects.toMatchObject({ name: "chain_unavailable" });
});

test("a reveal that comes too early for the chain's clock is tried again, but not for ever", async () => {
  const { chain, around, draft, slept } = setting();
  const slow = around.sleep;
  around.sleep = (ms) => slow(ms * 0.95);
  await register(draft, around);
  expect(chain.names.has("alice")).toBe(true);
  expect(slept()).toBeGreaterThan(0);

  const stuck = setting();
  stuck.around.sleep = async () => {};
  await expect(register(stuck.draft, stuck.around)).rejects.toMatchObject({ failure: "too_new" });
});

test("declining in the wallet leaves the draft and can be repeated", async () => {
  const { chain, around, draft, saved } = setting();
  chain.fail.set("commit", new ChainError("declined", "you declined in the wallet"));
  await expect(register(draft, around)).rejects.toMatchObject({ failure: "declined" });
  expect(saved).toEqual([draft]);
  await register(draft, around);
  expect(chain.names.has("alice")).toBe(true);
});

test("another account than the one that began is refused before anything is sent", async () => {
  const { chain, around, draft } = setting();
  chain.account = "0x9";
  await expect(register(draft, around)).rejects.toMatchObject({ failure: "not_owner" });
  expect(chain.sent).toEqual([]);
});

test("every function and error of the page's interface is the contract's", async () => {
  const artifact = JSON.parse(readFileSync(new URL("../../contracts/artifacts/NectarRegistry.json", import.meta.url), "utf8"));
  const contract = new Interface(artifact.abi);
  const { ABI } = await import("../src/lib/ethers.ts");
  let compared = 0;
  ABI.forEachFunction((each) => {
    const theirs = contract.getFunction(each.selector);
    expect(theirs?.format("sighash")).toBe(each.format("sighash"));
    expect(theirs?.outputs.map((output) => output.format("sighash"))).toEqual(each.outputs.map((output) => output.format("sighash")));
    compared++;
  });
  ABI.forEachError((each) => {
    expect(contract.getError(each.selector)?.format("sighash")).toBe(each.format("sighash"));
    compared++;
  });
  expect(compared).toBeGreaterThan(20);
});
