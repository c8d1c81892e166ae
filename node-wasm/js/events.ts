import type { NodeEvent, Undo } from "./types.ts";

/** Most events that wait for a reader; beyond it the oldest go. */
const WAITING = 1024;

/** Turns callbacks into an iterator that never blocks their source. */
export class EventQueue implements AsyncIterableIterator<NodeEvent> {
  #waiting: NodeEvent[] = [];
  #reader: ((result: IteratorResult<NodeEvent>) => void) | undefined;
  #undo: Undo;
  #done = false;

  constructor(subscribe: (push: (event: NodeEvent) => void) => Undo) {
    this.#undo = subscribe((event) => this.#push(event));
  }

  next(): Promise<IteratorResult<NodeEvent>> {
    if (this.#done) return Promise.resolve({ done: true, value: undefined });
    const event = this.#waiting.shift();
    if (event !== undefined) return Promise.resolve({ done: false, value: event });
    return new Promise((resolve) => (this.#reader = resolve));
  }

  return(): Promise<IteratorResult<NodeEvent>> {
    this.#done = true;
    this.#undo();
    this.#reader?.({ done: true, value: undefined });
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #push(event: NodeEvent): void {
    const reader = this.#reader;
    if (reader !== undefined) {
      this.#reader = undefined;
      reader({ done: false, value: event });
      return;
    }
    if (this.#waiting.length === WAITING) this.#waiting.shift();
    this.#waiting.push(event);
  }
}
