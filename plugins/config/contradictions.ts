import { formatAddress, isLoopback } from '../../lib/address.ts'
import { configuredModes, MODE_SETTINGS } from './auth.ts'
import { readCertificate, readPrivateKey } from './parsers.ts'
import { type AuthMode, type SettingKey, type Settings, variableOf } from './schema.ts'
import { quoteValue } from './secret.ts'

/** A mistake that shows only in several settings together. */
export interface Contradiction {
  /** The settings that the message depends on. */
  about: readonly SettingKey[]
  message: string
}

/** Every contradiction between settings that are valid each by itself. One that could not be parsed is absent. */
export function contradictions (settings: Partial<Settings>, mode: AuthMode): Contradiction[] {
  return [
    ...unpaired(settings, 'etcdUsername', 'etcdPassword'),
    ...unpaired(settings, 'etcdCertFile', 'etcdKeyFile'),
    ...mismatched(settings, 'etcdCertFile', 'etcdKeyFile'),
    ...mismatched(settings, 'tlsCertFile', 'tlsKeyFile'),
    ...unusedEtcdTls(settings),
    ...unpaired(settings, 'auditCollectorCertFile', 'auditCollectorKeyFile'),
    ...mismatched(settings, 'auditCollectorCertFile', 'auditCollectorKeyFile'),
    ...unusedCollectorFiles(settings),
    ...missingSinks(settings, mode),
    ...competingModes(settings, mode),
    ...incompleteMode(settings, mode),
    ...unpaired(settings, 'oidcClientId', 'oidcClientSecret'),
    ...unpaired(settings, 'tlsCertFile', 'tlsKeyFile'),
    ...unusedClientCa(settings),
    ...exposed(settings, mode),
  ]
}

/** Of two settings that need each other, one is missing. */
function unpaired (settings: Partial<Settings>, first: SettingKey, second: SettingKey): Contradiction[] {
  const missing = [first, second].filter(key => settings[key] === undefined)
  if (missing.length !== 1) return []
  const [set, unset] = missing[0] === first ? [second, first] : [first, second]
  const message = `${variableOf(set)} is set and ${variableOf(unset)} is not: expected both or neither`
  return [{ about: [set, unset], message }]
}

/** A private key does not belong to its certificate. */
function mismatched (
  settings: Partial<Settings>,
  cert: 'etcdCertFile' | 'tlsCertFile' | 'auditCollectorCertFile',
  key: 'etcdKeyFile' | 'tlsKeyFile' | 'auditCollectorKeyFile'
): Contradiction[] {
  const certFile = settings[cert]
  const keyFile = settings[key]
  if (certFile === undefined || keyFile === undefined) return []
  if (readCertificate(certFile).checkPrivateKey(readPrivateKey(keyFile))) return []
  const message = `${variableOf(key)} is ${quoteValue(keyFile)}: ` +
    `expected the key of the certificate in ${variableOf(cert)}`
  return [{ about: [cert, key], message }]
}

function unusedEtcdTls ({ etcdEndpoints, etcdCaFile, etcdCertFile }: Partial<Settings>): Contradiction[] {
  if ((etcdCaFile ?? etcdCertFile) === undefined) return []
  if (!etcdEndpoints?.every(endpoint => endpoint.startsWith('http:'))) return []
  const message = `${variableOf('etcdEndpoints')} is ${quoteValue(etcdEndpoints.join(','))}: ` +
    'expected an https endpoint, since TLS files are set'
  return [{ about: ['etcdEndpoints'], message }]
}

function unusedCollectorFiles (settings: Partial<Settings>): Contradiction[] {
  const { auditSinks } = settings
  if (!auditSinks) return []
  const urls = auditSinks.flatMap(sink => sink.kind === 'http' ? sink.url : [])
  const hasHttps = urls.some(url => url.startsWith('https:'))
  const unused = [
    ...urls.length === 0 ? ['auditCollectorHeadersFile'] as const : [],
    ...hasHttps ? [] : ['auditCollectorCaFile', 'auditCollectorCertFile'] as const,
  ]
  return unused.filter(key => settings[key] !== undefined).map(key => ({
    about: ['auditSinks', key],
    message: `${variableOf(key)} is set and ${variableOf('auditSinks')} has no ` +
      `${key === 'auditCollectorHeadersFile' ? 'collector' : 'https collector'}: expected both or neither`,
  }))
}

function missingSinks ({ auditSinks }: Partial<Settings>, mode: AuthMode): Contradiction[] {
  if (!auditSinks?.some(({ kind }) => kind === 'none')) return []
  if (mode === 'none' && auditSinks.length === 1) return []
  const message = `${variableOf('auditSinks')} contains none: expected none by itself, and only without ` +
    'authentication, since calls of authenticated callers are always recorded'
  return [{ about: ['auditSinks'], message }]
}

/** Settings of a mode that is not in use. */
function competingModes (settings: Partial<Settings>, mode: AuthMode): Contradiction[] {
  const configured = configuredModes(settings)
  const own = configured.find(candidate => candidate.mode === mode)
  return configured.filter(candidate => candidate !== own).map(({ setting: other }) => {
    if (settings.authMode === undefined && own) {
      const message = `${variableOf(own.setting)} and ${variableOf(other)} are both set: ` +
        'expected one authentication mode; unset the settings of the other'
      return { about: [own.setting, other], message }
    }
    const message = `${variableOf(other)} is set and ${variableOf('authMode')} is ${mode}: expected one or the other`
    return { about: [other, 'authMode'], message }
  })
}

function incompleteMode (settings: Partial<Settings>, mode: AuthMode): Contradiction[] {
  return MODE_SETTINGS[mode].required.filter(key => settings[key] === undefined).map(key => ({
    about: [key],
    message: `${variableOf(key)} is not set: expected a value, since the authentication mode is ${mode}`,
  }))
}

function unusedClientCa ({ tlsClientCaFile, tlsCertFile }: Partial<Settings>): Contradiction[] {
  if (tlsClientCaFile === undefined || tlsCertFile !== undefined) return []
  const message = `${variableOf('tlsClientCaFile')} is set and ${variableOf('tlsCertFile')} is not: ` +
    'expected both, since only TLS asks clients for a certificate'
  return [{ about: ['tlsClientCaFile', 'tlsCertFile'], message }]
}

function exposed ({ httpAddr }: Partial<Settings>, mode: AuthMode): Contradiction[] {
  if (mode !== 'none' || !httpAddr || isLoopback(httpAddr.host)) return []
  const message = `${variableOf('httpAddr')} (${formatAddress(httpAddr)}) is not a loopback address, and no ` +
    `authentication is configured: set ${variableOf('oidcIssuer')} (an identity provider), ` +
    `${variableOf('authJwksFile')} and ${variableOf('authJwksIssuer')} (your own keys), or ` +
    `${variableOf('authToken')} (one shared secret); or listen on 127.0.0.1:${httpAddr.port}`
  return [{ about: ['httpAddr', 'oidcIssuer', 'authJwksFile', 'authJwksIssuer', 'authToken'], message }]
}
