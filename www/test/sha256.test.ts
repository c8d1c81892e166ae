import { expect, test } from "vitest";
import { Sha256 } from "../src/lib/sha256.ts";
import { hex } from "../src/lib/words.ts";

test("pieces of any size hash like the whole does in WebCrypto", async () => {
  let seed = 1;
  const random = (below: number) => (seed = (seed * 48271) % 2147483647) % below;
  for (const length of [0, 1, 55, 56, 57, 63, 64, 65, 119, 120, 128, 1000, 100_003]) {
    const bytes = Uint8Array.from({ length }, () => random(256));
    const hash = new Sha256();
    for (let at = 0; at < length; ) {
      const next = at + 1 + random(200);
      hash.update(bytes.subarray(at, next));
      at = next;
    }
    expect(hash.hex(), `${length} bytes`).toBe(hex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))));
  }
});
