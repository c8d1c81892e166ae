/** Whether a page's host is this machine or in a private network, as a browser writes it in `location.hostname`.
 *
 * Browsers write IPv4 addresses as dotted quads and IPv6 addresses in brackets, lower case and shortest form; whatever else
 * looks like one is a DNS name, which anybody can register. */
export function isPrivate(host: string): boolean {
  if (host === "localhost" || host.endsWith(".localhost")) return true;
  if (/^\d+\.\d+\.\d+\.\d+$/.test(host)) return /^(127\.|10\.|192\.168\.|172\.(1[6-9]|2\d|3[01])\.)/.test(host);
  // Loopback, unique local (fc00::/7), link-local (fe80::/10).
  return /^\[(::1|f[cd][0-9a-f]{2}:.*|fe[89ab][0-9a-f]:.*)\]$/.test(host);
}
