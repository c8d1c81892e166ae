import { expect, test } from "vitest";
import { isPrivate } from "../src/lib/hosts.ts";

/** As `location.hostname` has it. */
const host = (text: string) => new URL(`http://${text}/`).hostname;

test("this machine and private networks are private", () => {
  const hosts = ["localhost", "page.localhost", "127.0.0.1", "127.1", "0x7f.0.0.1", "10.1.2.3", "192.168.0.4", "172.16.0.1", "172.31.255.255"];
  const six = ["[::1]", "[0:0:0:0:0:0:0:1]", "[fc00::1]", "[fdFF::1]", "[fe80::1]", "[febf::1]"];
  for (const each of [...hosts, ...six]) expect(isPrivate(host(each)), each).toBe(true);
});

test("names that look like private addresses are not, nor are public addresses", () => {
  const names = ["10.nodes.example", "127.0.0.1.evil.example", "192.168.0.4.example", "172.16.example", "localhost.example", "xlocalhost"];
  const four = ["8.8.8.8", "172.15.0.1", "172.32.0.1", "192.169.0.1", "128.0.0.1"];
  const six = ["[2001:db8::1]", "[2606:4700::1111]", "[::2]", "[::]", "[fbff::1]", "[fe00::1]", "[fec0::1]", "[fc::1]", "[fe8::1]", "[::ffff:8.8.8.8]"];
  for (const each of [...names, ...four, ...six]) expect(isPrivate(host(each)), each).toBe(false);
});
