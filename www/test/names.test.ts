import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { brokenRule, LABEL_MAX, LABEL_MIN, parseName } from "../src/lib/names.ts";

const core = readFileSync(new URL("../../node-core/src/name.rs", import.meta.url), "utf8");

/** What the core says about a broken rule, from the source of its error type. */
const said = new Map(
  [...core.matchAll(/#\[error\("([^"\n]*)".*\)\]\s*\n\s*(\w+)/g)].map((match) => [match[2] ?? "", match[1] ?? ""]),
);

test("the lengths are the core's", () => {
  expect(core).toContain(`pub const LABEL_MIN: usize = ${LABEL_MIN};`);
  expect(core).toContain(`pub const LABEL_MAX: usize = ${LABEL_MAX};`);
});

test("every label of the core's table breaks the same rule here, in the same words", () => {
  const cases = [...core.matchAll(/\("([^"]*)", NameError::(\w+)(?:\('(.)'\))?\)/gu)];
  expect(cases.length).toBeGreaterThan(6);
  for (const [, text = "", error = "", character = ""] of cases) {
    const words = said.get(error)?.replace("{}", `'${character}'`);
    expect(words, error).toBeDefined();
    expect(brokenRule(text), text).toBe(words);
  }
});

test("labels at the edges of the rules are accepted", () => {
  for (const text of ["abc", "a-b", "0xa", "a".repeat(63)]) expect(brokenRule(text), text).toBeUndefined();
  expect(brokenRule("a".repeat(64))).toBe(said.get("TooLong"));
});

test("lengths are counted in bytes, as the core does", () => {
  expect(brokenRule("аb")).toBe(said.get("BadCharacter")?.replace("{}", "'а'"));
  expect(brokenRule("é")).toBe(said.get("TooShort"));
});

test("a label alone gets the only ending there is", () => {
  expect(parseName(" alice ", ["nectar"])).toEqual({ label: "alice", tld: "nectar" });
  expect(parseName("alice.nectar", ["nectar", "os"])).toEqual({ label: "alice", tld: "nectar" });
  expect(parseName("alice", ["nectar", "os"])).toHaveProperty("wrong");
});

test("an ending that is not served is said first: the rules of another one are not ours", () => {
  for (const text of ["alice.eth", "a.eth", "Al_ice.eth"]) {
    expect(parseName(text, ["nectar"]), text).toEqual({ wrong: "names here end in .nectar, not .eth" });
  }
  expect(parseName("a.nectar", ["nectar"])).toEqual({ wrong: said.get("TooShort") });
});
