/** `kafscale-mcp check`: finds out whether the service could start and work with its settings. */
import { buildClusterApp } from '../app.ts'
import { ConfigError } from '../errors.ts'
import { type Config, readConfig } from '../plugins/config/read.ts'
import { checkAudit } from './checks/audit.ts'
import { checkCallers } from './checks/callers.ts'
import { checkChanges, registerChanges } from './checks/changes.ts'
import { checkCluster } from './checks/cluster.ts'
import { type Finding, lineOf } from './checks/finding.ts'
import { checkListeners } from './checks/listeners.ts'
import { onlyHelp } from './only-help.ts'

const USAGE = `Usage:
  kafscale-mcp check
      Reads the environment variables of the service, and reports, one line for each item, whether the settings are
      valid, etcd answers and its user can read the prefix and nothing more, the snapshot decodes, the brokers' metrics
      pages can be read, the keys of token issuers load, the policy is valid, audit sinks are writable, and the
      addresses can be listened on. If changes are enabled, also whether their ledger, the brokers and the control
      plane answer. Writes nothing: no record, no lock, no key. Exit codes: 0 nothing failed, 1 something failed,
      2 the command line is wrong.
`

/** Everything that is checked once the settings are valid. */
const CHECKS = [checkCluster, checkChanges, checkCallers, checkAudit, checkListeners]

/** Runs `check`. Resolves to the exit code. */
export async function check (args: string[]): Promise<number> {
  const exitCode = onlyHelp('check', args, USAGE)
  if (exitCode !== undefined) return exitCode
  let failed = 0
  for await (const finding of findings()) {
    if (finding.level === 'failed') failed++
    process.stdout.write(lineOf(finding))
  }
  return failed > 0 ? 1 : 0
}

async function * findings (): AsyncGenerator<Finding> {
  const item = 'settings'
  let config: Config
  try {
    config = readConfig()
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    for (const detail of error.message.split('\n')) yield { level: 'failed', item, detail }
    yield { level: 'skipped', item: 'everything else', detail: 'the settings are not valid' }
    return
  }
  // Nothing is sent to a trace collector, and there is no mirror to compare.
  const app = await buildClusterApp({ ...config, tracing: false, verifyIntervalMs: 0 })
  await registerChanges(app)
  try {
    const problem = await app.ready().then(() => undefined, (error: Error) => error)
    if (problem && !(problem instanceof ConfigError)) throw problem
    yield problem
      ? { level: 'failed', item, detail: problem.message }
      : { level: 'ok', item, detail: 'are valid' }
    for (const detail of config.warnings) yield { level: 'warning', item, detail }
    for (const checks of CHECKS) yield * checks(app)
  } finally {
    await app.close()
  }
}
