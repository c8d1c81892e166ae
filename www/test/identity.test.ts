import "fake-indexeddb/auto";
import { expect, test } from "vitest";
import { indirectRecord } from "../src/lib/chain.ts";
import { Database } from "../src/lib/db.ts";
import { Memory, newDraft } from "../src/lib/identity.ts";
import { Vault } from "../src/lib/vault.ts";

const REGISTRY = { tld: "nectar", chainId: 31337, contract: "0x" };
const draft = (label: string) => newDraft(REGISTRY, label, "0x1", indirectRecord("0x11", [1]), "local");

test("registrations that are begun in two tabs keep a draft each, and one that is done drops its own", async () => {
  const db = await Database.open("drafts");
  const [one, two] = [new Memory(db, await Vault.open(db)), new Memory(db, await Vault.open(db))];
  const [alice, bob] = [draft("alice"), draft("bob")];
  await one.keepDraft(alice);
  await two.keepDraft(bob);
  expect(await one.drafts()).toEqual([alice, bob]);
  await two.dropDraft("bob.nectar");
  expect(await one.drafts()).toEqual([alice]);
  const again = { ...alice, salt: draft("alice").salt };
  await one.keepDraft(again);
  expect(await two.drafts()).toEqual([again]);
});
