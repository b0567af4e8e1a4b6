/** Parsers of settings. Each throws an `Error` whose message says what was expected, to follow "expected ". */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { validateHeaderName, validateHeaderValue } from 'node:http'
import { isIP } from 'node:net'
import { type Address, isConfidential, withoutDot } from '../../lib/address.ts'
import { parseDuration } from '../../lib/duration.ts'
import { originOf, originsOfApp } from '../../lib/origin.ts'
import { Secret } from './secret.ts'

const MIN_TOKEN_LENGTH = 32
const SESSION_KEY_BYTES = 32
/** Leases of etcd have whole seconds. */
const MIN_LIFETIME_MS = 1_000
/** Headers of a request that depend on its body or its connection. */
const OWN_HEADERS: ReadonlySet<string> = new Set([
  'connection',
  'content-encoding',
  'content-length',
  'content-type',
  'expect',
  'transfer-encoding',
  'upgrade',
])

/** A destination of audit records. */
export type AuditSink =
  | { kind: 'stdout' }
  | { kind: 'none' }
  | { kind: 'file', path: string }
  | { kind: 'http', url: string }

export function parseList (text: string): string[] {
  const items = text.split(',').map(item => item.trim()).filter(item => item !== '')
  if (items.length === 0) throw new Error('at least one item')
  return items
}

export function listOf<T> (parse: (item: string) => T): (text: string) => T[] {
  return text => parseList(text).map(parse)
}

export function oneOf<T extends string> (...words: T[]): (text: string) => T {
  return text => {
    const word = words.find(word => word === text)
    if (word === undefined) throw new Error(`one of ${words.join(', ')}`)
    return word
  }
}

export function wholeNumber (least = 0, most?: number): (text: string) => number {
  const expected = most === undefined ? `a whole number, ${least} or more` : `a whole number from ${least} to ${most}`
  return text => {
    const number = /^[0-9]{1,9}$/.test(text) ? Number(text) : NaN
    if (!(number >= least && number <= (most ?? Infinity))) throw new Error(expected)
    return number
  }
}

/** Without a host, the address is `::`. */
export function parseAddress (text: string): Address {
  const [, v6, name, port] = /^(?:\[([0-9a-f:.%]+)\]|([^\s:[\]/]*)):([0-9]{1,5})$/i.exec(text) ?? []
  if (port === undefined || Number(port) > 65535) {
    throw new Error('host:port, :port or [v6]:port, with a port from 0 to 65535')
  }
  return { host: v6 ?? (name || '::'), port: Number(port) }
}

/** `off` is null. */
export function parseAddressOrOff (text: string): Address | null {
  if (text === 'off') return null
  try {
    return parseAddress(text)
  } catch (error) {
    throw new Error(`${(error as Error).message}, or off`)
  }
}

/** An origin with a port, 2379 unless the text has one. Without a scheme it is http. */
export function parseEndpoint (text: string): string {
  const url = parseUrl(
    text.includes('://') ? text : `http://${text}`,
    'endpoints such as http://etcd:2379 or https://etcd:2379'
  )
  if (url.pathname !== '/' || url.search !== '' || url.hash !== '') throw new Error('endpoints without a path')
  // `url.port` is empty when the port is the default of its scheme.
  const [, port = '2379'] = /:([0-9]+)\/?$/.exec(text) ?? []
  return `${url.protocol}//${url.hostname}:${port}`
}

/** A URL that may contain the placeholders `{host}` and `{node_id}`. */
export function parseMetricsUrl (text: string): string {
  const template = text === 'auto' ? 'http://{host}:9093/metrics' : text
  const example = template.replaceAll('{host}', 'host').replaceAll('{node_id}', '0')
  parseUrl(example, 'URLs such as http://{host}:9093/metrics, or auto')
  if (/[{}]/.test(example)) throw new Error('no placeholders other than {host} and {node_id}')
  return template
}

/** A host name as URLs spell it: in lower case, an IPv6 address in brackets. A dot at its end is dropped. */
export function parseHost (text: string): string {
  const hostname = /^(?:\[[^/@[\]]+\]|[^\s/:@*?#[\]]+)$/.test(text) ? URL.parse(`http://${text}`)?.hostname : undefined
  if (hostname === undefined) throw new Error('host names without scheme and port, IPv6 addresses in brackets')
  return withoutDot(hostname)
}

/** A glob of host names or addresses in lower case, or a range of addresses. */
export function parseHostPattern (text: string): string {
  if (text.includes('/')) return parseCidr(text)
  if (!/^[\w.*?:-]+$/.test(text)) {
    throw new Error('globs of host names or addresses such as *.local, or ranges such as 127.0.0.0/8')
  }
  return text.toLowerCase()
}

/** An origin in one spelling, or every origin of an app's scheme, as in `vscode-webview://*`. */
export function parseOrigin (text: string): string {
  const origin = text.includes('*') ? originsOfApp(text) : originOf(text)
  if (origin !== undefined) return origin
  if (text.includes('*')) {
    throw new Error(
      'each origin by itself: a wildcard matches nothing, except as the host of an app scheme, as in vscode-webview://*'
    )
  }
  const isLonger = originOf(text.replace(/(:\/\/[^/?#]*).*/s, '$1')) !== undefined
  throw new Error(
    isLonger
      ? 'origins: scheme, host and port only'
      : 'origins such as https://app.example or http://localhost:3000'
  )
}

/** A URL without a trailing slash. */
export function parsePublicUrl (text: string): string {
  const url = parseUrl(text, 'a URL such as https://kafscale-mcp.example')
  if (url.search !== '' || url.hash !== '') throw new Error('a URL without query or fragment')
  return url.href.replace(/\/$/, '')
}

/** An issuer, unchanged: tokens and the discovery document must name it exactly so. */
export function parseIssuer (text: string): string {
  parseUrl(text, 'issuers such as https://id.example')
  if (!isConfidential(text)) throw new Error('https URLs; http is accepted on loopback only')
  return text
}

/** The URL of an endpoint of an issuer, unchanged. Plain http requires another setting. */
export function parseEndpointUrl (text: string): string {
  const url = parseUrl(text, 'URLs such as https://keycloak.id.svc/realms/main/protocol/openid-connect/certs')
  if (url.hash !== '') throw new Error('URLs without a fragment')
  return text
}

/** One OAuth scope, in the characters of RFC 6749, section 3.3. */
export function parseScope (text: string): string {
  if (!/^[\x21\x23-\x5b\x5d-\x7e]+$/.test(text)) throw new Error('one scope: visible ASCII without " and \\')
  return text
}

/** Scopes as a client requests them, separated by spaces or commas. */
export function parseScopes (text: string): string[] {
  return parseList(text.replace(/\s+/g, ',')).map(parseScope)
}

/** A bearer token that a header can carry unchanged. */
export function parseToken (text: string): Secret {
  if (text.length < MIN_TOKEN_LENGTH || !/^[\x21-\x7e]+$/.test(text)) {
    throw new Error(`at least ${MIN_TOKEN_LENGTH} characters, all of them visible ASCII`)
  }
  return new Secret(text)
}

export function parseCidr (text: string): string {
  const [address = '', bits, ...more] = text.split('/')
  const most = isIP(address) === 4 ? 32 : isIP(address) === 6 ? 128 : -1
  if (most < 0 || more.length > 0 || (bits !== undefined && (!/^[0-9]{1,3}$/.test(bits) || Number(bits) > most))) {
    throw new Error('addresses or ranges such as 10.0.0.1 or 10.0.0.0/8')
  }
  return text
}

/** A broker as `host:port`, with an IPv6 address in brackets. */
export function parseBroker (text: string): string {
  const [, port] = /^(?:\[[0-9a-f:.]+\]|[\w.-]+):([0-9]{1,5})$/i.exec(text) ?? []
  if (port === undefined || Number(port) < 1 || Number(port) > 65535) {
    throw new Error('brokers such as kafscale-broker-0.kafscale.svc:9092, each with its port')
  }
  return text
}

/** A Kafka client ID, which KafScale's ACLs compare with their principals. */
export function parseClientId (text: string): string {
  if (!/^[\x21-\x7e]{1,255}$/.test(text)) throw new Error('1 to 255 visible ASCII characters')
  return text
}

/** `host:port` that may contain the placeholders `{host}` and `{node_id}`. */
export function parseControlAddress (text: string): string {
  const example = text.replaceAll('{host}', 'host').replaceAll('{node_id}', '0')
  if (/[{}]/.test(example)) throw new Error('no placeholders other than {host} and {node_id}')
  try {
    parseBroker(example)
    return text
  } catch {
    throw new Error('an address such as {host}:19094, with its port')
  }
}

/** How long something exists, in whole seconds. */
export function parseLifetime (text: string): number {
  const ms = parseDuration(text)
  if (ms < MIN_LIFETIME_MS) throw new Error('a duration of at least 1s')
  return Math.ceil(ms / 1_000) * 1_000
}

/** The URL of a webhook. Those of chat services contain a credential. */
export function parseWebhookUrl (text: string): Secret {
  const url = parseUrl(text, 'a URL such as https://hooks.example/kafscale')
  if (url.hash !== '') throw new Error('a URL without a fragment')
  return new Secret(url.href)
}

/** The key that encrypts sessions, and possibly the one before it. */
export function parseSessionKeys (text: string): Secret[] {
  const keys = parseList(text)
  const areValid = keys.every(key =>
    /^[A-Za-z0-9+/]+=*$/.test(key) && Buffer.from(key, 'base64').length === SESSION_KEY_BYTES
  )
  if (!areValid || keys.length > 2) {
    throw new Error(
      `${SESSION_KEY_BYTES} bytes in base64, as openssl rand -base64 ${SESSION_KEY_BYTES} prints them, and at most ` +
      'one older key after a comma'
    )
  }
  return keys.map(key => new Secret(key))
}

export function parseSink (text: string): AuditSink {
  if (text === 'stdout' || text === 'none') return { kind: text }
  if (/^file:./.test(text)) return { kind: 'file', path: text.slice('file:'.length).replace(/^\/\/(?=\/)/, '') }
  const { href } = parseUrl(text, 'stdout, file:PATH, or a URL such as https://collector.example/audit')
  return { kind: 'http', url: href }
}

/** The path of a file with a certificate. */
export function certificateFile (path: string): string {
  return checkFile(path, readCertificate, 'a file with a certificate in PEM')
}

/** The path of a file with a private key. */
export function privateKeyFile (path: string): string {
  return checkFile(path, readPrivateKey, 'a file with an unencrypted private key in PEM')
}

/** The path of a file with HTTP headers. */
export function headersFile (path: string): string {
  try {
    readHeaders(path)
    return path
  } catch (error) {
    throw new Error(isSystemError(error) ? 'a file that can be read' : (error as Error).message)
  }
}

/** The path of a file of any content. */
export function readableFile (path: string): string {
  return checkFile(path, readFileSync, 'a file that can be read')
}

export function readCertificate (path: string): X509Certificate {
  return new X509Certificate(readFileSync(path, 'utf8'))
}

export function readPrivateKey (path: string): KeyObject {
  return createPrivateKey(readFileSync(path, 'utf8'))
}

/** HTTP headers from a file. Blank lines and lines that begin with # are skipped. Messages never quote a line. */
export function readHeaders (path: string): Record<string, string> {
  const headers: Record<string, string> = {}
  for (const [index, text] of readFileSync(path, 'utf8').split('\n').entries()) {
    const line = text.trim()
    if (line === '' || line.startsWith('#')) continue
    const [, name = '', value = ''] = /^([^:\s]+)\s*:\s*(\S.*)$/.exec(line) ?? []
    try {
      validateHeaderName(name)
      validateHeaderValue(name, value)
    } catch {
      throw new Error(`header lines such as Authorization: Bearer …, unlike line ${index + 1}`)
    }
    const key = name.toLowerCase()
    if (OWN_HEADERS.has(key)) throw new Error(`no header that the service sets itself, as line ${index + 1} does`)
    if (key in headers) throw new Error(`each header once: line ${index + 1} repeats one`)
    headers[key] = value
  }
  return headers
}

function isSystemError (error: unknown): boolean {
  return (error as NodeJS.ErrnoException).syscall !== undefined
}

function checkFile (path: string, read: (path: string) => unknown, expected: string): string {
  try {
    read(path)
    return path
  } catch {
    throw new Error(expected)
  }
}

function parseUrl (text: string, expected: string): URL {
  const url = URL.parse(text)
  if (!url || !/^https?:$/.test(url.protocol) || url.hostname === '') throw new Error(expected)
  if (url.username !== '' || url.password !== '') throw new Error(`${expected}, without credentials in it`)
  return url
}
