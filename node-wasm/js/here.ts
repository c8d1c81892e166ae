/// <reference path="./wasm.d.ts" />
import { Host } from "./host.ts";
import { generateKey, Node } from "./index.ts";

/** Runs the node in this page, where the browser has no SharedWorker. */
export function hostHere(build: string): Host {
  return new Host({ start: (options) => Node.start(options), generateKey }, { build, locks: navigator.locks });
}
