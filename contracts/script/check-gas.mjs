#!/usr/bin/env node
// Sends the transactions of test/Gas.t.sol, byte for byte, to a real node and compares the gas of each receipt with
// snapshots/NectarRegistry.json and with its goal. Forge's figure and the node's must be equal: no tolerance.
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import { fileURLToPath } from "node:url";
import { JsonRpcProvider, ZeroAddress, id, toUtf8Bytes } from "ethers";
import { deploy } from "./deploy.mjs";

const GOALS = {
  register_ipv4: 160_000n,
  register_dns: 180_000n,
  register_8_routers: 200_000n,
  rotate_key: 38_000n,
  transfer: 65_000n,
  // Without a goal, only checked against the snapshot.
  register_dns_64: undefined,
  register_ipv4_for_a_fee: undefined,
  enlist_first: undefined,
};
const MIN_AGE = 60;
const SALT = id("salt");
const direct = (hostKind, host) => ({ networkingKey: id("key"), hostKind, host, port: 9000, schemes: 3, routers: [] });
const ipv4 = direct(1, "0xcb007107");
const dns = direct(3, toUtf8Bytes("satellite.operators.nectar-nodes.example"));
const longDns = direct(3, toUtf8Bytes("satellite.in-a-long-label.of-operators.nectar-nodes-host.example"));
const indirect = (routers) => ({ ...direct(0, "0x"), port: 0, schemes: 0, routers });

const port = await freePort();
const packaged = fileURLToPath(new URL("../node_modules/.bin/anvil", import.meta.url));
const anvil = spawn(existsSync(packaged) ? packaged : "anvil", ["--port", port, "--silent"], {
  stdio: ["ignore", "ignore", "inherit"],
});
process.on("exit", () => anvil.kill("SIGKILL"));
anvil.on("error", (error) => fail(`anvil does not start: ${error.message}`));
anvil.on("exit", (code) => fail(`anvil ended early (${code})`));

const provider = new JsonRpcProvider(`http://127.0.0.1:${port}`, 31337, { staticNetwork: true, pollingInterval: 20 });
await answering();
const [owner, buyer, routersOwner] = await Promise.all([0, 1, 2].map((i) => provider.getSigner(i)));

const snapshots = JSON.parse(readFileSync(new URL("../snapshots/NectarRegistry.json", import.meta.url), "utf8"));
const receipts = await measure();
let failures = 0;
for (const [name, goal] of Object.entries(GOALS)) {
  const gas = receipts[name];
  const wrong = [];
  if (gas !== BigInt(snapshots[name] ?? 0)) wrong.push(`the snapshot says ${snapshots[name]}`);
  if (goal && gas > goal) wrong.push(`the goal is ${goal}`);
  failures += wrong.length > 0;
  console.log(`${wrong.length ? "FAIL" : "ok  "} ${name.padEnd(24)} ${gas} gas ${wrong.join(", ")}`);
}
console.log(`gas: ${Object.keys(GOALS).length - failures} receipts equal to their snapshots, ${failures} not`);
process.exit(failures ? 1 : 0);

/** Each registration on a registry of its own, so that it is the owner's first name, as in the tests. */
async function measure() {
  const gas = {};
  let registry = await fresh();
  gas.register_ipv4 = await register(registry, owner, "satellite", ipv4);
  gas.rotate_key = await sent(registry.connect(owner).rotateKey(id("satellite"), id("new")));

  registry = await fresh();
  gas.register_dns = await register(registry, owner, "satellite", dns);

  registry = await fresh();
  gas.register_dns_64 = await register(registry, owner, "satellite", longDns);

  const fee = 10_000_000_000_000_000n;
  registry = await fresh({ fee, treasury: buyer.address });
  gas.register_ipv4_for_a_fee = await register(registry, owner, "satellite", ipv4, fee);
  gas.enlist_first = await sent(registry.connect(owner).enlist(id("satellite")));

  registry = await fresh();
  const routers = [];
  for (let i = 0; i < 8; i++) {
    await register(registry, routersOwner, `router-${i}`, ipv4);
    await sent(registry.connect(routersOwner).enlist(id(`router-${i}`)));
    routers.push(await registry.indexOf(id(`router-${i}`)));
  }
  gas.register_8_routers = await register(registry, owner, "satellite", indirect(routers));

  registry = await fresh();
  await register(registry, owner, "satellite", ipv4);
  gas.transfer = await sent(registry.connect(owner).transferFrom(owner.address, buyer.address, id("satellite")));
  return gas;
}

function fresh(terms = { fee: 0, treasury: ZeroAddress }) {
  return deploy(owner, { minAge: MIN_AGE, maxAge: 86_400, ...terms });
}

async function register(registry, signer, label, record, value = 0n) {
  const mine = registry.connect(signer);
  await sent(mine.commit(await mine.makeCommitment(label, signer.address, record, SALT)));
  await provider.send("evm_increaseTime", [MIN_AGE]);
  await provider.send("evm_mine", []);
  return sent(mine.register(label, signer.address, record, SALT, { value }));
}

async function sent(transaction) {
  return (await (await transaction).wait()).gasUsed;
}

async function answering() {
  for (let tries = 0; tries < 200; tries++) {
    try {
      return await provider.send("eth_chainId", []);
    } catch {
      await new Promise((done) => setTimeout(done, 50));
    }
  }
  fail("anvil does not answer");
}

function freePort() {
  return new Promise((found) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => found(port));
    });
  });
}

function fail(why) {
  console.error(`gas: ${why}`);
  process.exit(1);
}
