#!/usr/bin/env node
// Deploys a registry from the checked-in artifact:
//
//   NECTAR_DEPLOYER_KEY=0x… node script/deploy.mjs --rpc URL [--min-age 60] [--max-age 86400] [--fee WEI --treasury ADDRESS]
//
// Without a key the first account of the node sends, as development chains offer. Prints the address.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { ContractFactory, JsonRpcProvider, Wallet, ZeroAddress } from "ethers";

/** Deploys and waits for the receipt. Ages in seconds, fee in wei. */
export async function deploy(signer, { minAge, maxAge, fee, treasury }) {
  const artifact = new URL("../artifacts/NectarRegistry.json", import.meta.url);
  const { abi, bytecode } = JSON.parse(readFileSync(artifact, "utf8"));
  const registry = await new ContractFactory(abi, bytecode, signer).deploy(minAge, maxAge, fee, treasury);
  return registry.waitForDeployment();
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: {
      rpc: { type: "string" },
      "min-age": { type: "string", default: "60" },
      "max-age": { type: "string", default: "86400" },
      fee: { type: "string", default: "0" },
      treasury: { type: "string", default: ZeroAddress },
    },
  });
  if (!values.rpc) throw new Error("--rpc URL is missing");
  const provider = new JsonRpcProvider(values.rpc);
  const key = process.env.NECTAR_DEPLOYER_KEY;
  const signer = key ? new Wallet(key, provider) : await provider.getSigner(0);
  const registry = await deploy(signer, {
    minAge: BigInt(values["min-age"]),
    maxAge: BigInt(values["max-age"]),
    fee: BigInt(values.fee),
    treasury: values.treasury,
  });
  console.log(await registry.getAddress());
  provider.destroy();
}
