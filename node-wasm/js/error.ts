import { codes, type CodeName, type Fault, type Retry } from "./codes.ts";
import type { ErrorShape } from "./types.ts";

const byNumber = new Map<number, CodeName>(
  (Object.keys(codes) as CodeName[]).map((name) => [codes[name].code, name]),
);

/** What went wrong: a code of the error table, its name, and a sentence for people. */
export class NodeError extends Error {
  readonly code: number;
  override readonly name: string;
  /** When to try again, if the other side said so. */
  readonly retryAfterMs?: number;
  /** The message is the peer's own words: shown to a person, they must not pass for ours. */
  readonly said?: true;

  constructor(shape: ErrorShape) {
    super(shape.message);
    this.code = shape.code;
    this.name = shape.name;
    if (shape.retryAfterMs != null) this.retryAfterMs = shape.retryAfterMs;
    if (shape.said) this.said = true;
  }

  /** An error of the table. */
  static of(name: CodeName, message: string = codes[name].meaning): NodeError {
    return new NodeError({ code: codes[name].code, name, message });
  }

  /** An error of a peer, by its number; numbers of newer tables keep their message. */
  static ofNumber(code: number, message?: string): NodeError {
    const name = byNumber.get(code);
    const meaning = name === undefined ? `error ${code}` : codes[name].meaning;
    const known = { code, name: name ?? `code_${code}` };
    return new NodeError(message ? { ...known, message, said: true } : { ...known, message: meaning });
  }

  /** Whatever was thrown, as a `NodeError`: the table's if it carries a code, `handler_failed` otherwise. */
  static from(thrown: unknown): NodeError {
    if (thrown instanceof NodeError) return thrown;
    if (isShape(thrown)) return new NodeError(thrown);
    if (thrown instanceof DOMException && thrown.name === "AbortError") return NodeError.of("cancelled");
    return NodeError.of("handler_failed", thrown instanceof Error ? thrown.message : String(thrown));
  }

  get fault(): Fault | undefined {
    return this.row?.fault;
  }

  get retry(): Retry | undefined {
    return this.row?.retry;
  }

  is(name: CodeName): boolean {
    return this.code === codes[name].code;
  }

  toShape(): ErrorShape {
    return {
      code: this.code,
      name: this.name,
      message: this.message,
      ...(this.retryAfterMs === undefined ? {} : { retryAfterMs: this.retryAfterMs }),
      ...(this.said && { said: true }),
    };
  }

  private get row() {
    const name = byNumber.get(this.code);
    return name === undefined ? undefined : codes[name];
  }
}

function isShape(thrown: unknown): thrown is ErrorShape {
  if (typeof thrown !== "object" || thrown === null) return false;
  const { code, name, message } = thrown as Partial<ErrorShape>;
  return typeof code === "number" && typeof name === "string" && typeof message === "string";
}
