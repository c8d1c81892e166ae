import "fake-indexeddb/auto";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { fetchConfig, parseConfig, trustAnchor } from "../src/lib/config.ts";
import { Database } from "../src/lib/db.ts";
import { Memory } from "../src/lib/identity.ts";
import { Vault } from "../src/lib/vault.ts";

/** The document as a node serves it. */
const good = JSON.parse(readFileSync(new URL("nectar.json", import.meta.url), "utf8"));

test("a complete configuration is read as it stands", () => {
  const config = parseConfig(good);
  expect(config.registries[0]?.contract).toBe(good.registries[0].contract.toLowerCase());
  expect(config.routers).toEqual(good.routers);
  expect(config.echo).toBe("echo.nectar");
});

test("what is wrong is said by its place", () => {
  const broken: [object, string][] = [
    [{ ...good, version: 2 }, "version 2"],
    [{ ...good, registries: [] }, "registries is empty"],
    [{ ...good, registries: [{ ...good.registries[0], contract: "0x12" }] }, "registries[0].contract"],
    [{ ...good, registries: [{ ...good.registries[0], rpcs: ["ftp://x"] }] }, "registries[0].rpcs[0]"],
    [{ ...good, registries: [{ ...good.registries[0], chainId: "1" }] }, "registries[0].chainId"],
    [{ ...good, routers: [{ name: "loach.nectar", url: "http://x", index: 1 }] }, "routers[0].url"],
    [{ ...good, routers: [{ name: "loach.nectar", url: "ws://x", index: -1 }] }, "routers[0].index"],
  ];
  for (const [json, words] of broken) expect(() => parseConfig(json), words).toThrow(words);
});

test("a server that is away or has no configuration is told apart", async () => {
  await expect(fetchConfig(() => Promise.reject(new TypeError("x")))).rejects.toThrow("does not answer");
  await expect(fetchConfig(async () => new Response("", { status: 404 }))).rejects.toThrow("404");
  await expect(fetchConfig(async () => new Response("{"))).rejects.toThrow("is wrong");
});

test("another registry than at first use is not taken without a word; other routers are", async () => {
  const db = await Database.open("pin");
  const memory = new Memory(db, await Vault.open(db));
  const first = parseConfig(good);
  expect(await memory.pin(first)).toEqual({ config: first, changed: false });

  const moreRouters = { ...first, routers: [] };
  expect(await memory.pin(moreRouters)).toEqual({ config: moreRouters, changed: false });

  const other = parseConfig({ ...good, registries: [{ ...good.registries[0], rpcs: ["http://evil.example"] }] });
  expect(trustAnchor(other)).not.toBe(trustAnchor(first));
  const kept = await memory.pin(other);
  expect(kept.changed).toBe(true);
  expect(kept.config.registries).toEqual(first.registries);
  expect((await memory.pin(other)).changed, "asking twice does not wear the pin down").toBe(true);

  await memory.repin(other);
  expect(await memory.pin(other)).toEqual({ config: other, changed: false });
});
