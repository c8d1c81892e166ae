/** How long we have been offline. */

/** Shorter absences are nobody's business. */
export const PATIENCE_MS = 10_000;
/** While it lasts, the reason is looked for again this often. */
export const AGAIN_MS = 15_000;

/** Tells when being offline has lasted for {@link PATIENCE_MS}, and again every {@link AGAIN_MS} until it is over. */
export class Absence {
  #timer: ReturnType<typeof setTimeout> | undefined;
  #lasts: () => void;

  constructor(lasts: () => void) {
    this.#lasts = lasts;
  }

  begin(): void {
    if (this.#timer === undefined) this.#wait(PATIENCE_MS);
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #wait(ms: number): void {
    this.#timer = setTimeout(() => {
      this.#wait(AGAIN_MS);
      this.#lasts();
    }, ms);
  }
}
