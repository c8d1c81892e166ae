#!/usr/bin/env node
// Gives solcjs the two faces of solc that forge needs: `--version`, and standard JSON from stdin to stdout.
import { readFileSync } from "node:fs";
import solc from "solc";

if (process.argv.includes("--version")) console.log(`solc, the solidity compiler\nVersion: ${solc.version()}`);
else process.stdout.write(solc.compile(readFileSync(0, "utf8")));
