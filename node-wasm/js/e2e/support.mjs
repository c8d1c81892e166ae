/** What runs of Chromium without the page have in common. */

import { copyFile, mkdir, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

export const root = fileURLToPath(new URL("../../../", import.meta.url));
const page = createRequire(join(root, "www/package.json"));

export function launch() {
  const { chromium } = page("playwright-core");
  return chromium.launch({ executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
}

/** Resolves when a page of the bundle can be used. */
export function ready(tab) {
  return tab.waitForFunction(() => globalThis.client !== undefined);
}

/** Makes a directory with the wrapper as one file, the module beside it, and a page that loads them. */
export async function bundle(target) {
  const { rolldown } = await import(pathToFileURL(page.resolve("rolldown")).href);
  await mkdir(target);
  const source = join(target, "client.ts");
  await writeFile(
    source,
    `export { generateKey, Node } from ${JSON.stringify(join(root, "node-wasm/js/index.ts"))};
     export const utf8 = (text) => new TextEncoder().encode(text);
     export const text = (bytes) => new TextDecoder().decode(bytes);
     export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
     export const sha256 = async (parts) => hex(new Uint8Array(await crypto.subtle.digest("SHA-256", await new Blob(parts).arrayBuffer())));
     export const thrown = async (work) => {
       try { await work(); } catch (error) { return { code: error.code, name: error.name, message: error.message }; }
     };`,
  );
  const built = await rolldown({
    input: source,
    resolve: { alias: { "nectar-wasm": join(root, "node-wasm/pkg/node_wasm.js") } },
  });
  await built.write({ file: join(target, "client.js"), format: "esm" });
  await built.close();
  await copyFile(join(root, "node-wasm/pkg/node_wasm_bg.wasm"), join(target, "node_wasm_bg.wasm"));
  await writeFile(join(target, "main.js"), 'import * as client from "./client.js"; globalThis.client = client;');
  await writeFile(join(target, "index.html"), '<!doctype html><meta charset="utf-8"><title>tab</title><link rel="icon" href="data:,"><script type="module" src="./main.js"></script>');
}
