import { isIP } from 'node:net'

/**
 * The IP address of a client. Behind trusted proxies, it is the one that they report; if that is not an IP address, it
 * is the address of the proxy that reported it. The zone of an IPv6 address means nothing here, so it counts as none.
 */
export function clientAddress ({ ip, ips = [ip] }: { ip: string, ips?: string[] | undefined }): string {
  return ips.findLast(address => isIP(address) !== 0 && !address.includes('%')) ?? ips[0] ?? ip
}
