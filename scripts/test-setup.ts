/**
 * Sees to what the tests need and npm doesn't bring: etcd 3.4, openssl and curl, which are installed where that is possible.
 * What only some tests need, and are skipped without, is promtool, which comes with Debian's Prometheus, etcdctl, and etcd 3.6 and
 * Helm, which are built where Go is there to do it. With `CI` set all of it must be there.
 */
import { execFile, spawnSync } from 'node:child_process'
import { existsSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { helm } from '../tests/support/chart.ts'
import { etcd36 } from '../tests/support/etcd.ts'
import { ROOT } from '../tests/support/paths.ts'

const exists = (command: string) => spawnSync(command, ['--version']).error === undefined
const succeeds = (command: string, args: string[]) => spawnSync(command, args, { stdio: 'inherit' }).status === 0

const missing = (packages: Record<string, string>) =>
  Object.entries(packages).flatMap(([command, name]) => exists(command) ? [] : name)
const needed = missing({ etcd: 'etcd-server', openssl: 'openssl', curl: 'curl' })
const wanted = missing({ promtool: 'prometheus', etcdctl: 'etcd-client' })
const install = ['apt-get', 'install', '-y', '--no-install-recommends', ...needed, ...wanted]
if (needed.length + wanted.length > 0) {
  const installed = process.getuid?.() === 0 && succeeds('apt-get', ['update']) &&
    succeeds('env', ['DEBIAN_FRONTEND=noninteractive', ...install])
  if (!installed) {
    console.error(
      `${needed.length > 0 ? 'The tests' : 'Some tests'} need ${
        [...needed, ...wanted].join(' and ')
      }; install with: sudo ${install.join(' ')}`
    )
    if (needed.length > 0 || process.env['CI']) process.exit(1)
  }
}

/** Builds the module of a folder, whose go.sum says what goes into it. Resolves to why there is none, if so. */
async function build (name: string, target: string, folder: string, main: string): Promise<string[]> {
  if (existsSync(target)) return []
  const unfinished = `${target}.${process.pid}`
  try {
    await promisify(execFile)('go', ['build', '-buildvcs=false', '-ldflags=-s -w', '-o', unfinished, main], {
      cwd: join(ROOT, 'tests/support', folder),
    })
    renameSync(unfinished, target)
    return []
  } catch (error) {
    return [
      exists('go')
        ? `${name} could not be built: ${(error as Error).message}`
        : `There is no Go to build ${name} with.`,
    ]
  }
}

// Together they take as long as the machine's cores need, and one alone does not keep them busy.
const failures = (await Promise.all([
  build('etcd 3.6', etcd36, 'etcd-3.6', '.'),
  build('Helm', helm, 'helm-3', 'helm.sh/helm/v3/cmd/helm'),
])).flat()
for (const failure of failures) console.error(failure)
if (failures.length > 0 && process.env['CI']) process.exit(1)
