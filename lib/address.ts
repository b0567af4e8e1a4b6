import { isIPv4 } from 'node:net'

export interface Address { host: string, port: number }

/** `host:port` as a URL has it: an IPv6 address is in brackets. */
export function formatAddress ({ host, port }: Address): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`
}

/** A host name without the dot at its end, which marks it as absolute in DNS and names the same host. */
export function withoutDot (host: string): string {
  return host.replace(/\.$/, '')
}

/** Whether a host can be reached from this machine only. Names other than `localhost` are not resolved. */
export function isLoopback (hostname: string): boolean {
  const host = withoutDot(hostname).toLowerCase()
  return host === 'localhost' || host === '::1' || host === '[::1]' || (isIPv4(host) && host.startsWith('127.'))
}

/** Whether nobody in between can read what is sent to a URL: it is https, or http that does not leave this machine. */
export function isConfidential (url: string): boolean {
  const parsed = URL.parse(url)
  return parsed?.protocol === 'https:' || (parsed?.protocol === 'http:' && isLoopback(parsed.hostname))
}
