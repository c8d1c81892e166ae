/** IndexedDB with promises, and nothing more. */

const STORES: Record<string, IDBObjectStoreParameters & { index?: [name: string, path: string[]] }> = {
  /** Single values by name: identity, drafts, pinned configuration. */
  values: {},
  /** Keys that cannot be exported. */
  keys: {},
  conversations: { keyPath: "id" },
  messages: { keyPath: ["conversation", "id"], index: ["order", ["conversation", "order"]] },
};

export type Store = "values" | "keys" | "conversations" | "messages";

export class Database {
  #idb: IDBDatabase;

  private constructor(idb: IDBDatabase) {
    this.#idb = idb;
    // Another tab upgrades: hold nothing up.
    idb.onversionchange = () => idb.close();
  }

  static async open(name = "nectar-page"): Promise<Database> {
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => {
      for (const [store, { index, ...parameters }] of Object.entries(STORES)) {
        const created = request.result.createObjectStore(store, parameters);
        if (index !== undefined) created.createIndex(...index);
      }
    };
    return new Database(await settled(request));
  }

  async get<T>(store: Store, key: IDBValidKey): Promise<T | undefined> {
    return settled<T | undefined>(this.#store(store, "readonly").get(key));
  }

  async keys(store: Store, range: IDBKeyRange): Promise<IDBValidKey[]> {
    return settled(this.#store(store, "readonly").getAllKeys(range));
  }

  async all<T>(store: Store): Promise<T[]> {
    return settled<T[]>(this.#store(store, "readonly").getAll());
  }

  /** The last `count` entries of an index range, oldest first. */
  async last<T>(store: Store, index: string, range: IDBKeyRange, count: number): Promise<T[]> {
    const request = this.#store(store, "readonly").index(index).openCursor(range, "prev");
    return new Promise((resolve, reject) => {
      const found: T[] = [];
      request.onerror = () => reject(request.error);
      request.onsuccess = () => {
        const cursor = request.result;
        if (cursor === null || found.length === count) return resolve(found.reverse());
        found.push(cursor.value as T);
        cursor.continue();
      };
    });
  }

  async put(store: Store, value: unknown, key?: IDBValidKey): Promise<void> {
    const target = this.#store(store, "readwrite");
    target.put(value, key);
    await committed(target.transaction);
  }

  /** Adds an entry; false when its key is taken. What the browser has no room for in the end is an error. */
  add(store: Store, value: unknown, key?: IDBValidKey): Promise<boolean> {
    return this.within([store], async (within) => {
      try {
        await settled(within(store).add(value, key));
        return true;
      } catch (error) {
        if (error instanceof DOMException && error.name === "ConstraintError") return false;
        throw error;
      }
    });
  }

  /** Does several things in one transaction, of which either all are kept or none; resolves when they are.
   *
   * `work` waits for nothing but requests of that transaction, which would end otherwise. */
  async within<T>(stores: Store[], work: (store: (name: Store) => IDBObjectStore) => Promise<T>): Promise<T> {
    const transaction = this.#idb.transaction(stores, "readwrite");
    const done = committed(transaction);
    // Whoever waits for `work` hears of it once.
    done.catch(() => {});
    try {
      const result = await work((name) => transaction.objectStore(name));
      await done;
      return result;
    } catch (error) {
      abort(transaction);
      throw error;
    }
  }

  async delete(store: Store, key: IDBValidKey | IDBKeyRange): Promise<void> {
    const target = this.#store(store, "readwrite");
    target.delete(key);
    await committed(target.transaction);
  }

  close(): void {
    this.#idb.close();
  }

  #store(store: Store, mode: IDBTransactionMode): IDBObjectStore {
    return this.#idb.transaction(store, mode).objectStore(store);
  }
}

/** What a request of a transaction comes to. */
export function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = (event) => {
      // The promise carries the error; the transaction must not throw it a second time.
      event.preventDefault();
      reject(request.error);
    };
  });
}

function abort(transaction: IDBTransaction): void {
  try {
    transaction.abort();
  } catch {
    // The browser did so already.
  }
}

function committed(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    // An error of a request that was dealt with aborts nothing.
    transaction.onabort = () => reject(transaction.error ?? new Error("the browser did not keep it"));
  });
}
