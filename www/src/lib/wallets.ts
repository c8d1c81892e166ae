/** Wallets of this browser (EIP-6963, with the older `window.ethereum` behind it). */

import type { Eip1193 } from "./chain.ts";

export interface FoundWallet {
  /** Reverse domain name: the same for every visit. */
  rdns: string;
  name: string;
  /** A `data:` address of the wallet's picture; empty when it has none that may be shown. */
  icon: string;
  provider: Eip1193;
}

/** Calls `found` with the wallets known so far, whenever one announces itself. Returns how to stop. */
export function discoverWallets(found: (wallets: FoundWallet[]) => void, scope: Window = window): () => void {
  const wallets = new Map<string, FoundWallet>();
  const announce = (event: Event) => {
    const wallet = announced((event as CustomEvent<unknown>).detail);
    if (wallet === undefined) return;
    wallets.set(wallet.rdns, wallet);
    wallets.delete("injected");
    found([...wallets.values()]);
  };
  scope.addEventListener("eip6963:announceProvider", announce);
  scope.dispatchEvent(new Event("eip6963:requestProvider"));
  const injected = (scope as { ethereum?: unknown }).ethereum;
  if (wallets.size === 0 && isProvider(injected)) {
    wallets.set("injected", { rdns: "injected", name: "Browser wallet", icon: "", provider: injected });
    found([...wallets.values()]);
  }
  return () => scope.removeEventListener("eip6963:announceProvider", announce);
}

function announced(detail: unknown): FoundWallet | undefined {
  if (typeof detail !== "object" || detail === null) return undefined;
  const { info, provider } = detail as { info?: Record<string, unknown>; provider?: unknown };
  if (!isProvider(provider) || typeof info?.["rdns"] !== "string" || typeof info["name"] !== "string") return undefined;
  const icon = info["icon"];
  // Anything but data would make the page connect to strangers.
  const shown = typeof icon === "string" && icon.startsWith("data:image/") ? icon : "";
  return { rdns: info["rdns"], name: info["name"].slice(0, 40), icon: shown, provider };
}

function isProvider(value: unknown): value is Eip1193 {
  return typeof value === "object" && value !== null && typeof (value as { request?: unknown }).request === "function";
}
