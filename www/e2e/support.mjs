/** What the page's tests stand on: a real chain with the real contract, the page's server, Chromium. */

import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { createServer as createSocket } from "node:net";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Contract, ContractFactory, JsonRpcProvider, NonceManager, parseEther, ZeroAddress } from "ethers";
import { chromium } from "playwright-core";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};

/** The policy that a node serves the page with (node-native/src/http/site.rs). */
function policy(rpc) {
  return (
    `default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self' ws: wss: ${rpc}; ` +
    "img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
  );
}

/** Starts anvil and deploys the registry; `account(i)` is one of anvil's rich accounts. */
export async function startChain({ minAge = 2, maxAge = 86_400 } = {}) {
  const binary = process.env.NECTAR_ANVIL ?? anvil();
  const port = await freePort();
  const child = spawn(binary, ["--port", String(port), "--silent", "--chain-id", "31337"], { stdio: "inherit" });
  const url = `http://127.0.0.1:${port}`;
  const provider = new JsonRpcProvider(url, 31337, { staticNetwork: true, cacheTimeout: -1 });
  provider.pollingInterval = 50;
  await until(() => provider.send("eth_chainId", []).catch(() => undefined), "anvil answers", 10_000);
  const artifact = JSON.parse(readFileSync(here("../../contracts/artifacts/NectarRegistry.json"), "utf8"));
  const deployer = new NonceManager(await provider.getSigner(0));
  const factory = new ContractFactory(artifact.abi, artifact.bytecode, deployer);
  const contract = await factory.deploy(minAge, maxAge, 0n, ZeroAddress);
  await mined(contract.deploymentTransaction());
  const registry = new Contract(await contract.getAddress(), artifact.abi, deployer);
  return {
    url,
    provider,
    registry,
    address: await contract.getAddress(),
    /** Registers a name, paid by anvil's first account, which owns it unless told otherwise. */
    async register(label, record, owner = deployer.signer.address) {
      const salt = `0x${"11".repeat(32)}`;
      const commitment = await registry.makeCommitment(label, owner, record, salt);
      await mined(await registry.commit(commitment));
      await provider.send("evm_increaseTime", [minAge + 1]);
      await provider.send("evm_mine", []);
      await mined(await registry.register(label, owner, record, salt));
    },
    /** Returns what takes the chain back to how it is now, as if it had been started anew. */
    async remember() {
      const snapshot = await provider.send("evm_snapshot", []);
      return async () => {
        await provider.send("evm_revert", [snapshot]);
        deployer.reset();
      };
    },
    async fund(address) {
      await mined(await deployer.sendTransaction({ to: address, value: parseEther("1") }));
    },
    stop: () => child.kill(),
  };
}

/** Serves a build of the page with its configuration and a faucet. */
export async function servePage(dist, config, chain) {
  const server = createServer(async (request, response) => {
    const path = new URL(request.url, "http://page").pathname;
    response.setHeader("content-security-policy", policy(chain.url));
    response.setHeader("cache-control", "no-cache");
    if (path === "/.well-known/nectar.json") {
      response.setHeader("content-type", "application/json");
      return response.end(JSON.stringify(typeof config === "function" ? config() : config));
    }
    if (path === "/demo/faucet" && request.method === "POST") {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      await chain.fund(JSON.parse(Buffer.concat(chunks).toString()).address);
      return response.end("{}");
    }
    const file = join(dist, path === "/" ? "index.html" : path);
    if (!file.startsWith(dist) || !existsSync(file)) {
      response.statusCode = 404;
      return response.end("not found");
    }
    response.setHeader("content-type", TYPES[extname(file)] ?? "application/octet-stream");
    response.end(await readFile(file));
  });
  await new Promise((resolve) => server.listen(0, "0.0.0.0", resolve));
  return {
    url: `http://localhost:${server.address().port}`,
    port: server.address().port,
    stop: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** A browser profile of its own: keys, storage and workers are apart from every other profile's. */
export async function openProfile(options = {}) {
  const directory = await mkdtemp(join(tmpdir(), "nectar-profile-"));
  const context = await chromium.launchPersistentContext(directory, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    viewport: { width: 1120, height: 780 },
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
    ...options,
  });
  const page = context.pages()[0] ?? (await context.newPage());
  return {
    context,
    page,
    async close() {
      await context.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Waits until a transaction is in a block. `wait()` of ethers watches for a new one, and anvil, which makes one per transaction,
 * may have made the last one already. */
export async function mined({ hash, provider }) {
  const receipt = await until(() => provider.getTransactionReceipt(hash).then((found) => found ?? undefined), `the receipt of ${hash}`, 30_000);
  if (receipt.status !== 1) throw new Error(`the chain refused ${hash}`);
}

/** Tries until something is there, at most `timeout` ms. */
export async function until(attempt, what, timeout) {
  const end = Date.now() + timeout;
  for (;;) {
    const value = await attempt();
    if (value !== undefined && value !== false) return value;
    if (Date.now() > end) throw new Error(`not within ${timeout} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function anvil() {
  const names = { "linux x64": "linux-amd64", "linux arm64": "linux-arm64", "darwin arm64": "darwin-arm64", "darwin x64": "darwin-amd64" };
  const name = names[`${process.platform} ${process.arch}`];
  const path = here(`../../contracts/node_modules/@foundry-rs/anvil-${name}/bin/anvil`);
  if (!existsSync(path)) throw new Error(`anvil is missing: run \`npm ci\` in contracts, or set NECTAR_ANVIL`);
  return path;
}

async function freePort() {
  const socket = createSocket();
  await new Promise((resolve) => socket.listen(0, "127.0.0.1", resolve));
  const { port } = socket.address();
  await new Promise((resolve) => socket.close(resolve));
  return port;
}
