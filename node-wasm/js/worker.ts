/// <reference path="./wasm.d.ts" />
import { Host } from "./host.ts";
import { generateKey, Node } from "./index.ts";

/** The build of the page that this worker was made with. */
declare const __NECTAR_BUILD__: string;

const host = new Host(
  { start: (options) => Node.start(options), generateKey },
  { build: __NECTAR_BUILD__, locks: globalThis.navigator.locks },
);

// The scope of a SharedWorker; the page's type library does not know it.
globalThis.addEventListener("connect", (event) => {
  for (const port of (event as MessageEvent).ports) host.accept(port);
});
