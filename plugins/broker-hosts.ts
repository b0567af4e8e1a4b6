/** Which hosts of the snapshot the service connects to: a writer of the snapshot must not choose any target. */
import { lookup as resolve } from 'node:dns'
import { isIP, type LookupFunction } from 'node:net'
import ip from 'ipaddr.js'
import { HostRefusedError } from '../errors.ts'
import { matcher } from '../kafscale/glob.ts'

/** Ranges that no broker of another machine has, and those whose addresses contain an IPv4 address. */
const SPECIAL_RANGES = new Set([
  'unspecified', 'loopback', 'linkLocal', 'multicast', 'broadcast', 'rfc6052', 'rfc6145', '6to4', 'teredo',
])
/** Deprecated, and another form of an IPv4 address. */
const IPV4_COMPATIBLE = ip.parseCIDR('::/96')
/** Cloud metadata services that are not link-local: AWS over IPv6, Alibaba Cloud, Azure, Oracle Cloud. */
const METADATA_SERVICES = new Set(['fd00:ec2::254', '100.100.100.200', '168.63.129.16', '192.0.0.192'])

const MAX_NAME_LENGTH = 253
const LABEL = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/i
/** What resolvers and URLs take for an IPv4 address in another spelling, such as `2852039166` or `169.254.0xa9fe`. */
const NUMBER = /^(?:[0-9]+|0x[0-9a-f]*)$/i

/** Whether a text is a host name, or an IP address in its usual spelling. */
export function isHost (text: string): boolean {
  if (isIP(text) !== 0) return !text.includes('%')
  const labels = text.replace(/\.$/, '').split('.')
  return text.length <= MAX_NAME_LENGTH && labels.every(label => LABEL.test(label)) && !NUMBER.test(labels.at(-1) ?? '')
}

export interface BrokerHosts {
  /** @throws {HostRefusedError} if the host is an IP address that is not allowed; a name is checked by `lookup` */
  check: (host: string) => void
  /** Resolves a name to its allowed addresses, which are those that are connected to. */
  lookup: LookupFunction
}

/**
 * Refuses loopback, link-local, multicast and other special addresses.
 * @param allowed exceptions: names as globs, addresses as globs or CIDR ranges
 */
export function brokerHosts (allowed: readonly string[] = []): BrokerHosts {
  const exceptions = allowed.map(exception)
  const permits = (host: string, text: string): boolean => {
    const address = ip.process(text)
    return !isSpecial(address) || exceptions.some(matches => matches(host.toLowerCase().replace(/\.$/, ''), address))
  }
  return {
    check (host) {
      if (isIP(host) !== 0 && !permits(host, host)) throw new HostRefusedError()
    },
    lookup (host, options, callback) {
      resolve(host, { ...options, all: true }, (error, found) => {
        if (error) return callback(error, '')
        const addresses = found.filter(({ address }) => permits(host, address))
        const [first] = addresses
        if (!first) callback(new HostRefusedError(), '')
        else if (options.all) callback(null, addresses)
        else callback(null, first.address, first.family)
      })
    },
  }
}

type Address = ReturnType<typeof ip.process>

function isSpecial (address: Address): boolean {
  return SPECIAL_RANGES.has(address.range()) || METADATA_SERVICES.has(address.toString()) ||
    (address.kind() === 'ipv6' && address.match(IPV4_COMPATIBLE))
}

/** A glob without a name in it is for addresses only: `127.*` must not match the name `127.attacker.example`. */
function exception (text: string): (host: string, address: Address) => boolean {
  if (text.includes('/') || isIP(text) !== 0) {
    const [base, bits] = ip.parseCIDR(text.includes('/') ? text : `${text}/${isIP(text) === 4 ? 32 : 128}`)
    return (_, address) => address.kind() === base.kind() && address.match(base, bits)
  }
  const matches = matcher(text)
  return /:|^[\d.*?]+$/.test(text) ? (_, address) => matches(address.toString()) : host => matches(host)
}
