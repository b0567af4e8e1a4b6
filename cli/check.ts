/** `kafscale-mcp check`: finds out whether the service, or `kafscale-mcp stdio`, could start and work. */
import type { FastifyInstance } from 'fastify'
import { buildClusterApp } from '../app.ts'
import { ConfigError } from '../errors.ts'
import { type Config, readConfig } from '../plugins/config/read.ts'
import { readStdioConfig } from '../plugins/config/stdio.ts'
import { checkAudit } from './checks/audit.ts'
import { checkAuthentication, checkPolicy } from './checks/callers.ts'
import { checkCluster } from './checks/cluster.ts'
import { type Finding, lineOf } from './checks/finding.ts'
import { checkListeners } from './checks/listeners.ts'
import { onlyHelp } from './only-help.ts'

const USAGE = `Usage:
  kafscale-mcp check [stdio]
      Reads the environment variables of the service, and reports, one line for each item, whether the settings are
      valid, etcd answers and its user can read the prefix and nothing more, the snapshot decodes, the brokers' metrics
      pages can be read, the keys of token issuers load, the policy is valid, audit sinks are writable, and the
      addresses can be listened on. If changes are enabled, also whether their ledger, the brokers and the control
      plane answer. Writes nothing: no record, no lock, no key. With stdio, it reads them as kafscale-mcp stdio does,
      which has neither issuers nor addresses nor changes. Exit codes: 0 nothing failed, 1 something failed, 2 the
      command line is wrong.
`

/** How to read the settings, and what to check once they are valid. */
interface Mode { read: () => Config, checks: readonly ((app: FastifyInstance) => AsyncGenerator<Finding>)[] }

const SERVICE: Mode = {
  read: readConfig,
  checks: [checkCluster, checkChanges, checkAuthentication, checkPolicy, checkAudit, checkListeners],
}
const STDIO: Mode = {
  read: readStdioConfig,
  checks: [checkCluster, checkPolicy, app => checkAudit(app, { isOptional: true })],
}

/** What changes need is not even loaded unless they are enabled. */
async function * checkChanges (app: FastifyInstance): AsyncGenerator<Finding> {
  const { changes } = app.config
  if (changes) yield * (await import('./checks/changes.ts')).checkChanges(app, changes)
}

/** Runs `check`. Resolves to the exit code. */
export async function check (args: string[]): Promise<number> {
  const isStdio = args[0] === 'stdio'
  const exitCode = onlyHelp('check', isStdio ? args.slice(1) : args, USAGE)
  if (exitCode !== undefined) return exitCode
  let failed = 0
  for await (const finding of findings(isStdio ? STDIO : SERVICE)) {
    if (finding.level === 'failed') failed++
    process.stdout.write(lineOf(finding))
  }
  return failed > 0 ? 1 : 0
}

async function * findings ({ read, checks }: Mode): AsyncGenerator<Finding> {
  const item = 'settings'
  let config: Config
  try {
    config = read()
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    for (const detail of error.message.split('\n')) yield { level: 'failed', item, detail }
    yield { level: 'skipped', item: 'everything else', detail: 'the settings are not valid' }
    return
  }
  // Nothing is sent to a trace collector, and there is no mirror to compare.
  const app = await buildClusterApp({ ...config, tracing: false, verifyIntervalMs: 0 })
  if (config.changes) await (await import('./checks/changes.ts')).registerChanges(app)
  try {
    const problem = await app.ready().then(() => undefined, (error: Error) => error)
    if (problem && !(problem instanceof ConfigError)) throw problem
    yield problem
      ? { level: 'failed', item, detail: problem.message }
      : { level: 'ok', item, detail: 'are valid' }
    for (const detail of config.warnings) yield { level: 'warning', item, detail }
    for (const check of checks) yield * check(app)
  } finally {
    await app.close()
  }
}
