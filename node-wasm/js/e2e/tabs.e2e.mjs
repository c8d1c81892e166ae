/** Two tabs in two profiles of Chromium talk through a native router, with pinned records and no chain.
 *
 * Needs the module (`cargo xtask wasm`), the page's packages and a built `nectar`, at NECTAR_BIN if not in target/debug.
 * Run: node --test node-wasm/js/e2e/tabs.e2e.mjs */

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { bundle, launch, ready, root } from "./support.mjs";

const nectar = process.env["NECTAR_BIN"] ?? join(root, "target/debug/nectar");
const CONTRACT = `0x${"00".repeat(19)}aa`;

let directory, port, router, browser, alice, bob, keys;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "nectar-tabs-"));
  await bundle(join(directory, "www"));
  const made = execFileSync(nectar, ["keygen", "--unencrypted", "--json", "--out", join(directory, "router.key")], { encoding: "utf8" });
  keys = { router: JSON.parse(made).public_key ?? JSON.parse(made).key };
  port = await freePort();
  // The tabs make their keys at the router's origin; then it learns their records.
  await startRouter([]);
  browser = await launch();
  [alice, bob] = await Promise.all([openTab(), openTab()]);
  keys.alice = await alice.evaluate(() => client.generateKey().then(client.hex));
  keys.bob = await bob.evaluate(() => client.generateKey().then(client.hex));
  assert.notEqual(keys.alice, keys.bob, "profiles share nothing");
  await stopRouter();
  await startRouter(["alice", "bob"]);
});

after(async () => {
  await browser?.close();
  await stopRouter();
  await rm(directory, { recursive: true, force: true });
});

test("two tabs go online at their router", async () => {
  await Promise.all([start(alice, "alice"), start(bob, "bob")]);
  for (const tab of [alice, bob]) {
    await tab.waitForFunction(() => seen.some(({ type, state }) => type === "identity" && state === "online"), null, { timeout: 10_000 });
    const routers = await tab.evaluate(() => node.routers());
    assert.deepEqual(routers.map(({ name, state }) => [name, state]), [["router.test", "online"]]);
  }
});

test("a request is answered end to end, and the answer's sender is proved", async () => {
  await bob.evaluate(() => {
    node.serve("greet.1", async ({ from, payload, metadata }) => client.utf8(`${from} said ${client.text(payload)} ${client.text(metadata)}`));
    node.serve("refuse.1", () => ({ kind: "protocol", data: client.utf8("no") }));
    node.serve("break.1", () => { throw new Error("broken"); });
  });
  const answers = await alice.evaluate(async () => {
    const ask = async (protocol) => {
      const { kind, data } = await node.request("bob.test", protocol, client.utf8("hello"), { metadata: client.utf8("there") });
      return [kind, client.text(data)];
    };
    return [await ask("greet.1"), await ask("refuse.1"), await client.thrown(() => ask("break.1")), await client.thrown(() => ask("none.1"))];
  });
  assert.deepEqual(answers.slice(0, 2), [["success", "alice.test said hello there"], ["protocol", "no"]]);
  assert.equal(answers[2].name, "handler_failed");
  assert.equal(answers[3].name, "no_handler");
});

test("messages arrive once, in order, and are confirmed by the other application", async () => {
  await bob.evaluate(() => {
    globalThis.got = [];
    node.onMessage("chat.1", async ({ from, payload }) => void got.push([from, client.text(payload)]));
  });
  await alice.evaluate(async () => {
    for (let number = 0; number < 50; number++) await node.message("bob.test", "chat.1", client.utf8(`message ${number}`));
  });
  const got = await bob.evaluate(() => got);
  assert.deepEqual(got, Array.from({ length: 50 }, (_, number) => ["alice.test", `message ${number}`]));
});

test("16 MiB pass as a stream in both directions with their hash unchanged, many writes at once included", async () => {
  await bob.evaluate(() => {
    node.serveStream("copy.1", async (stream) => {
      const parts = [];
      for (let chunk = await stream.read(); chunk !== undefined; chunk = await stream.read()) parts.push(chunk);
      for (const part of parts) void stream.write(part);
      await stream.finish();
    });
  });
  const { sent, back, milliseconds } = await alice.evaluate(async () => {
    const data = new Uint8Array(16 << 20);
    for (let at = 0; at < data.length; at += 65536) crypto.getRandomValues(data.subarray(at, at + 65536));
    const began = performance.now();
    const stream = await node.openStream("bob.test", "copy.1", client.utf8("name"));
    for (let at = 0; at < data.length; at += 100_000) await stream.write(data.slice(at, at + 100_000));
    await stream.finish();
    const parts = [];
    for (let chunk = await stream.read(); chunk !== undefined; chunk = await stream.read()) parts.push(chunk);
    const milliseconds = performance.now() - began;
    return { sent: await client.sha256([data]), back: await client.sha256(parts), milliseconds };
  });
  assert.equal(back, sent);
  console.log(`# 2 × 16 MiB through the router and two tabs in ${Math.round(milliseconds)} ms`);
});

test("a large message crosses in one piece", async () => {
  const length = await alice.evaluate(async () => {
    await new Promise((done) => setTimeout(done, 0));
    const { data } = await node.request("bob.test", "greet.1", new Uint8Array(3_000_000).fill(97), { metadata: client.utf8("x") });
    return data.length;
  });
  assert.equal(length, 3_000_000 + "alice.test said  x".length);
});

test("the native node answers the tab directly", async () => {
  const answer = await alice.evaluate(async () => client.text((await node.request("router.test", "echo.1", client.utf8("ping"))).data));
  assert.equal(answer, "ping");
  const peers = await alice.evaluate(() => node.peers());
  const bobs = peers.find(({ name }) => name === "bob.test");
  assert.deepEqual([bobs.state, bobs.route, bobs.how], ["online", "via router.test", "pinned"]);
  const latency = await alice.evaluate(() => node.ping("bob.test"));
  assert.ok(latency > 0 && latency < 1000, `${latency} ms`);
});

test("a request that is aborted, or takes too long, ends with that", async () => {
  await bob.evaluate(() => node.serve("slow.1", () => new Promise(() => {})));
  const [aborted, late] = await alice.evaluate(async () => {
    const ask = (options) => client.thrown(() => node.request("bob.test", "slow.1", client.utf8(""), options));
    const abort = new AbortController();
    setTimeout(() => abort.abort(), 100);
    return Promise.all([ask({ signal: abort.signal }), ask({ deadlineMs: 200 })]);
  });
  assert.equal(aborted.name, "cancelled");
  assert.equal(late.name, "timeout");
});

test("somebody with another key than the record's is not taken for its owner", async () => {
  const error = await alice.evaluate(async (options) => {
    const guestlike = await client.Node.start(options);
    const error = await client.thrown(() => guestlike.request("bob.test", "greet.1", client.utf8("x"), { deadlineMs: 5000 }));
    await guestlike.close();
    return error;
  }, await optionsFor("alice", { bob: keys.router }));
  assert.ok(["wrong_name", "key_mismatch", "decrypt_failed", "bad_signature"].includes(error.name), JSON.stringify(error));
  // The second node of the name took the first one's place; it has been told.
  await alice.waitForFunction(() => seen.some(({ type, state }) => type === "identity" && state === "superseded"), null, { timeout: 10_000 });
});

test("a reloaded tab has its key and is online again", async () => {
  await alice.reload();
  await ready(alice);
  assert.equal(await alice.evaluate(() => client.generateKey().then(client.hex)), keys.alice);
  await start(alice, "alice");
  const answer = await alice.evaluate(async () => client.text((await node.request("bob.test", "greet.1", client.utf8("back"), { metadata: client.utf8("") })).data));
  assert.equal(answer, "alice.test said back ");
});

test("tabs come back by themselves when their router does", async () => {
  await stopRouter();
  await bob.waitForFunction(() => seen.findLast(({ type }) => type === "identity")?.state === "offline", null, { timeout: 10_000 });
  const error = await alice.evaluate(() => client.thrown(() => node.request("bob.test", "greet.1", client.utf8(""), { deadlineMs: 500 })));
  assert.ok(error !== undefined, "nobody answers");
  await startRouter(["alice", "bob"]);
  for (const tab of [alice, bob]) {
    await tab.waitForFunction(() => seen.findLast(({ type }) => type === "identity")?.state === "online", null, { timeout: 20_000 });
  }
  const answer = await alice.evaluate(async () => client.text((await node.request("bob.test", "greet.1", client.utf8("again"), { metadata: client.utf8("") })).data));
  assert.equal(answer, "alice.test said again ");
});

test("a closed node says goodbye, and its promises end", async () => {
  const [error, later] = await alice.evaluate(async () => {
    const asked = client.thrown(() => node.request("bob.test", "slow.1", client.utf8("")));
    await node.close();
    return [await asked, await client.thrown(() => node.request("bob.test", "greet.1", client.utf8("")))];
  });
  assert.ok(["node_closed", "outcome_unknown"].includes(error.name), JSON.stringify(error));
  assert.equal(later.name, "node_closed");
});

async function openTab() {
  const context = await browser.newContext();
  const tab = await context.newPage();
  tab.on("console", (message) => message.type() === "error" && console.log(`# console: ${message.text()}`));
  tab.on("pageerror", (error) => console.log(`# page: ${error.stack ?? error}`));
  await tab.goto(`http://127.0.0.1:${port}/`);
  await ready(tab);
  return tab;
}

async function start(tab, label) {
  await tab.evaluate(async (options) => {
    globalThis.seen = [];
    globalThis.node = await client.Node.start(options);
    node.on((event) => seen.push(event));
  }, await optionsFor(label));
}

async function optionsFor(label, replaced = {}) {
  const record = (name) => ({ name: `${name}.test`, key: replaced[name] ?? keys[name] });
  return {
    name: `${label}.test`,
    registries: [{ tld: "test", chainId: 31337, contract: CONTRACT, rpcs: [] }],
    pinned: [
      { ...record("router"), routing: { host: "127.0.0.1", port, schemes: ["ws"] }, routers: [] },
      { ...record("alice"), routers: ["router.test"] },
      { ...record("bob"), routers: ["router.test"] },
    ],
    allowPrivate: true,
  };
}

async function startRouter(tabs) {
  const pin = (label, rest) => `[[pin]]\nname = "${label}.test"\nkey = "${keys[label]}"\n${rest}\n`;
  const config = `
[node]
name = "router.test"
key_file = "router.key"
allow_private = true
[listen]
address = "127.0.0.1"
port = ${port}
page = "www"
[[registry]]
tld = "test"
chain_id = 31337
contract = "${CONTRACT}"
rpcs = []
[router]
${pin("router", `host = "127.0.0.1"\nport = ${port}\nschemes = ["ws"]`)}
${tabs.map((label) => pin(label, 'routers = ["router.test"]')).join("\n")}
`;
  await writeFile(join(directory, "nectar.toml"), config);
  router = spawn(nectar, ["run", "--echo", "--config", join(directory, "nectar.toml")], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, RUST_LOG: process.env["RUST_LOG"] ?? "warn" },
  });
  let said = "";
  for (const output of [router.stdout, router.stderr]) output.on("data", (data) => {
    said += data;
    if (process.env["VERBOSE"]) process.stdout.write(`# router: ${data}`);
  });
  for (let tries = 0; ; tries++) {
    const up = await fetch(`http://127.0.0.1:${port}/healthz`).then((response) => response.ok).catch(() => false);
    if (up) return;
    assert.ok(tries < 200 && router.exitCode === null, `the router does not start: ${said}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

async function stopRouter() {
  if (router === undefined || router.exitCode !== null) return;
  router.kill("SIGTERM");
  const killer = setTimeout(() => router.kill("SIGKILL"), 3000);
  await once(router, "exit");
  clearTimeout(killer);
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  return port;
}
