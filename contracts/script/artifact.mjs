#!/usr/bin/env node
// Keeps artifacts/NectarRegistry.json, what everyone else builds against, equal to the fresh build in out/.
// `--check` compares only.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";

const built = new URL("../out/NectarRegistry.sol/NectarRegistry.json", import.meta.url);
const kept = new URL("../artifacts/NectarRegistry.json", import.meta.url);

const { abi, bytecode } = JSON.parse(readFileSync(built, "utf8"));
const lines = abi.map((entry) => `    ${JSON.stringify(entry)}`).join(",\n");
const fresh = `{\n  "abi": [\n${lines}\n  ],\n  "bytecode": "${bytecode.object}"\n}\n`;

if (process.argv.includes("--check")) {
  if (readFileSync(kept, "utf8") !== fresh) {
    console.error("artifacts/NectarRegistry.json is not the build of these sources: run `npm run artifact`");
    process.exit(1);
  }
  console.log("artifact: equal to the fresh build");
} else {
  mkdirSync(new URL(".", kept), { recursive: true });
  writeFileSync(kept, fresh);
}
