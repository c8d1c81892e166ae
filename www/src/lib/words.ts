/** Errors in words: what happened, and what to do. */

import { NodeError, type CodeName } from "nectar/remote";
import { ChainError } from "./chain.ts";

const REMEDIES: Partial<Record<CodeName, string>> = {
  going_away: "It reconnects by itself.",
  superseded: "Take over here if this is where you want to be online.",
  clock_skew: "Check that date and time of both devices are set automatically.",
  registry_unknown: "The other side does not know the registry of your name.",
  name_unknown: "Check the spelling, or ask for the exact name.",
  key_mismatch: "If the name's owner just changed its key, try again in a minute.",
  key_unconfirmed: "Try again in a few seconds.",
  wrong_name: "Another node answers at that address. Nothing was sent to it.",
  weak_key: "Nothing was sent. Tell the owner to register another key.",
  epoch_changed: "Confirm the contact if you know the new owner.",
  chain_unavailable: "Check your connection, or that the chain's RPC endpoint runs.",
  not_allowed: "Its owner decides who may reach it.",
  guest_refused: "Register a name first.",
  offline: "It may be closed at the moment. Try again when it is online.",
  timeout: "Try again.",
  pipe_lost: "Send it again if it still matters.",
  outcome_unknown: "It may have arrived: look before you send it again.",
  no_handler: "The other side does not offer this.",
  too_large: "Send it as a file.",
  stream_reset: "Send it again if you still want to.",
  queue_full: "Wait until some of it went out.",
  no_route: "Its owner must register a router or an address.",
  target_offline: "It may be closed at the moment. Try again when it is online.",
  hosting_refused: "Choose another router.",
  rpc_unreachable: "Check your connection, or that the chain's RPC endpoint runs.",
  rpc_stale: "The endpoint lags behind the chain. Try again later.",
  rpc_disagree: "One of the endpoints may be lying. Try again later.",
  wrong_chain: "The operator of this page must correct its configuration.",
  not_a_registry: "The operator of this page must correct its configuration.",
  tld_unknown: "Check what stands after the dot.",
  scheme_blocked: "Open this page over http on your own machine, or ask for a wss:// address.",
  dial_failed: "Try again later.",
};

/** Of what somebody else says about a failure, so many characters are shown. */
const SAID_MAX = 200;

/** One or two sentences for a person. `peer` is whoever may have said what went wrong. */
export function explain(thrown: unknown, peer?: string): string {
  if (thrown instanceof ChainError) return sentence(thrown.message);
  if (thrown instanceof DOMException && thrown.name === "QuotaExceededError") {
    return "The browser has no room left for this page. Free some, then try again.";
  }
  const error = NodeError.from(thrown);
  // No advice: it would make what the peer says look like ours.
  if (error.said) return said(error, peer);
  const remedy = REMEDIES[error.name as CodeName];
  const wait =
    error.retryAfterMs === undefined || error.retryAfterMs === 0
      ? undefined
      : `Try again in ${Math.max(1, Math.ceil(error.retryAfterMs / 1000))} s.`;
  // When to try again says less than what to change, and nothing to someone who mistyped a name.
  const general = remedy === undefined || /^Try again/.test(remedy);
  const advice = error.is("name_unknown") ? [remedy] : general ? [wait ?? remedy] : [remedy, wait];
  return [sentence(error.message), ...advice].filter(Boolean).join(" ");
}

/** What happened, without advice: where the state of things is shown, there is nothing that could be done again. */
export function statement(thrown: unknown): string {
  const error = NodeError.from(thrown);
  return error.said ? said(error) : sentence(error.message);
}

function said(error: NodeError, peer = "The other side"): string {
  return `${peer} says: ${quoted(error.message)}`;
}

/** Somebody else's words, in quotation marks that these cannot end, on one line. */
function quoted(text: string): string {
  const clean = text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, " ").replace(/["\u201c-\u201f]/g, "'").trim();
  return `“${clean.length > SAID_MAX ? `${cut(clean, SAID_MAX)}…` : clean}”`;
}

/** The beginning of a text: so many characters at most, and no half of one. */
export function cut(text: string, most: number): string {
  return text.slice(0, most).replace(/[\ud800-\udbff]$/, "");
}

/** Upper case at the beginning, a full stop at the end. */
export function sentence(text: string): string {
  const trimmed = text.trim();
  if (trimmed === "") return "Something went wrong.";
  // A sentence that begins with a name keeps it as it is written.
  const start = /^[a-z0-9-]+\.[a-z]/.test(trimmed) ? trimmed : trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?…]$/.test(start) ? start : `${start}.`;
}

/** 5 MiB, 12 KiB, 7 B. */
export function size(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : Number(value.toFixed(1))} ${units[unit]}`;
}

/** A key in groups that people can compare. */
export function fingerprint(key: string): string {
  return key.replace(/^0x/, "").slice(0, 16).match(/.{4}/g)?.join(" ") ?? "";
}

export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
