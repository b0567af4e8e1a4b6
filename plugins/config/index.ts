import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import fp from 'fastify-plugin'
import { ConfigError } from '../../errors.ts'
import { parseDuration } from '../../lib/duration.ts'
import { quote } from '../../lib/printable.ts'
import type { AuthMethod } from '../auth/principal.ts'
import { tracesAskedFor } from '../telemetry/otel.ts'
import { resolveMode } from './auth-mode.ts'

declare module 'fastify' {
  interface FastifyInstance { config: Config }
}

export type Environment = Record<string, string | undefined>

interface Setting<T> {
  /** The variable, without `KAFSCALE_MCP_`. */
  name: string
  /** One line of meaning, for `.env.example` and the README. */
  meaning: string
  /** What stands in the environment when nothing does; absent where being unset means something of its own. */
  default?: string
  required?: true
  /** Never shown, and can also be given as a file in `…_FILE`. */
  secret?: true
  /** Reads the text. Throws an `Error` whose message says what was expected. */
  parse: (text: string) => T
}

/** The default, or being required, makes a setting always there. */
type Value<S> = S extends { default: string } | { required: true } ? Parsed<S> : Parsed<S> | undefined
type Parsed<S> = S extends { parse: (text: string) => infer T } ? T : never

const PREFIX = 'KAFSCALE_MCP_'

/** Every setting: the one place where a variable's name, default and form stand. */
export const ConfigSchema = {
  httpAddr: {
    name: 'HTTP_ADDR',
    meaning: 'Where to listen: host:port, :port or [v6]:port; loopback only where nothing authenticates',
    default: '127.0.0.1:8090',
    parse: text => parseAddress(text),
  },
  etcdEndpoints: {
    name: 'ETCD_ENDPOINTS',
    meaning: 'etcd endpoints, comma separated; http or https, http when no scheme is given',
    required: true,
    parse: text => list(text).map(parseEndpoint),
  },
  etcdUsername: {
    name: 'ETCD_USERNAME',
    meaning: 'etcd user; it needs no more than read on the prefix /kafscale/',
    parse: String,
  },
  etcdPassword: { name: 'ETCD_PASSWORD', meaning: 'Password of the etcd user', secret: true, parse: String },
  etcdCaFile: {
    name: 'ETCD_CA_FILE',
    meaning: "PEM file of the CA that signed etcd's certificate; the system's CAs when unset",
    parse: pemFile(readCertificate, 'a certificate'),
  },
  etcdCertFile: {
    name: 'ETCD_CERT_FILE',
    meaning: 'PEM file of the client certificate that etcd asks for',
    parse: pemFile(readCertificate, 'a certificate'),
  },
  etcdKeyFile: {
    name: 'ETCD_KEY_FILE',
    meaning: "PEM file of the client certificate's key",
    parse: pemFile(readKey, 'an unencrypted private key'),
  },
  brokerMetricsUrl: {
    name: 'BROKER_METRICS_URL',
    meaning:
      "Brokers' /metrics pages, comma separated; {host} and {node_id} make one of each broker of the snapshot, auto is http://{host}:9093/metrics",
    parse: text => list(text).map(item => parseMetricsUrl(item === 'auto' ? 'http://{host}:9093/metrics' : item)),
  },
  metricsMaxAge: {
    name: 'METRICS_MAX_AGE',
    meaning: 'How long a scrape of the brokers serves all callers',
    default: '2s',
    parse: parseDuration,
  },
  maxStaleness: {
    name: 'MAX_STALENESS',
    meaning: '/readyz is 503 when the mirror is older; 0: never for that reason',
    default: '5m',
    parse: parseDuration,
  },
  verifyInterval: {
    name: 'VERIFY_INTERVAL',
    meaning: 'How often the mirror is compared with a fresh load; 0: never',
    default: '10m',
    parse: parseDuration,
  },
  allowedHosts: {
    name: 'ALLOWED_HOSTS',
    meaning: 'Host names, comma separated without port, that /mcp answers to; on loopback its own names when unset',
    parse: text => list(text).map(parseHost),
  },
  allowedOrigins: {
    name: 'ALLOWED_ORIGINS',
    meaning: 'Origins, comma separated (https://host:port), whose pages may call /mcp; on loopback its own when unset',
    parse: text => list(text).map(parseOrigin),
  },
  authMode: {
    name: 'AUTH_MODE',
    meaning: 'oidc, jwks, token or none; follows from what is set when unset',
    parse: text => oneOf(text, 'oidc', 'jwks', 'token', 'none'),
  },
  publicUrl: {
    name: 'PUBLIC_URL',
    meaning: "Base URL at which clients reach the service, a path allowed; the listener's when unset",
    parse: parsePublicUrl,
  },
  oidcIssuer: {
    name: 'OIDC_ISSUER',
    meaning: 'Identity providers, comma separated, whose tokens are accepted',
    parse: text => list(text).map(parseIssuer),
  },
  oidcAudience: {
    name: 'OIDC_AUDIENCE',
    meaning: 'Audience that a token must have; {PUBLIC_URL}/mcp when unset',
    parse: String,
  },
  oidcMaxTokenLifetime: {
    name: 'OIDC_MAX_TOKEN_LIFETIME',
    meaning: 'A token that lives longer is refused',
    default: '1h',
    parse: parseDuration,
  },
  oidcClientId: { name: 'OIDC_CLIENT_ID', meaning: 'Client id for the introspection of opaque tokens', parse: String },
  oidcClientSecret: { name: 'OIDC_CLIENT_SECRET', meaning: 'Secret of that client', secret: true, parse: String },
  authJwksFile: {
    name: 'AUTH_JWKS_FILE',
    meaning: 'File of public keys (JWKS) for tokens without an identity provider',
    parse: readableFile,
  },
  authJwksIssuer: { name: 'AUTH_JWKS_ISSUER', meaning: 'Issuer of those tokens', parse: String },
  authToken: {
    name: 'AUTH_TOKEN',
    meaning: 'One static bearer token, a shared secret of at least 32 characters',
    secret: true,
    parse: String,
  },
  tlsCertFile: {
    name: 'TLS_CERT_FILE',
    meaning: "PEM file of the service's own certificate; plain HTTP when unset",
    parse: pemFile(readCertificate, 'a certificate'),
  },
  tlsKeyFile: {
    name: 'TLS_KEY_FILE',
    meaning: 'PEM file of its key',
    parse: pemFile(readKey, 'an unencrypted private key'),
  },
  tlsClientCaFile: {
    name: 'TLS_CLIENT_CA_FILE',
    meaning: 'PEM file of the CA of client certificates, which are then required',
    parse: pemFile(readCertificate, 'a certificate'),
  },
  trustedProxies: {
    name: 'TRUSTED_PROXIES',
    meaning: "Addresses or CIDR ranges, comma separated, whose X-Forwarded-* are believed; nobody's when unset",
    parse: text => list(text).map(parseCidr),
  },
  policyFile: { name: 'POLICY_FILE', meaning: 'YAML or JSON file that says who may do what', parse: readableFile },
  environment: {
    name: 'ENVIRONMENT',
    meaning: 'What a policy calls the place where this service runs',
    default: 'default',
    parse: String,
  },
  tools: { name: 'TOOLS', meaning: 'Tools that exist, comma separated; all when unset', parse: list },
  disabledTools: { name: 'DISABLED_TOOLS', meaning: 'Tools that do not exist, comma separated', parse: list },
  auditSinks: {
    name: 'AUDIT_SINKS',
    meaning:
      'Where audit records go, comma separated: stdout, file:PATH, http(s)://…; none on loopback without authentication only',
    default: 'stdout',
    parse: text => list(text).map(parseSink),
  },
  auditSigningKeyFile: {
    name: 'AUDIT_SIGNING_KEY_FILE',
    meaning: 'PEM file of an Ed25519 key that signs the checkpoints of the audit chain',
    parse: pemFile(readKey, 'an unencrypted private key'),
  },
  auditFailMode: {
    name: 'AUDIT_FAIL_MODE',
    meaning: 'closed: a call that can not be recorded is refused; open: reads are served, and what is lost is counted',
    default: 'closed',
    parse: text => oneOf(text, 'closed', 'open'),
  },
  auditRedact: {
    name: 'AUDIT_REDACT',
    meaning: 'More names of arguments, comma separated, whose values are not recorded',
    parse: list,
  },
  rateLimit: {
    name: 'RATE_LIMIT',
    meaning: 'Requests a minute of one principal; 0: no limit',
    default: '0',
    parse: parseCount,
  },
  addressRateLimit: {
    name: 'ADDRESS_RATE_LIMIT',
    meaning: 'Requests a minute from one address; 0: no limit; none in the mode none',
    default: '0',
    parse: parseCount,
  },
  maxConcurrentCalls: {
    name: 'MAX_CONCURRENT_CALLS',
    meaning: 'Calls at once of one principal; 0: no limit',
    default: '64',
    parse: parseCount,
  },
  addressMaxConcurrentCalls: {
    name: 'ADDRESS_MAX_CONCURRENT_CALLS',
    meaning: 'Calls at once from one address; 0: no limit; none in the mode none',
    default: '0',
    parse: parseCount,
  },
  maxAuthFailures: {
    name: 'MAX_AUTH_FAILURES',
    meaning: 'Failed sign-ins a minute from one address, then 429; 0: no limit',
    default: '300',
    parse: parseCount,
  },
  maxEventLoopDelay: {
    name: 'MAX_EVENT_LOOP_DELAY',
    meaning: 'Requests are refused with 503 while the event loop is slower; 0: never',
    default: '1s',
    parse: parseDuration,
  },
  maxBodyBytes: {
    name: 'MAX_BODY_BYTES',
    meaning: 'A larger request is refused with 413',
    default: '1048576',
    parse: text => parseCount(text, 1),
  },
  requestTimeout: {
    name: 'REQUEST_TIMEOUT',
    meaning: 'How long a request may take to arrive whole, its headers too',
    default: '30s',
    parse: text => Math.ceil(parseDuration(text)),
  },
  telemetryAddr: {
    name: 'TELEMETRY_ADDR',
    meaning: 'Where /metrics is served, to anyone and apart from /mcp: host:port, :port or [v6]:port; off: nowhere',
    default: '127.0.0.1:9090',
    parse: text => text === 'off' ? null : parseAddress(text, ', or off'),
  },
  logLevel: {
    name: 'LOG_LEVEL',
    meaning: 'fatal, error, warn, info, debug, trace or silent; logs go to stderr',
    default: 'info',
    parse: text => oneOf(text, 'fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'),
  },
  sessionTimeout: {
    name: 'SESSION_TIMEOUT',
    meaning: 'Without effect: sessions no longer exist',
    parse: parseDuration,
  },
} satisfies Record<string, Setting<unknown>>

type SecretKey = {
  [K in keyof typeof ConfigSchema]: (typeof ConfigSchema)[K] extends { secret: true } ? K : never
}[keyof typeof ConfigSchema]

export type Secrets = { readonly [K in SecretKey]?: string | undefined }

/** Validated and frozen, without the secrets. Durations are in milliseconds. */
export type Config =
  & { readonly [K in Exclude<keyof typeof ConfigSchema, SecretKey | 'authMode'>]: Value<(typeof ConfigSchema)[K]> }
  & {
    readonly authMode: AuthMethod
    /** Whether the `OTEL_*` variables ask for traces. */
    readonly tracing: boolean
    /** What is worth a warning at start: variables without meaning or effect. */
    readonly warnings: readonly string[]
  }

const secretsOfConfigs = new WeakMap<Config, Secrets>()

/** The secrets that were read with a configuration: for the plugin that signs in with them, out of the reach of who has the app. */
export function secretsOf (config: Config): Secrets {
  return secretsOfConfigs.get(config) ?? {}
}

export function withSecrets (config: Config, secrets: Secrets): Config {
  secretsOfConfigs.set(config, secrets)
  return config
}

/**
 * Reads the configuration from an environment. Empty means unset.
 * @throws {ConfigError} naming every variable that is wrong.
 */
export function readConfig (env: Environment = process.env): Config {
  const wrong: string[] = []
  const unread: string[] = []
  const open: Partial<Record<keyof typeof ConfigSchema, unknown>> = {}
  const secrets: Partial<Record<keyof typeof ConfigSchema, unknown>> = {}
  for (
    const [key, setting] of Object.entries<Setting<unknown>>(ConfigSchema) as [
      keyof typeof ConfigSchema,
      Setting<unknown>
    ][]
  ) {
    const variable = PREFIX + setting.name
    try {
      const text = setting.secret ? readSecret(env, variable) : env[variable] || setting.default
      if (text === undefined && setting.required) throw new Error(`${variable} is not set: expected ${setting.meaning}`)
      const read = setting.secret ? secrets : open
      read[key] = text === undefined ? undefined : parse(variable, setting, text)
    } catch (error) {
      wrong.push((error as Error).message)
      unread.push(variable)
    }
  }
  const config = { ...open, ...secrets } as Partial<Config & Secrets>
  const { mode, wrong: contradictory, warnings: doubtful } = resolveMode(config)
  wrong.push(...contradictions(config, mode))
  // One that could not be read is not known to be absent.
  wrong.push(...contradictory.filter(sentence => !unread.some(variable => sentence.includes(variable))))
  if (wrong.length > 0) throw new ConfigError(wrong.join('\n'))
  const { tracing, warnings: untraced } = tracesAskedFor(env)
  const found = [...warnings(env), ...doubtful, ...untraced]
  return withSecrets(
    Object.freeze({
      ...open as Omit<Config, 'warnings' | 'authMode' | 'tracing'>,
      authMode: mode,
      tracing,
      warnings: found,
    }),
    secrets as Secrets
  )
}

export default fp(async function config (app, { config }: { config: Config }) {
  app.decorate('config', config)
  for (const warning of config.warnings) app.log.warn(warning)
}, { name: 'config' })

function readSecret (env: Environment, variable: string): string | undefined {
  const fileVariable = `${variable}_FILE`
  const file = env[fileVariable]
  if (!file) return env[variable] || undefined
  if (env[variable]) throw new Error(`${variable} and ${fileVariable} are both set: expected only one of them`)
  try {
    return readFileSync(file, 'utf8').replace(/\r?\n$/, '') || undefined
  } catch {
    throw new Error(`${fileVariable} is ${show(file)}: expected a file that can be read`)
  }
}

function parse (variable: string, { secret, parse }: Setting<unknown>, text: string): unknown {
  try {
    return parse(text)
  } catch (error) {
    throw new Error(`${variable} is ${secret ? 'not valid' : show(text)}: expected ${(error as Error).message}`)
  }
}

function contradictions (config: Partial<Config & Secrets>, mode: AuthMethod): string[] {
  const { etcdEndpoints, etcdCaFile, etcdCertFile, auditSinks } = config
  const found = [
    ...unpaired(config, 'etcdUsername', 'etcdPassword'),
    ...unpaired(config, 'etcdCertFile', 'etcdKeyFile'),
  ]
  for (const [cert, key] of [['etcdCertFile', 'etcdKeyFile'], ['tlsCertFile', 'tlsKeyFile']] as const) {
    const [certFile, keyFile] = [config[cert], config[key]]
    if (
      certFile === undefined || keyFile === undefined || readCertificate(certFile).checkPrivateKey(readKey(keyFile))
    ) continue
    found.push(
      `${PREFIX}${ConfigSchema[key].name} is ${show(keyFile)}: expected the key of the certificate in ${PREFIX}${
        ConfigSchema[cert].name
      }`
    )
  }
  if ((etcdCaFile ?? etcdCertFile) !== undefined && etcdEndpoints?.every(endpoint => endpoint.startsWith('http:'))) {
    found.push(
      `${PREFIX}ETCD_ENDPOINTS is ${
        show(etcdEndpoints.join(','))
      }: expected an https endpoint, since TLS files are set`
    )
  }
  if (auditSinks?.some(({ kind }) => kind === 'none') && (mode !== 'none' || auditSinks.length > 1)) {
    found.push(
      `${PREFIX}AUDIT_SINKS has none in it: expected it alone, and only where nothing authenticates; what authenticated callers do is recorded`
    )
  }
  return found
}

/** Of two settings that need each other, the one that is there alone. One that could not be read is not known to be absent. */
function unpaired (config: Partial<Config & Secrets>, ...pair: (keyof typeof ConfigSchema)[]): string[] {
  const [set, ...more] = pair.filter(key => config[key] !== undefined)
  if (set === undefined || more.length > 0 || !pair.every(key => key in config)) return []
  const unset = pair.find(key => key !== set) as keyof typeof ConfigSchema
  return [
    `${PREFIX}${ConfigSchema[set].name} is set and ${PREFIX}${
      ConfigSchema[unset].name
    } is not: expected both or neither`,
  ]
}

function warnings (env: Environment): string[] {
  const known = new Set(Object.values<Setting<unknown>>(ConfigSchema).flatMap(({ name, secret }) =>
    secret ? [PREFIX + name, `${PREFIX}${name}_FILE`] : [PREFIX + name]))
  const found = Object.keys(env).filter(name => name.startsWith(PREFIX) && !known.has(name)).sort()
    .map(name => `${name} is not a variable of this service: it has no effect`)
  if (env[`${PREFIX}SESSION_TIMEOUT`]) found.push(`${PREFIX}SESSION_TIMEOUT has no effect: sessions no longer exist`)
  return found
}

/** A value as a message shows it: without anything that can be credentials of a URL or its query, and nothing in it can pass for another line. */
function show (text: string): string {
  return quote(text.replace(/^.*@/s, '…@').replace(/\?.*$/s, '?…'))
}

function list (text: string): string[] {
  const items = text.split(',').map(item => item.trim()).filter(item => item !== '')
  if (items.length === 0) throw new Error('at least one item')
  return items
}

function parseAddress (text: string, more = ''): { host: string, port: number } {
  const expected = `host:port, :port or [v6]:port, with a port from 0 to 65535${more}`
  const match = /^(?:\[([0-9a-f:.%]+)\]|([^\s:[\]/]*)):([0-9]{1,5})$/i.exec(text)
  const port = Number(match?.[3])
  if (!match || port > 65535) throw new Error(expected)
  const host = match[1] ?? (match[2] || '::')
  return { host, port }
}

function parseUrl (text: string, expected: string): URL {
  const url = URL.parse(text)
  if (!url || !/^https?:$/.test(url.protocol) || url.hostname === '') throw new Error(expected)
  if (url.username !== '' || url.password !== '') throw new Error(`${expected}, without credentials in it`)
  return url
}

function parseEndpoint (text: string): string {
  const endpoint = text.includes('://') ? text : `http://${text}`
  const url = parseUrl(endpoint, 'endpoints such as http://etcd:2379 or https://etcd:2379')
  if (url.pathname !== '/' || url.search !== '' || url.hash !== '') throw new Error('endpoints without a path')
  // The URL itself drops a port that is its scheme's default; etcd's is another.
  const [, port = '2379'] = /:([0-9]+)\/?$/.exec(text) ?? []
  return `${url.protocol}//${url.hostname}:${port}`
}

function parseMetricsUrl (text: string): string {
  parseUrl(
    text.replaceAll('{host}', 'host').replaceAll('{node_id}', '0'),
    'URLs such as http://{host}:9093/metrics, or auto'
  )
  if (/[{}]/.test(text.replaceAll('{host}', '').replaceAll('{node_id}', ''))) {
    throw new Error('no placeholder but {host} and {node_id}')
  }
  return text
}

function parseHost (text: string): string {
  const hostname = /^(?:\[[^/@[\]]+\]|[^\s/:@*?#[\]]+)$/.test(text) ? URL.parse(`http://${text}`)?.hostname : undefined
  if (hostname === undefined) throw new Error('host names without scheme and port, IPv6 addresses in brackets')
  return hostname
}

function parseOrigin (text: string): string {
  const url = parseUrl(text, 'origins such as https://app.example or http://localhost:3000')
  if (url.origin !== text.toLowerCase().replace(/\/$/, '')) {
    throw new Error('origins: scheme, host and port, and nothing after them')
  }
  return url.origin
}

function oneOf<T extends string> (text: string, ...words: T[]): T {
  const word = words.find(word => word === text)
  if (word === undefined) throw new Error(`one of ${words.join(', ')}`)
  return word
}

function parseCount (text: string, least = 0): number {
  if (!/^[0-9]{1,9}$/.test(text) || Number(text) < least) throw new Error(`a whole number from ${least} on`)
  return Number(text)
}

function parsePublicUrl (text: string): string {
  const url = parseUrl(text, 'a URL such as https://kafscale-mcp.example')
  if (url.search !== '' || url.hash !== '') throw new Error('a URL without query and fragment')
  return url.href.replace(/\/$/, '')
}

function parseIssuer (text: string): string {
  parseUrl(text, 'issuers such as https://id.example')
  return text
}

function parseCidr (text: string): string {
  const [address = '', bits, ...more] = text.split('/')
  const most = isIP(address) === 4 ? 32 : isIP(address) === 6 ? 128 : -1
  if (most < 0 || more.length > 0 || (bits !== undefined && (!/^[0-9]{1,3}$/.test(bits) || Number(bits) > most))) {
    throw new Error('addresses or ranges such as 10.0.0.1 or 10.0.0.0/8')
  }
  return text
}

/** Where audit records go. */
export type AuditSink = { kind: 'stdout' } | { kind: 'none' } | { kind: 'file', path: string } | {
  kind: 'http'
  url: string
}

function parseSink (text: string): AuditSink {
  if (text === 'stdout' || text === 'none') return { kind: text }
  if (/^file:./.test(text)) return { kind: 'file', path: text.slice('file:'.length).replace(/^\/\/(?=\/)/, '') }
  return {
    kind: 'http',
    url: parseUrl(text, 'stdout, file:PATH, or a URL such as https://collector.example/audit').href,
  }
}

function pemFile (read: (path: string) => unknown, what: string): (path: string) => string {
  return path => {
    try {
      read(path)
      return path
    } catch {
      throw new Error(`a file with ${what} in PEM`)
    }
  }
}

function readCertificate (path: string): X509Certificate {
  return new X509Certificate(readFileSync(path, 'utf8'))
}

function readKey (path: string): KeyObject {
  return createPrivateKey(readFileSync(path, 'utf8'))
}

function readableFile (path: string): string {
  try {
    readFileSync(path)
    return path
  } catch {
    throw new Error('a file that can be read')
  }
}
