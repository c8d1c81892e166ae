import "fake-indexeddb/auto";
import type { NodeEvent, Running } from "nectar/remote";
import { expect, test, vi } from "vitest";
import { Database } from "../src/lib/db.ts";
import { Memory } from "../src/lib/identity.ts";
import { Vault } from "../src/lib/vault.ts";
import config from "./nectar.json";

const KEY = new Uint8Array(32).fill(7);
const ROUTER = { name: "loach.nectar", state: "online", latencyMs: 18 } as const;

/** A node behind a port, whose worker is the test. */
const node = vi.hoisted(() => ({
  closed: false,
  tell: (_: NodeEvent) => {},
  runs: (_: Running | undefined) => {},
}));

vi.mock("nectar/remote", async (actual) => ({
  ...(await actual<typeof import("nectar/remote")>()),
  connect: async () =>
    Object.assign(node, {
      generateKey: async () => KEY,
      start: async ({ name }: { name?: string }) => ({ name, publicKey: KEY, secure: true, identity: "offline" }),
      routers: async () => [ROUTER],
      peers: async () => [{ name: "bob.nectar", state: "online" }],
      resolve: async (name: string) => ({ name, key: KEY, epoch: 1, version: 1, routers: [], how: "one RPC" }),
      connect: async () => {},
      onMessage: () => () => {},
      serveStream: () => () => {},
      on: (sink: (event: NodeEvent) => void) => {
        const before = node.tell;
        node.tell = (event) => (before(event), sink(event));
      },
      onRunning: (watcher: (running: Running | undefined) => void) => (node.runs = watcher),
    }),
}));

vi.stubGlobal("__NECTAR_BUILD__", "test");
vi.stubGlobal("isSecureContext", true);
vi.stubGlobal("location", new URL("http://localhost:9000/"));
vi.stubGlobal("document", { addEventListener() {}, visibilityState: "hidden" });
vi.stubGlobal("addEventListener", () => {});
vi.stubGlobal("fetch", async () => Response.json(config));

test("nothing is shown as online when no node runs, and that it died is said", async () => {
  const db = await Database.open();
  await new Memory(db, await Vault.open(db)).setName("alice.nectar");
  const { app } = await import("../src/state/app.svelte.ts");
  await app.start();
  node.tell({ type: "identity", state: "online" });
  expect([app.phase.at, app.identity, app.routers[0]?.state]).toEqual(["home", "online", "online"]);

  // Another tab stops it, to start it anew.
  node.runs(undefined);
  expect([app.identity, app.routers[0]?.state, app.talk?.peers]).toEqual(["offline", "offline", {}]);
  expect(app.problem).toBeUndefined();
  node.runs({ name: "alice.nectar", publicKey: KEY, secure: true, identity: "online" });
  expect(app.identity).toBe("online");

  // Another place has the name: that is said, and not that a router is missing.
  node.tell({ type: "identity", state: "superseded" });
  node.runs(undefined);
  expect(app.identity).toBe("superseded");

  node.tell({ type: "identity", state: "online" });
  node.closed = true;
  node.runs(undefined);
  expect([app.identity, app.problem?.kind]).toEqual(["offline", "ended"]);
});
