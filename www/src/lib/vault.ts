/** Seals what is kept under keys that no script can export. */

import type { Database } from "./db.ts";
import { hex } from "./words.ts";

/** Sealed bytes as they lie in the database. */
export interface Sealed {
  iv: Uint8Array<ArrayBuffer>;
  data: ArrayBuffer;
}

export class Vault {
  #key: CryptoKey;
  #blindKey: CryptoKey;

  private constructor(key: CryptoKey, blindKey: CryptoKey) {
    this.#key = key;
    this.#blindKey = blindKey;
  }

  /** Loads this origin's keys, or makes them at first use. */
  static async open(db: Database): Promise<Vault> {
    return new Vault(
      await keyOf(db, "seal", { name: "AES-GCM", length: 256 }, ["encrypt", "decrypt"]),
      await keyOf(db, "blind", { name: "HMAC", hash: "SHA-256" }, ["sign"]),
    );
  }

  /** An id for a text that tells nobody the text: always the same in this browser, unrelated in another. */
  async blind(text: string): Promise<string> {
    const mac = await crypto.subtle.sign("HMAC", this.#blindKey, bytes(text));
    return hex(new Uint8Array(mac, 0, 16));
  }

  /** @param place where the sealed value lies: moved elsewhere, it does not open. */
  async seal(value: unknown, place: string): Promise<Sealed> {
    const iv = crypto.getRandomValues(new Uint8Array(12));
    const plain = new TextEncoder().encode(JSON.stringify(value));
    return { iv, data: await crypto.subtle.encrypt({ name: "AES-GCM", iv, additionalData: bytes(place) }, this.#key, plain) };
  }

  async open<T>({ iv, data }: Sealed, place: string): Promise<T> {
    const plain = await crypto.subtle.decrypt({ name: "AES-GCM", iv, additionalData: bytes(place) }, this.#key, data);
    return JSON.parse(new TextDecoder().decode(plain)) as T;
  }
}

async function keyOf(
  db: Database,
  name: string,
  algorithm: AesKeyGenParams | HmacKeyGenParams,
  uses: KeyUsage[],
): Promise<CryptoKey> {
  const known = await db.get<CryptoKey>("keys", name);
  if (known !== undefined) return known;
  const made = await crypto.subtle.generateKey(algorithm, false, uses);
  // Two tabs may both find none; the first one to store its key wins.
  if (await db.add("keys", made, name)) return made;
  const other = await db.get<CryptoKey>("keys", name);
  if (other === undefined) throw new Error("the browser does not keep the key that seals conversations");
  return other;
}

function bytes(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}
