import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

const wrapper = here("../node-wasm/js");
const wasm = here("../node-wasm/pkg/node_wasm.js");

export default defineConfig(() => {
  return {
    plugins: [svelte(), wasmIsThere(), workerInDevelopment()],
    resolve: {
      alias: [
        { find: /^nectar\/(.*)$/, replacement: `${wrapper}/$1.ts` },
        { find: /^nectar$/, replacement: `${wrapper}/index.ts` },
        { find: /^nectar-wasm$/, replacement: wasm },
      ],
    },
    define: { __NECTAR_BUILD__: JSON.stringify(buildId()) },
    server: { fs: { allow: [here("..")] } },
    build: {
      target: "es2022",
      outDir: "dist",
      // A worker has no document to preload into.
      modulePreload: false,
      assetsInlineLimit: 0,
      rolldownOptions: {
        input: { index: here("index.html"), worker: join(wrapper, "worker.ts") },
        output: {
          // A SharedWorker is found by its address: with a hash in it, a deploy would run two nodes of one name.
          entryFileNames: (chunk) => (chunk.name === "worker" ? "worker.js" : "assets/[name]-[hash].js"),
          chunkFileNames: "assets/[name]-[hash].js",
          assetFileNames: "assets/[name]-[hash][extname]",
        },
      },
    },
    test: { include: ["test/**/*.test.ts"], environment: "node" },
  };
});

/** Tells builds apart: a hash over everything that goes into one. */
function buildId(): string {
  const hash = createHash("sha256");
  for (const root of ["src", "index.html", "package-lock.json", "../node-wasm/js", "../node-wasm/pkg"]) {
    for (const file of files(here(root))) hash.update(relative(here(".."), file)).update(readFileSync(file));
  }
  return hash.digest("hex").slice(0, 16);
}

function files(path: string): string[] {
  if (!existsSync(path)) return [];
  if (!statSync(path).isDirectory()) return [path];
  return readdirSync(path)
    .sort()
    .flatMap((name) => files(join(path, name)));
}

/** A missing module is the first thing that a newcomer meets: say how to make it. */
function wasmIsThere(): Plugin {
  return {
    name: "nectar-wasm-is-there",
    enforce: "pre",
    resolveId(id) {
      if (id === wasm && !existsSync(wasm)) this.error("node-wasm/pkg is missing: run `cargo xtask wasm` first");
    },
  };
}

/** The development server has the worker under its source's address only. */
function workerInDevelopment(): Plugin {
  return {
    name: "nectar-worker",
    configureServer(server) {
      server.middlewares.use((request, _response, next) => {
        if (request.url === "/worker.js") request.url = `/@fs${join(wrapper, "worker.ts")}`;
        next();
      });
    },
  };
}
