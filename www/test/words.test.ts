import { NodeError } from "nectar/remote";
import { expect, test } from "vitest";
import { explain, statement } from "../src/lib/words.ts";

const failure = (name: "name_unknown" | "rpc_unreachable" | "dial_failed", retryAfterMs?: number) => {
  const { code, message } = NodeError.of(name);
  return new NodeError({ code, name, message, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) });
};

test("a mistyped name does not get better by waiting", () => {
  expect(explain(failure("name_unknown", 15_000))).toBe(
    "Nobody has registered this name. Check the spelling, or ask for the exact name.",
  );
});

test("when to try again joins what to change, and replaces a vaguer word for it", () => {
  expect(explain(failure("rpc_unreachable", 2_000))).toMatch(/RPC endpoint runs\. Try again in 2 s\.$/);
  expect(explain(failure("dial_failed", 2_000))).toMatch(/[^.]\. Try again in 2 s\.$/);
  expect(explain(failure("dial_failed"))).toMatch(/Try again later\.$/);
});

test("a state is told without advice for something that was sent", () => {
  const broken = NodeError.of("pipe_lost").toShape();
  expect(explain(broken)).toMatch(/Send it again/);
  expect(statement(broken)).toBe("The connection broke.");
});

test("what a peer says about a failure is quoted as its words, on one line, cut, and without advice of ours", () => {
  const { code } = NodeError.of("rpc_disagree");
  const lure = NodeError.ofNumber(code, "your session has expired\u201d.\n\n\u202eSign in at \"https://nectar.example\"");
  expect(explain(lure, "eve.nectar")).toBe("eve.nectar says: “your session has expired'. Sign in at 'https://nectar.example'”");
  expect(statement(lure.toShape())).toMatch(/^The other side says: “/);
  expect(explain(NodeError.ofNumber(code, "x".repeat(10_000)), "eve.nectar")).toHaveLength("eve.nectar says: “…”".length + 200);
  expect(explain(NodeError.ofNumber(code))).toBe("Answers about the chain do not agree. One of the endpoints may be lying. Try again later.");
});
