/** The settings of changes to the cluster. Without `CHANGES=enabled`, the rest of the service has none of them. */
import { isConfidential, isLoopback } from '../../lib/address.ts'
import { type Contradiction, mismatched, unpaired, unusedEtcdTls } from './contradictions.ts'
import { type AuthMode, ConfigSchema, type SettingKey, type Settings, variableOf } from './schema.ts'
import { quoteValue, reveal, type Secret } from './secret.ts'

/** What `environment` is when nobody has named the environment. */
const UNNAMED_ENVIRONMENT = ConfigSchema.environment.default

/** The id of every KafScale cluster that has been started without the operator. */
const COMMON_CLUSTER_ID = 'kafscale-cluster'

/** What the service needs to change the cluster. */
export interface ChangesConfig {
  readonly kafka: KafkaConfig
  /** The cluster that may be changed. */
  readonly expectedClusterId: string
  /** `null` unless the environment has a name, and then no rule of the policy's `changes` matches. */
  readonly environment: string | null
  /** Most partitions of a topic. */
  readonly maxPartitions: number
  /** Undefined: brokers can be neither drained nor flushed. */
  readonly control: ControlConfig | undefined
  readonly ledger: LedgerConfig
  /** Whole seconds, in milliseconds, as all lifetimes here. */
  readonly plannedLifetimeMs: number
  readonly pendingLifetimeMs: number
  readonly approvedLifetimeMs: number
  readonly retentionMs: number
  /** The URL may contain a credential. */
  readonly webhook: { readonly url: Secret, readonly secret: Secret } | undefined
  /** In base64, the current key first. */
  readonly sessionKeys: readonly Secret[] | undefined
}

export interface KafkaConfig {
  /** host:port. */
  readonly brokers: readonly string[]
  readonly clientId: string
  /** Undefined: plaintext. */
  readonly tls: ClientTlsFiles | undefined
  readonly sasl: SaslConfig | undefined
}

export interface SaslConfig {
  readonly mechanism: NonNullable<Settings['kafkaSaslMechanism']>
  readonly username: string
  readonly password: Secret
}

export interface ControlConfig {
  /** host:port with the placeholders `{host}` and `{node_id}`. */
  readonly addr: string
  /** Undefined: plaintext. */
  readonly tls: ClientTlsFiles | undefined
}

export interface LedgerConfig extends ClientTlsFiles {
  /** Scheme, host and port. */
  readonly endpoints: readonly string[]
  readonly username: string | undefined
  readonly password: Secret | undefined
}

/** Paths of PEM files with which the service connects to others. */
export interface ClientTlsFiles {
  /** Undefined: the system's CAs. */
  readonly caFile: string | undefined
  readonly certFile: string | undefined
  readonly keyFile: string | undefined
}

/** The settings that have no effect without `CHANGES=enabled`. */
export const CHANGES_SETTINGS = [
  'expectedClusterId', 'kafkaBrokers', 'kafkaClientId', 'kafkaTls', 'kafkaCaFile', 'kafkaCertFile', 'kafkaKeyFile',
  'kafkaSaslMechanism', 'kafkaSaslUsername', 'kafkaSaslPassword',
  'brokerControlAddr', 'brokerControlTls', 'brokerControlCaFile', 'brokerControlCertFile', 'brokerControlKeyFile',
  'changesEtcdEndpoints', 'changesEtcdUsername', 'changesEtcdPassword', 'changesEtcdCaFile', 'changesEtcdCertFile',
  'changesEtcdKeyFile',
  'maxPartitions', 'changePlannedLifetimeMs', 'changePendingLifetimeMs', 'changeApprovedLifetimeMs',
  'changeRetentionMs', 'webhookUrl', 'webhookSecret', 'sessionKey',
] as const satisfies readonly SettingKey[]

export type ChangesKey = 'changes' | typeof CHANGES_SETTINGS[number]

/** The settings that have nothing to do with changes. */
export function withoutChanges (settings: Settings): Omit<Settings, ChangesKey> {
  const own: ReadonlySet<string> = new Set<ChangesKey>(['changes', ...CHANGES_SETTINGS])
  return Object.fromEntries(Object.entries(settings).filter(([key]) => !own.has(key))) as Omit<Settings, ChangesKey>
}

/** Undefined unless changes are enabled, and when a setting that they require is missing. */
export function changesConfigOf (settings: Settings): ChangesConfig | undefined {
  const { changes, kafkaBrokers: brokers, expectedClusterId, environment, maxPartitions } = settings
  const { kafkaSaslMechanism: mechanism, kafkaSaslUsername: username, kafkaSaslPassword: password } = settings
  const { brokerControlAddr: addr, webhookUrl: url, webhookSecret: secret } = settings
  if (changes !== 'enabled' || !brokers || expectedClusterId === undefined) return undefined
  const kafkaTls = {
    caFile: settings.kafkaCaFile, certFile: settings.kafkaCertFile, keyFile: settings.kafkaKeyFile,
  }
  const controlTls = {
    caFile: settings.brokerControlCaFile,
    certFile: settings.brokerControlCertFile,
    keyFile: settings.brokerControlKeyFile,
  }
  return Object.freeze({
    kafka: {
      brokers,
      clientId: settings.kafkaClientId,
      tls: settings.kafkaTls === 'on' ? kafkaTls : undefined,
      sasl: mechanism && username !== undefined && password ? { mechanism, username, password } : undefined,
    },
    expectedClusterId,
    environment: environment === UNNAMED_ENVIRONMENT ? null : environment,
    maxPartitions,
    control: addr === undefined
      ? undefined
      : { addr, tls: settings.brokerControlTls === 'on' ? controlTls : undefined },
    ledger: ledgerOf(settings),
    plannedLifetimeMs: settings.changePlannedLifetimeMs,
    pendingLifetimeMs: settings.changePendingLifetimeMs,
    approvedLifetimeMs: settings.changeApprovedLifetimeMs,
    retentionMs: settings.changeRetentionMs,
    webhook: url && secret ? { url, secret } : undefined,
    sessionKeys: settings.sessionKey,
  })
}

/** The endpoints default to those of the cluster, with the CA that verifies them. Credentials never do. */
function ledgerOf (settings: Settings): LedgerConfig {
  const { changesEtcdEndpoints, etcdEndpoints, changesEtcdCaFile, etcdCaFile } = settings
  return {
    endpoints: changesEtcdEndpoints ?? etcdEndpoints,
    username: settings.changesEtcdUsername,
    password: settings.changesEtcdPassword,
    caFile: changesEtcdCaFile ?? (changesEtcdEndpoints ? undefined : etcdCaFile),
    certFile: settings.changesEtcdCertFile,
    keyFile: settings.changesEtcdKeyFile,
  }
}

/** What is missing for changes, and what contradicts itself in their settings, if they are enabled. */
export function changesContradictions (settings: Partial<Settings>, mode: AuthMode): Contradiction[] {
  if (settings.changes !== 'enabled') return []
  return [
    ...missingPrerequisites(settings, mode),
    ...unpaired(settings, 'kafkaCertFile', 'kafkaKeyFile'),
    ...mismatched(settings, 'kafkaCertFile', 'kafkaKeyFile'),
    ...unusedTls(settings, 'kafkaTls', ['kafkaCaFile', 'kafkaCertFile']),
    ...incompleteSasl(settings),
    ...unpaired(settings, 'brokerControlCertFile', 'brokerControlKeyFile'),
    ...mismatched(settings, 'brokerControlCertFile', 'brokerControlKeyFile'),
    ...unusedTls(settings, 'brokerControlTls', ['brokerControlCaFile', 'brokerControlCertFile']),
    ...unusedControl(settings),
    ...unpaired(settings, 'changesEtcdUsername', 'changesEtcdPassword'),
    ...unpaired(settings, 'changesEtcdCertFile', 'changesEtcdKeyFile'),
    ...mismatched(settings, 'changesEtcdCertFile', 'changesEtcdKeyFile'),
    ...unusedEtcdTls(
      settings, settings.changesEtcdEndpoints ? 'changesEtcdEndpoints' : 'etcdEndpoints',
      'changesEtcdCaFile', 'changesEtcdCertFile'
    ),
    ...unpaired(settings, 'webhookUrl', 'webhookSecret'),
  ]
}

/** One sentence for each thing without which no change can be made. */
function missingPrerequisites (settings: Partial<Settings>, mode: AuthMode): Contradiction[] {
  const { auditSinks } = settings
  const enabled = `${variableOf('changes')} is enabled`
  const found: Contradiction[] = []
  if (mode !== 'oidc' && mode !== 'jwks') {
    found.push({
      about: ['authMode', 'oidcIssuer', 'authJwksFile', 'authJwksIssuer', 'authToken'],
      message: `${enabled} and the authentication mode is ${mode}: expected the mode oidc or jwks, since a change ` +
        `belongs to whoever requested it; set ${variableOf('oidcIssuer')}, or ${variableOf('authJwksFile')} and ` +
        variableOf('authJwksIssuer'),
    })
  }
  const required = {
    policyFile: 'a policy that says who may change what',
    kafkaBrokers: 'the brokers that changes are sent to',
    expectedClusterId: 'the id of the only cluster that may be changed',
  } as const
  for (const key of ['policyFile', 'kafkaBrokers', 'expectedClusterId'] as const) {
    if (settings[key] !== undefined) continue
    const message = `${variableOf(key)} is not set: expected ${required[key]}, since ${enabled}`
    found.push({ about: [key], message })
  }
  if (auditSinks && !auditSinks.some(({ kind }) => kind === 'file' || kind === 'http')) {
    found.push({
      about: ['auditSinks'],
      message: `${variableOf('auditSinks')} is ${quoteValue(auditSinks.map(({ kind }) => kind).join(','))}: ` +
        `expected file:PATH or a URL as well, since ${enabled} and nothing is changed without a durable record, ` +
        'which stdout cannot promise',
    })
  }
  return found
}

function unusedTls (
  settings: Partial<Settings>,
  tls: 'kafkaTls' | 'brokerControlTls',
  files: readonly SettingKey[]
): Contradiction[] {
  if (settings[tls] !== 'off') return []
  return files.filter(key => settings[key] !== undefined).map(key => ({
    about: [key, tls],
    message: `${variableOf(key)} is set and ${variableOf(tls)} is off: expected ${variableOf(tls)}=on, or neither`,
  }))
}

function incompleteSasl (settings: Partial<Settings>): Contradiction[] {
  const keys = ['kafkaSaslMechanism', 'kafkaSaslUsername', 'kafkaSaslPassword'] as const
  const set = keys.filter(key => settings[key] !== undefined)
  const unset = keys.filter(key => settings[key] === undefined)
  if (set.length === 0 || unset.length === 0) return []
  const list = (names: readonly SettingKey[]) =>
    `${names.map(variableOf).join(' and ')} ${names.length === 1 ? 'is' : 'are'}`
  return [{ about: keys, message: `${list(set)} set and ${list(unset)} not: expected all three or none` }]
}

function unusedControl (settings: Partial<Settings>): Contradiction[] {
  if (settings.brokerControlAddr !== undefined || settings.brokerControlTls !== 'on') return []
  const message = `${variableOf('brokerControlTls')} is on and ${variableOf('brokerControlAddr')} is not set: ` +
    'expected both or neither'
  return [{ about: ['brokerControlTls', 'brokerControlAddr'], message }]
}

/**
 * What is valid about the settings of changes but probably not intended.
 * @param set the variables of `CHANGES_SETTINGS` that are set
 */
export function changesWarnings (settings: Settings, set: readonly string[]): string[] {
  const { changes, kafkaBrokers = [], kafkaTls, kafkaSaslMechanism, webhookUrl, expectedClusterId } = settings
  if (changes !== 'enabled') {
    if (set.length === 0) return []
    return [`${set.join(', ')} ${set.length === 1 ? 'has' : 'have'} no effect: ${variableOf('changes')} is not enabled`]
  }
  const found = []
  if (kafkaSaslMechanism === 'PLAIN' && kafkaTls === 'off' && !kafkaBrokers.every(isOnThisMachine)) {
    found.push(
      `${variableOf('kafkaSaslMechanism')} is PLAIN and ${variableOf('kafkaTls')} is off: the password can be ` +
      'intercepted on the way to the brokers'
    )
  }
  if (webhookUrl && !isConfidential(reveal(webhookUrl))) {
    found.push(`${variableOf('webhookUrl')} is not https: others can read the changes that are sent to it`)
  }
  if (expectedClusterId === COMMON_CLUSTER_ID) {
    found.push(
      `${variableOf('expectedClusterId')} is ${quoteValue(expectedClusterId)}, the id of every cluster that ` +
      "KafScale's operator has not set up: it cannot tell such clusters apart"
    )
  }
  return found
}

function isOnThisMachine (broker: string): boolean {
  return isLoopback(broker.replace(/:[0-9]+$/, ''))
}
