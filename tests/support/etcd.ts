/** Real etcd processes for tests. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { ConstantBackoff, handleWhen, noop, retry } from 'cockatiel'
import { Etcd3, isRecoverableError, Range } from 'etcd3'
import parsePrometheusTextFormat from 'parse-prometheus-text-format'
import { etcd36, exists } from './programs.ts'
import { scaled, type Teardown, temporaryFolder } from './run.ts'
import { waitFor } from './wait-for.ts'

export type { Teardown } from './run.ts'

export type EtcdVersion = '3.4' | '3.6'

/** The versions to test with: the machine's own (Debian's is 3.4) always, 3.6 where it could be built. */
export const etcdVersions: readonly EtcdVersion[] = existsSync(etcd36) ? ['3.4', '3.6'] : ['3.4']

/**
 * Options of a test that needs etcd: it is skipped where there is none. `scripts/test-setup.ts` tells how to get one.
 */
export const needsEtcd = () => ({ skip: exists('etcd') ? false : 'there is no etcd' })

export interface EtcdOptions {
  version?: EtcdVersion
  /** Default 1. */
  members?: number
  /** Enables authentication, with two users: root, and one that can only read the prefix `/kafscale/`. */
  auth?: boolean
  /** How long an unused token is valid; etcd's default is 300. */
  authTokenTtlSeconds?: number
  /** The largest write; etcd's default is 1.5 MB. */
  maxRequestBytes?: number
  /** Clients connect over TLS, with a client certificate when it is `mutual`. */
  tls?: boolean | 'mutual'
}

/** An etcd of one or more members. A method with an optional member index acts on all members without it. */
export interface Etcd {
  endpoints: string[]
  /** The service's settings for it, with the read-only user. */
  env: Record<string, string>
  /** A client with all permissions. It retries for some seconds while etcd is down. */
  client: Etcd3
  /** As `client`, but each operation is tried once. */
  once: Etcd3
  /** Ends processes with SIGKILL. */
  kill: (member?: number) => Promise<void>
  /** Starts processes on the same ports and data, killing them first, and waits until they answer. */
  restart: (member?: number) => Promise<void>
  /** Stops processes with SIGSTOP: connections stay open and nothing answers. */
  pause: (member?: number) => void
  resume: (member?: number) => void
  /** Compacts to a revision, by default the current one, and resolves to it. */
  compact: (revision?: string) => Promise<string>
  /** The index of the leader. Requires all members to run. */
  leader: () => Promise<number>
  /** Moves leadership to another member and resolves to its index. Requires all members to run. */
  moveLeader: () => Promise<number>
  /** Sums a counter or gauge over the `/metrics` pages of the running members, for the samples with these labels. */
  metric: (name: string, labels?: Record<string, string>) => Promise<number>
}

interface Member {
  endpoint: string
  metricsUrl: string
  logFile: string
  args: string[]
  process?: ChildProcess
}

const START_BOUND_MS = 15_000
const READER = { username: 'kafscale', password: 'read-only' }
const ROOT_USER = { username: 'root', password: 'root' }

/** Starts an etcd on free loopback ports. The teardown of `t` removes it and its data. */
export async function startEtcd (t: Teardown, options: EtcdOptions = {}): Promise<Etcd> {
  const { version = '3.4', members: count = 1, auth = false, authTokenTtlSeconds = 300, tls = false } = options
  const dir = temporaryFolder(t)
  const members: Member[] = []
  const clients: Etcd3[] = []

  const pems = tls === false ? undefined : certificates(dir)
  const flags = [
    '--unsafe-no-fsync', // data survives a crash of the process, though not of the machine
    // Without peers to wait for, it elects itself and starts in a fifth of a second.
    ...count === 1 ? ['--heartbeat-interval', '20', '--election-timeout', '100'] : [],
    ...options.maxRequestBytes ? ['--max-request-bytes', `${options.maxRequestBytes}`] : [],
    ...auth ? ['--auth-token-ttl', `${authTokenTtlSeconds}`, '--bcrypt-cost', '4'] : [],
    ...pems ? ['--cert-file', pems.server.cert, '--key-file', pems.server.key] : [],
    ...pems && tls === 'mutual' ? ['--client-cert-auth', '--trusted-ca-file', pems.ca.cert] : [],
  ]
  const peers: string[] = []
  for (let index = 0; index < count; index++) {
    const endpoint = `${pems ? 'https' : 'http'}://127.0.0.1:${await freePort()}`
    const peerUrl = `http://127.0.0.1:${await freePort()}`
    const metricsUrl = `http://127.0.0.1:${await freePort()}`
    const name = `member-${index}`
    peers.push(`${name}=${peerUrl}`)
    members.push({
      endpoint,
      metricsUrl,
      logFile: join(dir, `${name}.log`),
      args: [
        '--name', name, '--data-dir', join(dir, name), '--listen-metrics-urls', metricsUrl,
        '--listen-client-urls', endpoint, '--advertise-client-urls', endpoint,
        '--listen-peer-urls', peerUrl, '--initial-advertise-peer-urls', peerUrl, ...flags,
      ],
    })
  }

  const start = async (targets: Member[]) => {
    for (const member of targets) {
      const log = openSync(member.logFile, 'a')
      member.process = spawn(
        version === '3.6' ? etcd36 : 'etcd',
        [...member.args, '--initial-cluster', peers.join(',')],
        // etcd 3.4 refuses to run on arm64 without this variable; elsewhere it has no effect.
        { env: { PATH: process.env['PATH'], ETCD_UNSUPPORTED_ARCH: 'arm64' }, stdio: ['ignore', log, log] }
      )
      endWithThisProcess(member.process)
      closeSync(log)
    }
    await Promise.all(
      targets.map(async ({ endpoint, metricsUrl, logFile }) =>
        await waitFor(
          async () => await healthy(metricsUrl) || readFileSync(logFile, 'utf8').slice(-2_000),
          START_BOUND_MS,
          `etcd ${version} at ${endpoint}`
        )
      )
    )
  }
  const some = (member?: number) => member === undefined ? members : members.slice(member, member + 1)
  const running = () =>
    members.filter(({ process }) => process && process.exitCode === null && process.signalCode === null)
  const signal = (name: NodeJS.Signals, member?: number) => {
    for (const { process } of some(member)) process?.kill(name)
  }
  const kill = async (member?: number) => {
    await Promise.all(some(member).filter(target => running().includes(target)).map(async ({ process }) => {
      process?.kill('SIGKILL')
      if (process) await once(process, 'exit')
    }))
  }

  const connect = (hosts: string[], user?: typeof ROOT_USER, maxAttempts = 50): Etcd3 => {
    const client = new Etcd3({
      hosts,
      ...user && { auth: user },
      ...pems && {
        credentials: {
          rootCertificate: readFileSync(pems.ca.cert),
          privateKey: readFileSync(pems.client.key),
          certChain: readFileSync(pems.client.cert),
        },
      },
      defaultCallOptions: ({ isStream }) => isStream ? {} : { deadline: Date.now() + scaled(2_000) },
      grpcOptions: { 'grpc.use_local_subchannel_pool': 1 }, // a new channel must not inherit the backoff of an old one
      faultHandling: {
        host: () => noop, // the default is a circuit breaker that stays open for 5 s
        global: retry(handleWhen(isRecoverableError), { maxAttempts, backoff: new ConstantBackoff(100) }),
        watchBackoff: new ConstantBackoff(100).next(), // the default grows to 30 s
      },
    })
    clients.push(client)
    return client
  }

  t.teardown(async () => {
    for (const client of clients) client.close()
    await kill()
  })
  await start(members)
  const endpoints = members.map(({ endpoint }) => endpoint)
  if (auth) await enableAuth(connect(endpoints))
  const client = connect(endpoints, auth ? ROOT_USER : undefined)
  // One client per member, for questions about that member.
  const each = endpoints.map(endpoint => connect([endpoint], auth ? ROOT_USER : undefined).maintenance)

  const leader = async () => {
    const statuses = await Promise.all(each.map(async maintenance => await maintenance.status()))
    return statuses.findIndex(({ header, leader }) => header.member_id === leader)
  }

  return {
    endpoints,
    env: {
      KAFSCALE_MCP_ETCD_ENDPOINTS: endpoints.join(','),
      ...auth && { KAFSCALE_MCP_ETCD_USERNAME: READER.username, KAFSCALE_MCP_ETCD_PASSWORD: READER.password },
      ...pems && { KAFSCALE_MCP_ETCD_CA_FILE: pems.ca.cert },
      ...pems && tls === 'mutual' &&
        { KAFSCALE_MCP_ETCD_CERT_FILE: pems.client.cert, KAFSCALE_MCP_ETCD_KEY_FILE: pems.client.key },
    },
    client,
    once: connect(endpoints, auth ? ROOT_USER : undefined, 0),
    kill,
    restart: async member => {
      await kill(member)
      await start(some(member))
    },
    pause: member => signal('SIGSTOP', member),
    resume: member => signal('SIGCONT', member),
    compact: async revision => {
      const at = revision ?? (await client.kv.range({ key: Buffer.of(0), count_only: true })).header.revision
      await client.kv.compact({ revision: at, physical: true })
      return at
    },
    leader,
    moveLeader: async () => {
      const from = await leader()
      const to = (from + 1) % members.length
      const { header } = await each[to]!.status()
      await each[from]!.moveLeader({ targetID: header.member_id })
      return to
    },
    metric: async (name, labels = {}) => {
      const pages = await Promise.all(
        running().map(async ({ metricsUrl }) => await (await fetch(`${metricsUrl}/metrics`)).text())
      )
      const samples = pages.flatMap(page => parsePrometheusTextFormat(page)).filter(family => family.name === name)
        .flatMap(({ metrics }) => metrics)
      return samples
        .filter(sample => Object.entries(labels).every(([label, value]) => sample.labels?.[label] === value))
        .reduce((sum, sample) => sum + Number(sample.value), 0)
    },
  }
}

/** Ends a child when this process ends, even by SIGKILL: a watchdog reads from a pipe that this process keeps open. */
function endWithThisProcess (child: ChildProcess): void {
  const watchdog = spawn('sh', ['-c', 'read -r _; kill -KILL "$1"', 'sh', `${child.pid}`], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true, // so that Ctrl-C does not end it first
  })
  child.once('exit', () => watchdog.kill('SIGKILL'))
}

/** Whether a member answers linearizable reads. */
async function healthy (metricsUrl: string): Promise<boolean> {
  return await fetch(`${metricsUrl}/health`).then(({ ok }) => ok, () => false)
}

async function enableAuth (client: Etcd3): Promise<void> {
  const root = await client.user(ROOT_USER.username).create(ROOT_USER.password)
  await root.addRole(await client.role('root').create())
  const reads = await client.role('reads-kafscale').create()
  await reads.grant({ permission: 'Read', range: Range.prefix('/kafscale/') })
  const reader = await client.user(READER.username).create(READER.password)
  await reader.addRole(reads)
  await client.auth.authEnable()
}

interface Pem { cert: string, key: string }

/** A CA, and a server certificate for 127.0.0.1 and a client certificate that it signed. */
function certificates (dir: string): { ca: Pem, server: Pem, client: Pem } {
  const make = (name: string, ...args: string[]): Pem => {
    const pem = { cert: join(dir, `${name}.crt`), key: join(dir, `${name}.key`) }
    execFileSync('openssl', [
      'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-noenc', '-days', '1',
      '-subj', `/CN=${name}`, '-keyout', pem.key, '-out', pem.cert, ...args,
    ], { stdio: 'pipe' })
    return pem
  }
  const ca = make('ca')
  const signed = ['-CA', ca.cert, '-CAkey', ca.key, '-addext', 'basicConstraints=critical,CA:FALSE']
  return {
    ca,
    server: make('server', ...signed, '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost'),
    client: make('client', ...signed),
  }
}

// Below the ephemeral range, so that no one takes a port while its etcd is down; each process has a hundred of its own.
let nextPort = 20_000 + process.pid % 100 * 100

export async function freePort (): Promise<number> {
  for (;;) {
    const port = nextPort++
    const server = createServer()
    try {
      await once(server.listen(port, '127.0.0.1'), 'listening')
      return port
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
    } finally {
      server.close()
    }
  }
}
