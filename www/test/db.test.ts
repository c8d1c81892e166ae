import "fake-indexeddb/auto";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Database, settled } from "../src/lib/db.ts";
import { Vault } from "../src/lib/vault.ts";

let db: Database;
let count = 0;

beforeEach(async () => {
  db = await Database.open(`db ${++count}`);
});

afterEach(() => vi.restoreAllMocks());

/** A disk that is full when a transaction is to be kept, which no request of it has told. */
function fullDisk(): void {
  const add = IDBObjectStore.prototype.add;
  vi.spyOn(IDBObjectStore.prototype, "add").mockImplementation(function (this: IDBObjectStore, ...given) {
    const request = add.apply(this, given);
    request.addEventListener("success", () => this.transaction.abort());
    return request;
  });
}

test("what the browser did not keep in the end was not added", async () => {
  fullDisk();
  await expect(db.add("values", 1, "one")).rejects.toThrow();
  vi.restoreAllMocks();
  expect(await db.get("values", "one")).toBeUndefined();
  expect(await db.add("values", 1, "one")).toBe(true);
  expect(await db.add("values", 2, "one")).toBe(false);
  expect(await db.get("values", "one")).toBe(1);
});

test("of several things done in one transaction, none is kept when one is not", async () => {
  fullDisk();
  const both = db.within(["values", "keys"], async (store) => {
    store("values").put(1, "one");
    store("keys").add(2, "two");
  });
  await expect(both).rejects.toThrow();
  const abandoned = db.within(["values"], async (store) => {
    await settled(store("values").put(1, "one"));
    throw new Error("given up");
  });
  await expect(abandoned).rejects.toThrow("given up");
  expect(await db.get("values", "one")).toBeUndefined();
});

test("nothing is sealed under keys that the browser did not keep", async () => {
  fullDisk();
  await expect(Vault.open(db)).rejects.toThrow();
});
