/** Drives two separate browser profiles against a running `nectar demo`, as two people would.
 *
 *     node e2e/demo-check.mjs http://localhost:7000 [DIRECTORY] [--timeout SECONDS]
 *
 * Instead of the page's address, the file that `nectar demo --ready FILE` wrote will do. Screenshots go to DIRECTORY,
 * by default `target/demo`.
 *
 * Exits with 0 only if everything happened: registered both, online, chatted both ways, a 5 MiB file with the same hash
 * on both sides, a request to the native node and its answer, the same identity after a reload, and the right error for a
 * wrong name. */

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { openProfile } from "./support.mjs";

const ONLINE = '[data-testid="identity"][data-state="online"]';
const FILE_BYTES = 5 << 20;

const { url, screenshots, timeout } = options();
const begun = Date.now();
const people = [];
let current = "starting";

const watchdog = setTimeout(() => void end(new Error(`not done within ${timeout} s`)), timeout * 1000);
watchdog.unref();

try {
  await check();
  await end();
} catch (error) {
  await end(error);
}

async function check() {
  await mkdir(screenshots, { recursive: true });
  const config = await step("the node serves page and configuration", async () => {
    const response = await fetch(new URL("/.well-known/nectar.json", url));
    assert.equal(response.status, 200);
    return response.json();
  });
  const tld = config.registries[0].tld;
  const echo = config.echo;
  assert.ok(echo, "the configuration names an echo node");
  // A demo may run for days: every check registers names of its own.
  const suffix = randomBytes(3).toString("hex");
  const [alice, bob] = await step("two browser profiles open the page", () =>
    Promise.all([person(`alice-${suffix}`, tld), person(`bob-${suffix}`, tld)]),
  );

  await step("both register a name and go online", async () => {
    await Promise.all([register(alice), register(bob)]);
    await shot(alice, "1-online");
  });

  await step("a name that nobody has gives the right error", async () => {
    await add(alice, `nobody-${suffix}.${tld}`);
    await alice.page.getByText("Nobody has registered this name.").waitFor();
    await add(alice, "no--body");
    await alice.page.getByText("A name has no two hyphens in a row.").waitFor();
    await shot(alice, "2-wrong-name");
  });

  await step("alice adds bob and sees him online", async () => {
    await add(alice, bob.name);
    await online(alice, bob.name);
  });

  await step("they chat both ways", async () => {
    await say(alice, bob.name, "Hello Bob, can you hear me?");
    await delivered(alice, "Hello Bob, can you hear me?");
    await bob.page.getByRole("button", { name: new RegExp(escape(alice.name)) }).click();
    await log(bob).getByText("Hello Bob, can you hear me?").waitFor();
    await bob.page.getByRole("button", { name: "Accept", exact: true }).click();
    await say(bob, alice.name, "Loud and clear.");
    await delivered(bob, "Loud and clear.");
    await log(alice).getByText("Loud and clear.").waitFor();
    await shot(bob, "3-chat");
  });

  await step("a file of 5 MiB arrives with the same hash", async () => {
    const bytes = randomBytes(FILE_BYTES);
    const expected = createHash("sha256").update(bytes).digest("hex");
    const { page } = alice;
    await page
      .getByLabel("File to send")
      .setInputFiles({ name: "honey.bin", mimeType: "application/octet-stream", buffer: bytes });
    await bob.page.getByRole("button", { name: "Accept file" }).click();
    const [seen, saved] = await Promise.all([
      page.getByTestId("sha256").textContent(),
      bob.page.getByTestId("sha256").textContent(),
    ]);
    assert.equal(seen, expected, "the sender's hash");
    assert.equal(saved, expected, "the receiver's hash");
    const [download] = await Promise.all([
      bob.page.waitForEvent("download"),
      bob.page.getByRole("link", { name: "Save" }).click(),
    ]);
    const received = await readFile(await download.path());
    assert.ok(received.equals(bytes), "the saved file is the sent one");
    await shot(alice, "4-file-sent");
    await shot(bob, "4-file-received");
  });

  await step(`the native node ${echo} answers a request`, async () => {
    await add(alice, echo);
    await online(alice, echo);
    await alice.page.getByLabel("Ask", { exact: true }).check();
    const question = `Is this ${suffix}?`;
    await alice.page.getByLabel(`Request to ${echo}`).fill(question);
    await alice.page.keyboard.press("Enter");
    await alice.page.getByTestId("answer").filter({ hasText: question }).waitFor();
    await shot(alice, "5-native-node");
  });

  await step("a reload brings the same identity and conversation back", async () => {
    const key = await keyOf(alice);
    await alice.page.reload();
    await alice.page.locator(ONLINE).waitFor();
    assert.equal(await alice.page.getByTestId("me").textContent(), alice.name);
    assert.equal(await keyOf(alice), key);
    await alice.page.getByRole("button", { name: new RegExp(escape(bob.name)) }).click();
    await log(alice).getByText("Loud and clear.").waitFor();
    await online(alice, bob.name);
    await say(alice, bob.name, "Back again.");
    await delivered(alice, "Back again.");
    await log(bob).getByText("Back again.").waitFor();
    await shot(alice, "6-after-reload");
  });

  for (const { name, errors } of people) assert.deepEqual(errors, [], `errors in the page of ${name}`);
}

async function person(label, tld) {
  const profile = await openProfile();
  const who = { ...profile, label, name: `${label}.${tld}`, errors: [] };
  people.push(who);
  who.page.setDefaultTimeout(30_000);
  who.page.on("pageerror", (error) => who.errors.push(error.message));
  await who.page.goto(url.href);
  return who;
}

async function register({ page, label, name }) {
  await page.getByLabel("Name", { exact: true }).fill(label);
  await page.getByText(`${name} is free.`).waitFor();
  await page.getByRole("button", { name: `Register ${name}` }).click();
  await page.getByTestId("me").filter({ hasText: name }).waitFor();
  await page.locator(ONLINE).waitFor();
}

async function add({ page }, name) {
  await page.getByLabel("Name of a contact").fill(name);
  await page.getByRole("button", { name: "Add", exact: true }).click();
}

async function online({ page }, name) {
  await page.locator(`[data-peer="${name}"][data-state="online"]`).waitFor();
}

async function say({ page }, name, text) {
  await page.getByLabel(`Message to ${name}`).fill(text);
  await page.keyboard.press("Enter");
}

async function delivered({ page }, text) {
  await page.locator('article[data-state="delivered"]', { hasText: text }).waitFor();
}

function log({ page }) {
  return page.getByRole("log");
}

async function keyOf({ page }) {
  return page.getByTestId("key").textContent();
}

async function shot({ page }, name) {
  await page.screenshot({ path: resolve(screenshots, `${name}.png`) });
}

/** Runs one step and says how long it took. */
async function step(what, work) {
  current = what;
  const start = Date.now();
  const result = await work();
  console.log(`ok  ${what} (${((Date.now() - start) / 1000).toFixed(1)} s)`);
  return result;
}

/** Closes the browsers and leaves; with pictures of how it looked if something went wrong. */
async function end(error) {
  clearTimeout(watchdog);
  if (error !== undefined) {
    console.error(`not ok  ${current}\n${error.stack ?? error}`);
    for (const [index, who] of people.entries()) {
      await shot(who, `failed-${index + 1}`).catch(() => {});
      if (who.errors.length > 0) console.error(`${who.name}: ${who.errors.join("; ")}`);
    }
  } else {
    console.log(`all of it happened, in ${((Date.now() - begun) / 1000).toFixed(1)} s; screenshots in ${screenshots}`);
  }
  const closed = Promise.allSettled(people.map((who) => who.close()));
  await Promise.race([closed, new Promise((done) => setTimeout(done, 5_000))]);
  process.exit(error === undefined ? 0 : 1);
}

function escape(text) {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}

function options() {
  const usage = "usage: node e2e/demo-check.mjs ADDRESS|READY-FILE [DIRECTORY] [--timeout SECONDS]";
  const fail = (why) => {
    console.error(`${why}\n${usage}`);
    process.exit(2);
  };
  let parsed;
  try {
    parsed = parseArgs({ allowPositionals: true, options: { timeout: { type: "string", default: "120" } } });
  } catch (error) {
    return fail(error.message);
  }
  const [where, directory, ...rest] = parsed.positionals;
  if (where === undefined || rest.length > 0) return fail("an address is needed, and at most a directory");
  const address = existsSync(where) ? JSON.parse(readFileSync(where, "utf8")).page : where;
  if (!URL.canParse(address) || !/^https?:/.test(address)) return fail(`${address} is neither an address nor a file`);
  const seconds = Number(parsed.values.timeout);
  if (!(seconds > 0)) return fail(`${parsed.values.timeout} is not a number of seconds`);
  const standard = fileURLToPath(new URL("../../target/demo", import.meta.url));
  return { url: new URL(address), screenshots: resolve(directory ?? standard), timeout: seconds };
}
