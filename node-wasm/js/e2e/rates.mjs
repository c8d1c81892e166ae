/** What a node in a page carries: bulk to and from a native node, directly and through a router, and small requests at a pace.
 *
 * Prints a JSON line for each figure. Needs the module (`cargo xtask wasm`), the page's packages and the example `tab`, whose path
 * is the argument. `cargo xtask bench --tab` runs it. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { createInterface } from "node:readline";
import { bundle, launch, ready } from "./support.mjs";

const program = process.argv[2];
const MIB = 128;
const PER_SECOND = 1000;
const SECONDS = 10;
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm" };

const directory = await mkdtemp(join(tmpdir(), "nectar-rates-"));
const roles = [];
let site, browser;
try {
  await bundle(join(directory, "www"));
  site = createServer(serveFile).listen(0, "127.0.0.1");
  await once(site, "listening");
  browser = await launch();
  await measurePlain();
  await measure("nectar-tab", async (key) => {
    const server = await role("server", key);
    return { ...server, pins: [pinned("server", server)] };
  });
  await measure("nectar-tab-routed", async (key) => {
    const router = await role("router", key);
    const target = await role("target", key, router.port);
    return { ...router, pins: [pinned("router", router), { name: "server.bench", key: target.key, routers: ["router.bench"] }] };
  });
} finally {
  await browser?.close();
  site?.close();
  for (const each of roles) each.kill();
  await rm(directory, { recursive: true, force: true });
}

/** Has a tab of its own talk to `server.bench`, which `begin` starts for the tab's key. */
async function measure(peer, begin) {
  const tab = await openTab();
  const { chainId, contract, pins } = await begin(await tab.evaluate(() => client.generateKey().then(client.hex)));
  await tab.evaluate(async (options) => {
    globalThis.node = await client.Node.start(options);
    await node.request("server.bench", "echo.1", client.utf8("there?"));
  }, { name: "tab.bench", registries: [{ tld: "bench", chainId, contract, rpcs: [] }], pinned: pins, allowPrivate: true });
  figure(peer, "tab.send", MIB / (await tab.evaluate(send, MIB)), "MiB/s");
  figure(peer, "tab.receive", MIB / (await tab.evaluate(receive, MIB)), "MiB/s");
  const { answered, p50, p99, longest } = await tab.evaluate(ask, [PER_SECOND, SECONDS]);
  figure(peer, "tab.requests", answered / SECONDS, "1/s");
  figure(peer, "tab.requests.p50", p50 * 1000, "us");
  figure(peer, "tab.requests.p99", p99 * 1000, "us");
  figure(peer, "tab.longest_task", longest, "ms");
  await tab.evaluate(() => node.close());
  await tab.context().close();
}

/** The same of the browser's WebSocket alone. */
async function measurePlain() {
  const { port } = await role("plain");
  const tab = await openTab();
  const [sent, received] = await tab.evaluate(plain, [port, MIB]);
  figure("plain-tab", "tab.send", MIB / sent, "MiB/s");
  figure("plain-tab", "tab.receive", MIB / received, "MiB/s");
  await tab.context().close();
}

async function openTab() {
  const tab = await (await browser.newContext()).newPage();
  tab.on("pageerror", (error) => console.error(`page: ${error.stack ?? error}`));
  await tab.goto(`http://127.0.0.1:${site.address().port}/`);
  await ready(tab);
  return tab;
}

function figure(peer, workload, value, unit) {
  console.log(JSON.stringify({ peer, workload, value: Math.round(value * 100) / 100, unit }));
}

/** In the page: seconds until messages have gone, and until as many have come. No more than 1 MiB waits in the browser. */
async function plain([port, mib]) {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/`);
  socket.binaryType = "arraybuffer";
  await new Promise((done) => (socket.onopen = done));
  const [turns, chunk] = [new MessageChannel(), new Uint8Array(65536).fill(9)];
  const turn = () => new Promise((done) => {
    turns.port1.onmessage = done;
    turns.port2.postMessage(0);
  });
  let began = performance.now();
  let sent;
  let left = mib * 1048576;
  const all = new Promise((done) => {
    socket.onmessage = ({ data }) => {
      left -= data.byteLength;
      if (data.byteLength === 0) [sent, began] = [performance.now() - began, performance.now()];
      if (left === 0) done();
    };
  });
  for (let parts = 0; parts < mib * 16; parts++) {
    socket.send(chunk);
    while (socket.bufferedAmount > 1048576) await turn();
  }
  socket.send(new Uint8Array());
  await all;
  const received = performance.now() - began;
  socket.close();
  return [sent / 1000, received / 1000];
}

/** In the page: seconds until the other side has said that it has everything. */
async function send(mib) {
  const chunk = new Uint8Array(65536).fill(9);
  const stream = await node.openStream("server.bench", "sink.1");
  const began = performance.now();
  for (let sent = 0; sent < mib * 16; sent++) await stream.write(chunk);
  await stream.finish();
  if ((await stream.read()) === undefined) throw new Error("the other side has not got it all");
  return (performance.now() - began) / 1000;
}

/** In the page: seconds until everything has come. */
async function receive(mib) {
  const stream = await node.openStream("server.bench", "source.1", client.utf8(String(mib * 1048576)));
  const began = performance.now();
  let left = mib * 1048576;
  for (let chunk = await stream.read(); chunk !== undefined; chunk = await stream.read()) left -= chunk.length;
  if (left !== 0) throw new Error(`${left} bytes are missing`);
  await stream.finish();
  return (performance.now() - began) / 1000;
}

/** In the page: requests when they are due, and the longest task of the page's thread meanwhile, in milliseconds. The browser
 * reports those above 50 ms only. */
async function ask([perSecond, seconds]) {
  let longest = 0;
  const observer = new PerformanceObserver((list) => list.getEntries().forEach(({ duration }) => (longest = Math.max(longest, duration))));
  observer.observe({ type: "longtask" });
  const payload = new Uint8Array(32).fill(7);
  const [took, under_way] = [[], []];
  const began = performance.now();
  for (let asked = 0; asked < perSecond * seconds; ) {
    const due = Math.min(Math.floor(((performance.now() - began) * perSecond) / 1000), perSecond * seconds);
    for (; asked < due; asked++) {
      const at = performance.now();
      under_way.push(node.request("server.bench", "echo.1", payload).then(() => took.push(performance.now() - at)));
    }
    await new Promise((done) => setTimeout(done, 4));
  }
  await Promise.all(under_way);
  // What the last task was is reported after it.
  await new Promise((done) => setTimeout(done, 200));
  observer.disconnect();
  took.sort((one, other) => one - other);
  const share = (of) => took[Math.floor((took.length - 1) * of)];
  return { answered: took.length, p50: share(0.5), p99: share(0.99), longest };
}

function pinned(label, { key, port }) {
  return { name: `${label}.bench`, key, routing: { host: "127.0.0.1", port, schemes: ["ws"] }, routers: [] };
}

/** Starts the native program in a role; what it says when it is ready. */
async function role(...args) {
  const child = spawn(program, args.map(String), { stdio: ["pipe", "pipe", "inherit"] });
  roles.push(child);
  const [line] = await Promise.race([
    once(createInterface(child.stdout), "line"),
    once(child, "exit").then(() => { throw new Error(`${args[0]} ended early`); }),
  ]);
  return JSON.parse(line);
}

async function serveFile(request, response) {
  const path = request.url === "/" ? "/index.html" : request.url;
  try {
    const content = await readFile(join(directory, "www", path));
    response.writeHead(200, { "content-type": TYPES[extname(path)] }).end(content);
  } catch {
    response.writeHead(404).end();
  }
}
