/** The page in Chromium: real chain, real contract, real wallet interface; only the peers are scripted (test/fake-wasm.ts). */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { after, before, describe, test } from "node:test";
import { getAddress, id, Wallet } from "ethers";
import { buildFake } from "./build-fake.mjs";
import { mined, openProfile, servePage, startChain } from "./support.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const KEY = `0x${"ab".repeat(32)}`;
const ONLINE = '[data-testid="identity"][data-state="online"]';

let dist;
let chain;
/** What the server says, unless a test changes it for itself. */
let standard;

before(async () => {
  [dist, chain] = await Promise.all([buildFake(), startChain()]);
  standard = await withRouters(chain);
});

after(async () => {
  chain?.stop();
  if (dist !== undefined) await rm(dist, { recursive: true, force: true });
});

/** Registers two routers; returns what the page's server says of them and of the chain. */
async function withRouters({ address, url, register, registry }) {
  const direct = { networkingKey: KEY, hostKind: 1, host: "0x7f000001", port: 9000, schemes: 1, routers: [] };
  for (const label of ["loach", "tench"]) {
    await register(label, direct);
    await mined(await registry.enlist(id(label)));
  }
  return {
    version: 1,
    registries: [{ tld: "nectar", chainId: 31337, contract: address, rpcs: [url] }],
    routers: [
      { name: "loach.nectar", url: "ws://127.0.0.1:9000", index: 1 },
      { name: "tench.nectar", url: "ws://127.0.0.1:9001", index: 2 },
    ],
    faucet: "/demo/faucet",
    echo: "echo.nectar",
  };
}

/** Runs a test in a profile and at an origin of its own; an error of the page fails it. */
function inProfile(name, run, options) {
  test(name, { timeout: 90_000 }, async () => {
    const site = { config: standard };
    const server = await servePage(dist, () => site.config, chain);
    Object.assign(site, { url: server.url, port: server.port });
    const profile = await openProfile(options);
    const wrong = [];
    const watch = (page) => {
      page.setDefaultTimeout(10_000);
      page.on("pageerror", (error) => wrong.push(error.message));
      page.on("console", (message) => {
        if (/Content Security Policy|Uncaught/.test(message.text())) wrong.push(message.text());
      });
    };
    watch(profile.page);
    profile.context.on("page", watch);
    try {
      await run(profile, site);
      assert.deepEqual(wrong, []);
    } finally {
      await profile.close();
      server.stop();
    }
  });
}

async function choose(page, label) {
  await page.getByLabel("Name", { exact: true }).fill(label);
  await page.getByText(`${label}.nectar is free.`).waitFor();
}

async function register(page, site, label) {
  await page.goto(site.url);
  await choose(page, label);
  await page.getByRole("button", { name: `Register ${label}.nectar` }).click();
  await page.getByTestId("me").filter({ hasText: `${label}.nectar` }).waitFor({ timeout: 40_000 });
  await page.locator(ONLINE).waitFor();
}

async function add(page, name) {
  await page.getByLabel("Name of a contact").fill(name);
  await page.getByRole("button", { name: "Add", exact: true }).click();
  await page.getByRole("region", { name: `Conversation with ${name}` }).waitFor();
}

async function say(page, name, text) {
  await page.getByLabel(`Message to ${name}`).fill(text);
  await page.keyboard.press("Enter");
}

/** Waits until the focus is at what a selector finds. */
async function focused(page, selector) {
  await page.waitForFunction((wanted) => document.activeElement?.matches(wanted), selector).catch(async (error) => {
    const held = await page.evaluate(() => document.activeElement?.outerHTML.slice(0, 200));
    throw new Error(`the focus is not at ${selector}, but at ${held}`, { cause: error });
  });
}

/** An entry of the conversation: what is new is announced elsewhere, too. */
function said(page, text) {
  return page.getByRole("log").getByText(text);
}

async function accessible(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() =>
    globalThis.axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }),
  );
  assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes[0]?.html} (${nodes[0]?.failureSummary})`), []);
}

describe("the page", { concurrency: 3 }, () => {
  inProfile("a name is registered in the chain with this browser's key and the chosen routers", async ({ page }, site) => {
    await page.goto(site.url);
    await page.getByText("27 ms").waitFor();
    const name = page.getByLabel("Name", { exact: true });
    for (const [text, words] of [
      ["al", "at least 3 characters"],
      ["Alice", "'A' is not allowed"],
      ["al--ice", "no two hyphens"],
      ["-alice", "neither begins nor ends"],
      ["loach", "loach.nectar is taken."],
    ]) {
      await name.fill(text);
      await page.getByText(words).waitFor();
      assert.ok(await page.getByRole("button", { name: /^Register/ }).isDisabled(), text);
    }
    await page.getByLabel("loach.nectar").uncheck();
    await choose(page, "alice");
    await page.getByRole("button", { name: "Register alice.nectar" }).click();
    await page.getByText("s to go").waitFor();
    await page.locator(ONLINE).waitFor({ timeout: 20_000 });
    const record = await chain.registry.resolve("alice");
    await page.getByText(/routers · key/).click();
    await page.getByText(record.networkingKey.slice(2), { exact: true }).waitFor();
    assert.deepEqual([...record.routers], ["tench"]);
  });

  inProfile("a tab that is closed between commit and reveal goes on where it stopped", async ({ page, context }, site) => {
    await page.goto(site.url);
    await choose(page, "carol");
    await page.getByRole("button", { name: "Register carol.nectar" }).click();
    await page.getByText("s to go").waitFor();
    await page.close();
    const again = await context.newPage();
    await again.goto(site.url);
    await again.getByText("You began to register carol.nectar").waitFor();
    await again.getByRole("button", { name: "Go on" }).click();
    await again.locator(ONLINE).waitFor({ timeout: 20_000 });
    const owner = await chain.registry.ownerOf(id("carol"));
    assert.equal(await chain.provider.getTransactionCount(owner), 2, "one commitment, one registration");
  });

  inProfile("a wallet signs: found by EIP-6963, moved to the registry's chain, declined and asked again", async ({ page }, site) => {
    const account = (await chain.provider.send("eth_accounts", []))[3];
    site.config = { ...site.config, faucet: undefined };
    await page.addInitScript(injectWallet, { account, rpc: chain.url });
    await page.goto(site.url);
    await page.getByLabel("Test Wallet").waitFor();
    await choose(page, "dave");
    await page.evaluate(() => (globalThis.wallet.decline = "eth_sendTransaction"));
    await page.getByRole("button", { name: "Register dave.nectar" }).click();
    await page.getByText("You declined in the wallet.").waitFor();
    assert.deepEqual(await page.evaluate(() => globalThis.wallet.added), { chainId: "0x7a69", rpcUrls: [chain.url] });
    await page.getByText("You began to register dave.nectar").waitFor();
    await page.getByRole("button", { name: "Go on" }).click();
    await page.locator(ONLINE).waitFor({ timeout: 20_000 });
    assert.equal((await chain.registry.resolve("dave")).owner, getAddress(account));
  });

  inProfile("a name that the account owns already gets this browser's key", async ({ page }, site) => {
    const account = (await chain.provider.send("eth_accounts", []))[4];
    const record = { networkingKey: KEY, hostKind: 0, host: "0x", port: 0, schemes: 0, routers: [1] };
    await chain.register("erin", record, account);
    await page.addInitScript(injectWallet, { account, rpc: chain.url });
    await page.goto(site.url);
    await page.getByLabel("Name", { exact: true }).fill("erin");
    await page.getByRole("button", { name: "It is mine" }).click();
    await page.getByRole("button", { name: "Use erin.nectar" }).click();
    await page.getByText(/belongs to .*, not to/).waitFor();
    await page.getByLabel("Test Wallet").check();
    await page.getByRole("button", { name: "It is mine" }).or(page.getByRole("button", { name: "Use erin.nectar" })).click();
    await page.locator(ONLINE).waitFor({ timeout: 20_000 });
    assert.notEqual((await chain.registry.resolve("erin")).networkingKey, KEY);
  });

  inProfile("people talk, ask and send files, and a reload brings everything back", async ({ page }, site) => {
    await register(page, site, "frank");
    await page.getByLabel("Name of a contact").fill("nobody");
    await page.keyboard.press("Enter");
    await page.getByText("nobody.nectar: Nobody has registered this name.").waitFor();
    await page.getByLabel("Name of a contact").fill("no--body");
    await page.keyboard.press("Enter");
    await page.getByText("A name has no two hyphens in a row.").waitFor();

    await add(page, "echo.nectar");
    await page.getByTestId("peer-state").getByText("online · via loach.nectar · 31 ms").waitFor();
    await say(page, "echo.nectar", "Hello <b>echo</b>");
    await page.locator('[data-state="delivered"]', { hasText: "Hello <b>echo</b>" }).waitFor();
    await said(page, "You said: Hello <b>echo</b>").waitFor();

    await page.getByLabel("Ask", { exact: true }).check();
    await page.getByLabel("Request to echo.nectar").fill("what now?");
    await page.keyboard.press("Enter");
    await page.getByTestId("answer").getByText("echo: what now?").waitFor();
    await page.getByLabel("Message", { exact: true }).check();

    const buffer = Buffer.alloc(1 << 20, 3);
    await page.getByLabel("File to send").setInputFiles({ name: "big.bin", mimeType: "application/octet-stream", buffer });
    await page.getByText("Waiting until echo.nectar accepts").waitFor();
    await page.locator('[data-kind="file"][data-state="delivered"]').waitFor();
    const hash = await page.getByTestId("sha256").textContent();

    await page.reload();
    await page.locator(ONLINE).waitFor();
    await page.getByRole("button", { name: /echo.nectar/ }).click();
    await page.getByText("Hello <b>echo</b>", { exact: true }).waitFor();
    assert.equal(await page.getByTestId("sha256").textContent(), hash);
  });

  inProfile("a stranger is let in first, then offers a file that can be saved", async ({ page }, site) => {
    await register(page, site, "grace");
    await page.getByRole("heading", { name: "Want to talk to you" }).waitFor();
    await page.getByRole("button", { name: /bob.nectar/ }).click();
    assert.ok(await page.getByLabel("Message to bob.nectar").isDisabled());
    await page.getByRole("button", { name: "Accept", exact: true }).click();
    await say(page, "bob.nectar", "file");
    await page.getByRole("button", { name: "Accept file" }).click();
    const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "Save" }).click()]);
    assert.equal(download.suggestedFilename(), "notes.txt");
    assert.equal(readFileSync(await download.path(), "utf8"), "what Bob sends\n".repeat(40_000));
  });

  inProfile("two tabs are one node; closing one leaves the other working", async ({ page, context }, site) => {
    await register(page, site, "heidi");
    await add(page, "echo.nectar");
    const second = await context.newPage();
    await second.goto(site.url);
    await second.locator(ONLINE).waitFor();
    await second.getByRole("button", { name: /echo.nectar/ }).click();
    await say(second, "echo.nectar", "from the second");
    await said(page, "You said: from the second").waitFor();
    assert.equal(await said(page, "You said: from the second").count(), 1);
    await page.close();
    await say(second, "echo.nectar", "still here");
    await said(second, "You said: still here").waitFor();
  });

  inProfile("without SharedWorker the node runs in the page, in one tab at a time", async ({ page, context }, site) => {
    await context.addInitScript(() => delete globalThis.SharedWorker);
    await register(page, site, "mike");
    await add(page, "echo.nectar");
    await say(page, "echo.nectar", "from the page");
    await said(page, "You said: from the page").waitFor();
    const second = await context.newPage();
    await second.goto(site.url);
    await second.getByText("mike.nectar is online in another tab of this browser").waitFor();
    await second.getByRole("button", { name: "Start it here" }).click();
    await second.locator(ONLINE).waitFor();
    await page.getByText("mike.nectar is online somewhere else.").waitFor();
  });

  inProfile("nothing is sent to the new owner of a name before the person agrees", async ({ page }, site) => {
    await register(page, site, "ivan");
    await add(page, "sold.nectar");
    await say(page, "sold.nectar", "sell");
    await said(page, "You said: sell").waitFor();
    await say(page, "sold.nectar", "a secret");
    await page.getByText("sold.nectar has a new owner.").waitFor();
    await page.locator('[data-state="failed"]', { hasText: "a secret" }).waitFor();
    assert.ok(await page.getByLabel("Message to sold.nectar").isDisabled());
    await focused(page, ".notice.wrong");
    await page.getByRole("button", { name: "I know the new owner" }).click();
    await focused(page, "textarea:enabled");
    await page.getByRole("button", { name: "Try again" }).click();
    await said(page, "You said: a secret").waitFor();
  });

  inProfile("what is not delivered says why, and who is online elsewhere can take over", async ({ page }, site) => {
    await register(page, site, "judy");
    await add(page, "loach.nectar");
    await say(page, "loach.nectar", "hello?");
    await page.locator('[data-state="failed"]', { hasText: "The peer cannot be reached. It may be closed at the moment." }).waitFor();
    await add(page, "echo.nectar");
    await say(page, "echo.nectar", "supersede");
    await page.getByText("judy.nectar is online somewhere else.").waitFor();
    await page.getByRole("button", { name: "Take over here" }).click();
    await page.locator(ONLINE).waitFor();
    assert.equal(await page.getByText("is online somewhere else").count(), 0);
  });

  inProfile("a key that is not the registered one is said, and can be registered", async ({ page }, site) => {
    await register(page, site, "kate");
    const before = (await chain.registry.resolve("kate")).networkingKey;
    await chain.provider.send("anvil_impersonateAccount", [await chain.registry.ownerOf(id("kate"))]);
    const owner = await chain.provider.getSigner(await chain.registry.ownerOf(id("kate")));
    await mined(await chain.registry.connect(owner).rotateKey(id("kate"), KEY));
    await page.reload();
    await page.getByText("This browser has another key than the one registered for kate.nectar.").waitFor();
    await page.getByRole("button", { name: "Register this browser's key" }).click();
    await page.getByText("This browser has another key").waitFor({ state: "detached" });
    assert.equal((await chain.registry.resolve("kate")).networkingKey, before);
  });

  inProfile("a page that was left open finds out that the chain was started anew, or is gone", async ({ page }) => {
    const own = await startChain();
    const config = await withRouters(own);
    const server = await servePage(dist, config, own);
    try {
      const startAnew = await own.remember();
      await register(page, server, "peggy");
      await add(page, "echo.nectar");
      await startAnew();
      await say(page, "echo.nectar", "drop");
      await page.getByText("peggy.nectar is not registered in this registry.").waitFor({ timeout: 20_000 });
      await accessible(page);
      await page.getByRole("button", { name: "Register again" }).click();
      await choose(page, "peggy");
      await page.getByRole("button", { name: "Register peggy.nectar" }).click();
      await page.locator(ONLINE).waitFor({ timeout: 20_000 });
      await page.getByRole("button", { name: /echo.nectar/ }).click();
      await said(page, "You said: drop").waitFor();
      own.stop();
      await say(page, "echo.nectar", "drop");
      const asked = page.getByRole("alert").filter({ hasText: "The chain cannot be asked at the moment." });
      await asked.filter({ hasText: "RPC endpoint" }).waitFor({ timeout: 20_000 });
    } finally {
      server.stop();
      own.stop();
    }
  });

  inProfile("going offline takes back what a screen reader was told, and is said once it lasts", async ({ page }, site) => {
    await register(page, site, "quinn");
    await add(page, "echo.nectar");
    const status = page.locator(".hidden[role=status]");
    await status.filter({ hasText: "Hello, it is Bob." }).waitFor({ state: "attached" });
    await status.evaluate((element) => {
      globalThis.told = [];
      const look = () => globalThis.told.push(element.textContent);
      new MutationObserver(look).observe(element, { characterData: true, childList: true, subtree: true });
    });
    await say(page, "echo.nectar", "drop");
    await page.waitForFunction(() => globalThis.told.includes("You are online."));
    await page.waitForFunction(() => globalThis.told.at(-1) === "");
    await page.getByRole("alert").filter({ hasText: "You are not online." }).waitFor({ timeout: 20_000 });
    assert.equal(await page.getByText("You are online.").count(), 0);
    await accessible(page);
  });

  inProfile("a peer that reconnects is no reason to send anything again", async ({ page }, site) => {
    await register(page, site, "rupert");
    await add(page, "echo.nectar");
    await say(page, "echo.nectar", "break");
    await page.getByTestId("peer-state").getByText("reconnecting…").waitFor();
    await page.getByText("Details").click();
    await page.getByText("The connection broke.", { exact: true }).waitFor();
    await page.locator('[data-state="delivered"]', { hasText: "break" }).waitFor();
    assert.equal(await page.getByText("Send it again").count(), 0);
  });

  for (const [form, viewport] of [["a desk", { width: 1120, height: 780 }], ["a phone", { width: 360, height: 640 }]]) {
    inProfile(
      `whoever uses the keyboard goes on where they are: at ${form}`,
      async ({ page }, site) => {
        const label = form === "a desk" ? "sybil" : "trent";
        await page.goto(site.url);
        await choose(page, label);
        await page.keyboard.press("Enter");
        await page.locator(ONLINE).waitFor({ timeout: 20_000 });
        await focused(page, "#contact");
        // Once only: whoever comes back has not asked for the contact field.
        await page.reload();
        await page.locator(ONLINE).waitFor();
        await focused(page, "body");

        const bob = page.getByRole("button", { name: /bob.nectar/ });
        await bob.press("Enter");
        await focused(page, "[aria-label=Request]");
        await accessible(page);
        await page.keyboard.press("Tab");
        await page.keyboard.press("Enter");
        await focused(page, "textarea:enabled");
        await page.keyboard.type("typed at once");
        await page.keyboard.press("Enter");
        await said(page, "You said: typed at once").waitFor();

        await page.getByText("Details").press("Enter");
        await page.getByRole("button", { name: "Block" }).press("Enter");
        await focused(page, "#contact");
        await page.keyboard.type("echo");
        await page.keyboard.press("Enter");
        await focused(page, "textarea:enabled");
        if (form === "a phone") {
          await page.getByRole("button", { name: "Back to contacts" }).press("Enter");
          await focused(page, "button.contact");
        }
      },
      { viewport },
    );
  }

  inProfile("another registry than at the first visit is not taken without a word", async ({ page }, site) => {
    await page.goto(site.url);
    await page.getByText("A name that is yours").waitFor();
    const [registry] = site.config.registries;
    site.config = { ...site.config, registries: [{ ...registry, contract: Wallet.createRandom().address }] };
    await page.reload();
    await page.getByText("now names another registry than at your first visit").waitFor();
    await choose(page, "larry");
    await page.getByRole("button", { name: "I trust the new one: use it" }).click();
    await page.getByText("now names another registry").waitFor({ state: "detached" });
  });

  inProfile("a chain that does not answer, a wrong chain and a contract that is no registry are told apart", async ({ page }, site) => {
    const [registry] = site.config.registries;
    const attempt = async (change) => {
      site.config = { ...site.config, registries: [{ ...registry, ...change }] };
      await page.goto(site.url);
      const accept = page.getByRole("button", { name: "I trust the new one: use it" });
      await page.getByText("A name that is yours").waitFor();
      if (await accept.isVisible()) {
        await accept.click();
        await accept.waitFor({ state: "detached" });
      }
      await page.getByLabel("Name", { exact: true }).fill("mallory");
    };
    await attempt({ chainId: 1 });
    await page.getByRole("button", { name: "Register mallory.nectar" }).click();
    await page.getByText("The RPC endpoint serves chain 31337, the registry is on chain 1.").waitFor();
    await attempt({ rpcs: ["http://127.0.0.1:9"] });
    await page.getByRole("button", { name: "Ask again" }).waitFor();
  });

  inProfile(
    "over plain http from elsewhere the page is a guest and says why",
    async ({ page }, site) => {
      await page.goto(`http://guest.test:${site.port}`);
      await page.getByText("You are a guest here.").waitFor();
      await page.getByLabel("Ask it something").fill("hello");
      await page.getByRole("button", { name: "Ask" }).click();
      await page.getByText("Answer: echo: hello").waitFor();
      await accessible(page);
    },
    { args: ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP guest.test 127.0.0.1"] },
  );

  inProfile("every view passes axe, light and dark, and works by keyboard alone", async ({ page }, site) => {
    await page.goto(site.url);
    await page.getByText("27 ms").waitFor();
    await page.keyboard.press("Tab");
    await page.keyboard.type("nina");
    await page.getByText("nina.nectar is free.").waitFor();
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      await accessible(page);
    }
    await page.keyboard.press("Enter");
    await page.getByText("s to go").waitFor();
    await accessible(page);
    await page.locator(ONLINE).waitFor({ timeout: 20_000 });
    await accessible(page);
    await page.getByLabel("Name of a contact").focus();
    await page.keyboard.type("echo.nectar");
    await page.keyboard.press("Enter");
    await page.getByLabel("Message to echo.nectar").waitFor();
    await focused(page, "textarea");
    await page.keyboard.type("typed");
    await page.keyboard.press("Enter");
    await said(page, "You said: typed").waitFor();
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      await accessible(page);
    }
    await page.setViewportSize({ width: 360, height: 640 });
    await accessible(page);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "no sideways scrolling");
  });

  inProfile("the page speaks with its origin and the chain only", async ({ page, context }, site) => {
    const hosts = new Set();
    context.on("request", (request) => hosts.add(new URL(request.url()).origin));
    await register(page, site, "oscar");
    assert.deepEqual([...hosts].filter((host) => ![site.url, chain.url].includes(host)), []);
  });
});

/** An EIP-1193 wallet, announced by EIP-6963: the chain's node signs for `account`. Begins on another chain. */
function injectWallet({ account, rpc }) {
  let chainId = "0x1";
  let known = false;
  const wallet = { decline: undefined, added: undefined };
  globalThis.wallet = wallet;
  const refuse = (code, message) => Object.assign(new Error(message), { code });
  const provider = {
    on() {},
    removeListener() {},
    async request({ method, params }) {
      if (wallet.decline === method) {
        wallet.decline = undefined;
        throw refuse(4001, "User rejected the request.");
      }
      switch (method) {
        case "eth_requestAccounts":
        case "eth_accounts":
          return [account];
        case "eth_chainId":
          return chainId;
        case "wallet_switchEthereumChain":
          if (!known) throw refuse(4902, "Unrecognized chain ID");
          chainId = params[0].chainId;
          return null;
        case "wallet_addEthereumChain":
          wallet.added = { chainId: params[0].chainId, rpcUrls: params[0].rpcUrls };
          known = true;
          chainId = params[0].chainId;
          return null;
        default: {
          const response = await fetch(rpc, {
            method: "POST",
            headers: { "content-type": "application/json" },
            body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params: params ?? [] }),
          });
          const { result, error } = await response.json();
          if (error) throw Object.assign(new Error(error.message), error);
          return result;
        }
      }
    },
  };
  const info = { uuid: crypto.randomUUID(), name: "Test Wallet", rdns: "test.wallet", icon: "data:image/svg+xml,<svg/>" };
  const announce = () =>
    dispatchEvent(new CustomEvent("eip6963:announceProvider", { detail: Object.freeze({ info, provider }) }));
  addEventListener("eip6963:requestProvider", announce);
  announce();
}
