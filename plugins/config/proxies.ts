import { isIP } from 'node:net'
import ip from 'ipaddr.js'
import { isLoopback, withoutDot } from '../../lib/address.ts'
import { Secret } from './secret.ts'

type Environment = Readonly<Record<string, string | undefined>>

/** The proxies of the environment for requests to other services. Their URLs can contain credentials. */
export interface Proxies {
  /** For `http:` and `https:` URLs. */
  readonly http: Secret | undefined
  readonly https: Secret | undefined
  /** Whether a URL is requested without a proxy: `NO_PROXY`, and everything on this machine. */
  readonly bypasses: (url: URL) => boolean
}

/**
 * Reads `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, in upper or lower case, as most programs do.
 * @returns undefined without a proxy, and the mistakes
 */
export function proxiesOf (env: Environment): { proxies: Proxies | undefined, mistakes: string[] } {
  const mistakes: string[] = []
  const proxy = (name: string): Secret | undefined => {
    const [variable = name, text] = valueOf(env, name)
    if (text === undefined) return undefined
    const url = URL.parse(text.includes('://') ? text : `http://${text}`)
    if (url && /^https?:$/.test(url.protocol) && url.pathname === '/') return new Secret(url.href)
    mistakes.push(`${variable} is not valid: expected the URL of a proxy, such as http://proxy.example:3128`)
    return undefined
  }
  const http = proxy('http_proxy')
  const https = proxy('https_proxy')
  const rules = (valueOf(env, 'no_proxy')[1] ?? '').split(/[\s,]+/).filter(text => text !== '').map(ruleOf)
  const bypasses = (url: URL): boolean => {
    const host = withoutDot(url.hostname.replace(/^\[|\]$/g, ''))
    const port = Number(url.port) || (url.protocol === 'https:' ? 443 : 80)
    return isLoopback(host) || rules.some(matches => matches(host, port))
  }
  return { proxies: http || https ? { http, https, bypasses } : undefined, mistakes }
}

/** A variable in lower case, which has precedence, or in upper case. */
function valueOf (env: Environment, name: string): [variable: string, value: string] | [] {
  for (const variable of [name, name.toUpperCase()]) {
    const value = env[variable]?.trim()
    if (value) return [variable, value]
  }
  return []
}

/** A host and its subdomains, with or without a port; an address, or a range of addresses; `*` for everything. */
function ruleOf (text: string): (host: string, port: number) => boolean {
  if (text === '*') return () => true
  const [, bracketed, plain = '', onlyPort] = /^(?:\[([^\]]*)\]|([^:]*|.*:.*:.*))(?::(\d+))?$/.exec(text) ?? []
  const name = bracketed ?? plain
  const isPort = (port: number) => onlyPort === undefined || Number(onlyPort) === port
  const range = rangeOf(name)
  if (range) {
    return (host, port) => {
      if (isIP(host) === 0 || !isPort(port)) return false
      const address = ip.process(host)
      return address.kind() === range[0].kind() && address.match(range)
    }
  }
  const suffix = withoutDot(name.toLowerCase().replace(/^\*?\.?/, ''))
  return (host, port) => isPort(port) && suffix !== '' && (host === suffix || host.endsWith(`.${suffix}`))
}

function rangeOf (text: string): ReturnType<typeof ip.parseCIDR> | undefined {
  const [address = '', bits] = text.split('/')
  const version = isIP(address)
  if (version === 0) return undefined
  const cidr = `${address}/${bits ?? (version === 4 ? 32 : 128)}`
  return ip.isValidCIDR(cidr) ? ip.parseCIDR(cidr) : undefined
}
