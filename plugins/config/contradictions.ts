import { resolve } from 'node:path'
import { formatAddress, isConfidential, isLoopback } from '../../lib/address.ts'
import { configuredModes, internalUrls, MODE_SETTINGS } from './auth.ts'
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
    ...unusedEtcdTls(settings, 'etcdEndpoints', 'etcdCaFile', 'etcdCertFile'),
    ...unpaired(settings, 'auditCollectorCertFile', 'auditCollectorKeyFile'),
    ...mismatched(settings, 'auditCollectorCertFile', 'auditCollectorKeyFile'),
    ...unusedCollectorFiles(settings),
    ...missingSinks(settings, mode),
    ...misplacedHeadFile(settings),
    ...competingModes(settings, mode),
    ...incompleteMode(settings, mode),
    ...unpaired(settings, 'oidcClientId', 'oidcClientSecret'),
    ...unknownIssuers(settings),
    ...internalAddresses(settings),
    ...unpaired(settings, 'tlsCertFile', 'tlsKeyFile'),
    ...unusedClientCa(settings),
    ...exposed(settings, mode),
  ]
}

/** Of two settings that need each other, one is missing. */
export function unpaired (settings: Partial<Settings>, first: SettingKey, second: SettingKey): Contradiction[] {
  const missing = [first, second].filter(key => settings[key] === undefined)
  if (missing.length !== 1) return []
  const [set, unset] = missing[0] === first ? [second, first] : [first, second]
  const message = `${variableOf(set)} is set and ${variableOf(unset)} is not: expected both or neither`
  return [{ about: [set, unset], message }]
}

/** A private key does not belong to its certificate. */
export function mismatched (
  settings: Partial<Settings>,
  cert: SettingKey & `${string}CertFile`,
  key: SettingKey & `${string}KeyFile`
): Contradiction[] {
  const certFile = settings[cert]
  const keyFile = settings[key]
  if (certFile === undefined || keyFile === undefined) return []
  if (readCertificate(certFile).checkPrivateKey(readPrivateKey(keyFile))) return []
  const message = `${variableOf(key)} is ${quoteValue(keyFile)}: ` +
    `expected the key of the certificate in ${variableOf(cert)}`
  return [{ about: [cert, key], message }]
}

/** Files for TLS, and only endpoints without it. */
export function unusedEtcdTls (
  settings: Partial<Settings>,
  endpointsKey: 'etcdEndpoints' | 'changesEtcdEndpoints',
  caFile: 'etcdCaFile' | 'changesEtcdCaFile',
  certFile: 'etcdCertFile' | 'changesEtcdCertFile'
): Contradiction[] {
  const endpoints = settings[endpointsKey]
  if ((settings[caFile] ?? settings[certFile]) === undefined) return []
  if (!endpoints?.every(endpoint => endpoint.startsWith('http:'))) return []
  const message = `${variableOf(endpointsKey)} is ${quoteValue(endpoints.join(','))}: ` +
    'expected an https endpoint, since TLS files are set'
  return [{ about: [endpointsKey], message }]
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

/** The head file belongs to exactly one audit file, and is another file. */
function misplacedHeadFile ({ auditHeadFile, auditSinks }: Partial<Settings>): Contradiction[] {
  if (auditHeadFile === undefined || !auditSinks) return []
  const about: SettingKey[] = ['auditHeadFile', 'auditSinks']
  const files = auditSinks.flatMap(sink => sink.kind === 'file' ? sink.path : [])
  const [log] = files
  if (log === undefined || files.length > 1) {
    const message = `${variableOf('auditHeadFile')} is set and ${variableOf('auditSinks')} contains ` +
      `${files.length === 0 ? 'no file' : `${files.length} files`}: expected one file:PATH, whose head it keeps`
    return [{ about, message }]
  }
  if (resolve(auditHeadFile) !== resolve(log)) return []
  const message = `${variableOf('auditHeadFile')} is ${quoteValue(auditHeadFile)}, the audit file itself: ` +
    'expected a path on another volume, where those who can change the log cannot change the head'
  return [{ about, message }]
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

/** An issuer whose ID tokens would be accepted is not an issuer of tokens at all. */
function unknownIssuers ({ oidcIdTokenIssuers = [], oidcIssuer = [], authJwksIssuer }: Partial<Settings>) {
  return oidcIdTokenIssuers.filter(issuer => issuer !== authJwksIssuer && !oidcIssuer.includes(issuer))
    .map((issuer): Contradiction => ({
      about: ['oidcIdTokenIssuers', 'oidcIssuer', 'authJwksIssuer'],
      message: `${variableOf('oidcIdTokenIssuers')} contains ${quoteValue(issuer)}: expected issuers that ` +
        `${variableOf('oidcIssuer')} names in the same spelling`,
    }))
}

function internalAddresses (settings: Partial<Settings>): Contradiction[] {
  const { oidcIssuer, oidcJwksUrl = [], oidcIntrospectionUrl, oidcClientId, oidcAllowHttp } = settings
  const found = internalUrls(settings).filter(({ url }) => oidcAllowHttp !== 'true' && !isConfidential(url))
    .map(({ key, url }): Contradiction => ({
      about: [key, 'oidcAllowHttp'],
      message: `${variableOf(key)} contains ${quoteValue(url)}: expected https URLs, or ` +
        `${variableOf('oidcAllowHttp')}=true, since others can read and change what is sent over plain http`,
    }))
  if (oidcIssuer && oidcJwksUrl.length > oidcIssuer.length) {
    found.push({
      about: ['oidcJwksUrl', 'oidcIssuer'],
      message: `${variableOf('oidcJwksUrl')} has ${oidcJwksUrl.length} URLs and ${variableOf('oidcIssuer')} has ` +
        `${oidcIssuer.length}: expected at most one URL for each issuer, in the same order`,
    })
  }
  if (oidcIntrospectionUrl !== undefined && oidcClientId === undefined) {
    found.push({
      about: ['oidcIntrospectionUrl', 'oidcClientId'],
      message: `${variableOf('oidcIntrospectionUrl')} is set and ${variableOf('oidcClientId')} is not: ` +
        'expected both, since the issuer introspects tokens only for a client',
    })
  }
  if (oidcJwksUrl.length > 0 && oidcClientId !== undefined && oidcIntrospectionUrl === undefined) {
    found.push({
      about: ['oidcJwksUrl', 'oidcClientId', 'oidcIntrospectionUrl'],
      message: `${variableOf('oidcJwksUrl')} and ${variableOf('oidcClientId')} are set and ` +
        `${variableOf('oidcIntrospectionUrl')} is not: expected all three, since nothing is discovered of an issuer ` +
        'whose keys have a URL',
    })
  }
  return found
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
