/** Builds the page with scripted peers in place of the wasm module, for the page's own tests only. */

import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build, loadConfigFromFile, mergeConfig } from "vite";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/** Resolves with the directory that holds the build. */
export async function buildFake() {
  const outDir = await mkdtemp(join(tmpdir(), "nectar-page-"));
  const loaded = await loadConfigFromFile({ command: "build", mode: "production" }, here("../vite.config.ts"));
  const config = mergeConfig(loaded.config, {
    root: here(".."),
    configFile: false,
    logLevel: "warn",
    resolve: { alias: [{ find: /^nectar-wasm$/, replacement: here("../test/fake-wasm.ts") }] },
    build: { outDir, emptyOutDir: true },
  });
  await build(config);
  return outDir;
}
