import { isIPv4 } from 'node:net'
import { quote } from '../../lib/printable.ts'
import type { AuthMethod } from '../auth/principal.ts'

/** What the configuration says of who may call; names are those of `Config`. What could not be parsed is absent. */
export interface AuthSettings {
  httpAddr?: { host: string, port: number } | undefined
  authMode?: AuthMethod | undefined
  publicUrl?: string | undefined
  oidcIssuer?: readonly string[] | undefined
  oidcClientId?: string | undefined
  oidcClientSecret?: string | undefined
  authJwksFile?: string | undefined
  authJwksIssuer?: string | undefined
  authToken?: string | undefined
  tlsCertFile?: string | undefined
  tlsKeyFile?: string | undefined
  tlsClientCaFile?: string | undefined
}

/** `wrong` stops the start: a sentence each, naming variables and never a secret. */
export interface ResolvedMode {
  mode: AuthMethod
  wrong: string[]
  warnings: string[]
}

const PREFIX = 'KAFSCALE_MCP_'
const MIN_TOKEN_LENGTH = 32

const VARIABLES = {
  oidcIssuer: `${PREFIX}OIDC_ISSUER`,
  oidcClientId: `${PREFIX}OIDC_CLIENT_ID`,
  oidcClientSecret: `${PREFIX}OIDC_CLIENT_SECRET`,
  authJwksFile: `${PREFIX}AUTH_JWKS_FILE`,
  authJwksIssuer: `${PREFIX}AUTH_JWKS_ISSUER`,
  authToken: `${PREFIX}AUTH_TOKEN`,
  tlsCertFile: `${PREFIX}TLS_CERT_FILE`,
  tlsKeyFile: `${PREFIX}TLS_KEY_FILE`,
  tlsClientCaFile: `${PREFIX}TLS_CLIENT_CA_FILE`,
} as const

type Key = keyof typeof VARIABLES

/** What each mode needs, and what else belongs to it alone. */
const MODES: Readonly<Record<AuthMethod, { needs: Key[], takes: Key[] }>> = {
  oidc: { needs: ['oidcIssuer'], takes: ['oidcClientId', 'oidcClientSecret'] },
  jwks: { needs: ['authJwksFile', 'authJwksIssuer'], takes: [] },
  token: { needs: ['authToken'], takes: [] },
  none: { needs: [], takes: [] },
}

/**
 * How callers prove who they are: as `AUTH_MODE` says, else as follows from what is set, else not at all. Nothing is
 * guessed: settings of two modes, a mode without what it needs, and no mode on an address that others reach are wrong.
 */
export function resolveMode (settings: AuthSettings): ResolvedMode {
  const isSet = (key: Key) => settings[key] !== undefined
  const configured = (['oidc', 'jwks', 'token'] as const).filter(mode =>
    [...MODES[mode].needs, ...MODES[mode].takes].some(isSet)
  )
  const mode = settings.authMode ?? configured[0] ?? 'none'
  const wrong = [
    ...contradictions(settings, mode, configured, isSet),
    ...MODES[mode].needs.filter(key => !isSet(key)).map(key =>
      `${VARIABLES[key]} is not set: expected it in the mode ${mode}`
    ),
    ...unpaired(isSet, 'oidcClientId', 'oidcClientSecret'),
    ...unpaired(isSet, 'tlsCertFile', 'tlsKeyFile'),
    ...isSet('tlsClientCaFile') && !isSet('tlsCertFile')
      ? [
        `${VARIABLES.tlsClientCaFile} is set and ${VARIABLES.tlsCertFile} is not: expected a certificate of this service, since only TLS asks for the client's`,
        ]
      : [],
    ...(settings.oidcIssuer ?? []).filter(issuer => !isConfidential(issuer)).map(issuer =>
      `${VARIABLES.oidcIssuer} is ${quote(issuer)}: expected an https URL; http is accepted on loopback only`),
    ...settings.authToken !== undefined && !isSendable(settings.authToken)
      ? [
        `${VARIABLES.authToken} is not valid: expected at least ${MIN_TOKEN_LENGTH} characters, all of them visible ASCII`,
        ]
      : [],
    ...exposed(settings, mode),
  ]
  return { mode, wrong, warnings: warnings(settings, mode) }
}

/** Whether only this machine reaches a host. */
export function isLoopback (host: string): boolean {
  return host === 'localhost' || host === '::1' || host === '[::1]' || (isIPv4(host) && host.startsWith('127.'))
}

/** Whether nobody on the way reads what is sent to a URL: it is https, or http that doesn't leave this machine. */
export function isConfidential (url: string): boolean {
  const parsed = URL.parse(url)
  return parsed?.protocol === 'https:' || (parsed?.protocol === 'http:' && isLoopback(parsed.hostname))
}

function contradictions (
  { authMode }: AuthSettings,
  mode: AuthMethod,
  configured: AuthMethod[],
  isSet: (key: Key) => boolean
): string[] {
  const variables = configured.filter(other => other !== mode)
    .map(other => VARIABLES[[...MODES[other].needs, ...MODES[other].takes].find(isSet) as Key])
  if (authMode !== undefined) {
    return variables.map(variable =>
      `${variable} is set and ${PREFIX}AUTH_MODE is ${authMode}: expected one or the other`
    )
  }
  const own = [...MODES[mode].needs, ...MODES[mode].takes].find(isSet)
  return own === undefined
    ? []
    : variables.map(variable =>
      `${
        VARIABLES[own]
      } and ${variable} are both set: expected one way to authenticate, or ${PREFIX}AUTH_MODE and what belongs to it`
    )
}

function unpaired (isSet: (key: Key) => boolean, ...pair: [Key, Key]): string[] {
  const [set, ...more] = pair.filter(isSet)
  if (set === undefined || more.length > 0) return []
  const unset = pair.find(key => key !== set) as Key
  return [`${VARIABLES[set]} is set and ${VARIABLES[unset]} is not: expected both or neither`]
}

/** A header carries no blanks and no other letters without their being changed on the way. */
function isSendable (token: string): boolean {
  return token.length >= MIN_TOKEN_LENGTH && /^[\x21-\x7e]+$/.test(token)
}

function exposed ({ httpAddr }: AuthSettings, mode: AuthMethod): string[] {
  if (mode !== 'none' || !httpAddr || isLoopback(httpAddr.host)) return []
  const host = httpAddr.host.includes(':') ? `[${httpAddr.host}]` : httpAddr.host
  return [
    `${PREFIX}HTTP_ADDR (${host}:${httpAddr.port}) is no loopback address, and nothing says who may call: set ${VARIABLES.oidcIssuer} (an identity provider), ` +
    `${VARIABLES.authJwksFile} and ${VARIABLES.authJwksIssuer} (keys of your own) or ${VARIABLES.authToken} (one shared secret); or listen on 127.0.0.1:${httpAddr.port}`,
  ]
}

function warnings ({ httpAddr, publicUrl }: AuthSettings, mode: AuthMethod): string[] {
  if (mode === 'none') return []
  const found = []
  if (mode === 'token') {
    found.push(
      `${VARIABLES.authToken} is a shared secret: whoever has it is static-token, and nobody can tell who that was`
    )
  }
  if (publicUrl !== undefined && !isConfidential(publicUrl)) {
    found.push(`${PREFIX}PUBLIC_URL is not https: tokens can be read on the way`)
  }
  if (publicUrl === undefined && httpAddr && (httpAddr.host === '::' || httpAddr.host === '0.0.0.0')) {
    found.push(
      `${PREFIX}PUBLIC_URL is not set: clients are sent to the address that this service listens on, which is nobody's`
    )
  }
  return found
}
