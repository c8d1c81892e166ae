/** Names as the core and the contract check them (node-core/src/name.rs). */

export const LABEL_MIN = 3;
export const LABEL_MAX = 63;

/** Which rule a label breaks, in words; undefined when it obeys all. */
export function brokenRule(label: string): string | undefined {
  const bytes = new TextEncoder().encode(label).length;
  if (bytes < LABEL_MIN) return `a name needs at least ${LABEL_MIN} characters`;
  if (bytes > LABEL_MAX) return `a name has at most ${LABEL_MAX} characters`;
  const bad = [...label].find((character) => !/^[a-z0-9-]$/.test(character));
  if (bad !== undefined) return `'${bad}' is not allowed: a name consists of a-z, 0-9 and hyphens`;
  if (label.startsWith("-") || label.endsWith("-")) return "a name neither begins nor ends with a hyphen";
  if (label.includes("--")) return "a name has no two hyphens in a row";
  return undefined;
}

/** Splits `label.tld`; a label alone gets the only ending there is. */
export function parseName(text: string, tlds: string[]): { label: string; tld: string } | { wrong: string } {
  const trimmed = text.trim();
  const dot = trimmed.indexOf(".");
  const label = dot < 0 ? trimmed : trimmed.slice(0, dot);
  const tld = dot < 0 ? (tlds.length === 1 ? tlds[0] : undefined) : trimmed.slice(dot + 1);
  if (tld === undefined) return { wrong: `say which ending: ${tlds.map((each) => `.${each}`).join(" or ")}` };
  if (!tlds.includes(tld)) {
    return { wrong: `names here end in ${tlds.map((each) => `.${each}`).join(" or ")}, not .${tld}` };
  }
  const wrong = brokenRule(label);
  if (wrong !== undefined) return { wrong };
  return { label, tld };
}
