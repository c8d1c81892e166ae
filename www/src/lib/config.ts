/** What the serving node says about the network, read once and pinned at first use. */

import type { Registry } from "nectar/remote";

/** A router that can be listed in a record. */
export interface RouterOffer {
  name: string;
  url: string;
  /** Under which the contract enlisted it. */
  index: number;
}

export interface Config {
  version: number;
  registries: Registry[];
  routers: RouterOffer[];
  page?: { hash: string };
  /** Where a development chain gives accounts their first coins. */
  faucet?: string;
  /** A node that answers `echo.1`. */
  echo?: string;
}

export const CONFIG_PATH = "/.well-known/nectar.json";

/** Checks what came from the server; throws with the field that is wrong. */
export function parseConfig(json: unknown): Config {
  const root = object(json, "the document");
  const version = number(root["version"], "version");
  if (version !== 1) throw new Error(`version ${version} of the configuration is newer than this page`);
  const registries = array(root["registries"], "registries").map((entry, index) => {
    const at = `registries[${index}]`;
    const registry = object(entry, at);
    const contract = string(registry["contract"], `${at}.contract`);
    if (!/^0x[0-9a-fA-F]{40}$/.test(contract)) throw new Error(`${at}.contract is not an address`);
    const rpcs = array(registry["rpcs"], `${at}.rpcs`).map((rpc, i) => url(rpc, `${at}.rpcs[${i}]`, ["http:", "https:"]));
    if (rpcs.length === 0) throw new Error(`${at}.rpcs is empty`);
    return {
      tld: string(registry["tld"], `${at}.tld`),
      chainId: number(registry["chainId"], `${at}.chainId`),
      contract: contract.toLowerCase(),
      rpcs,
      ...(registry["quorum"] == null ? {} : { quorum: number(registry["quorum"], `${at}.quorum`) }),
    };
  });
  if (registries.length === 0) throw new Error("registries is empty");
  const routers = array(root["routers"] ?? [], "routers").map((entry, index) => {
    const at = `routers[${index}]`;
    const router = object(entry, at);
    return {
      name: string(router["name"], `${at}.name`),
      url: url(router["url"], `${at}.url`, ["ws:", "wss:"]),
      index: number(router["index"], `${at}.index`),
    };
  });
  const config: Config = { version, registries, routers };
  if (root["page"] != null) config.page = { hash: string(object(root["page"], "page")["hash"], "page.hash") };
  if (root["faucet"] != null) config.faucet = string(root["faucet"], "faucet");
  if (root["echo"] != null) config.echo = string(root["echo"], "echo");
  return config;
}

/** What decides who owns which name, in a form that two visits can compare. */
export function trustAnchor(config: Config): string {
  return JSON.stringify(
    config.registries.map(({ tld, chainId, contract, rpcs, quorum }) => [tld, chainId, contract, rpcs, quorum ?? null]),
  );
}

/** Fetches the document of the node that served this page. */
export async function fetchConfig(fetcher: typeof fetch = fetch): Promise<Config> {
  let response: Response;
  try {
    response = await fetcher(CONFIG_PATH, { cache: "no-cache" });
  } catch {
    throw new Error("The node that serves this page does not answer. Is it still running? Then reload.");
  }
  if (!response.ok) throw new Error(`The node that serves this page has no configuration (${CONFIG_PATH}: ${response.status}).`);
  try {
    return parseConfig(await response.json());
  } catch (error) {
    throw new Error(`The configuration at ${CONFIG_PATH} is wrong: ${error instanceof Error ? error.message : error}.`);
  }
}

function object(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Error(`${what} is not an object`);
  return value as Record<string, unknown>;
}

function array(value: unknown, what: string): unknown[] {
  if (!Array.isArray(value)) throw new Error(`${what} is not a list`);
  return value;
}

function string(value: unknown, what: string): string {
  if (typeof value !== "string" || value === "") throw new Error(`${what} is not a text`);
  return value;
}

function number(value: unknown, what: string): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) throw new Error(`${what} is not a number`);
  return value;
}

function url(value: unknown, what: string, protocols: string[]): string {
  const text = string(value, what);
  if (!URL.canParse(text) || !protocols.includes(new URL(text).protocol)) {
    throw new Error(`${what} is not an address with ${protocols.join(" or ")}`);
  }
  return text;
}
