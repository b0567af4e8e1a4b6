/**
 * Sees to what the tests need and npm doesn't bring: etcd 3.4, openssl and curl, which are installed where that is possible, and
 * etcd 3.6, which is built where Go is there to do it. With `CI` set it must be.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, renameSync } from 'node:fs'
import { etcd36 } from './etcd.ts'

const exists = (command: string) => spawnSync(command, ['--version']).error === undefined
const succeeds = (command: string, args: string[], cwd?: string) => spawnSync(command, args, { cwd, stdio: 'inherit' }).status === 0

const packages = Object.entries({ etcd: 'etcd-server', openssl: 'openssl', curl: 'curl' }).flatMap(([command, name]) => exists(command) ? [] : name)
const install = ['apt-get', 'install', '-y', '--no-install-recommends', ...packages]
if (packages.length > 0) {
  const installed = process.getuid?.() === 0 && succeeds('apt-get', ['update']) && succeeds('env', ['DEBIAN_FRONTEND=noninteractive', ...install])
  if (!installed) {
    console.error(`The tests need ${packages.join(' and ')}; install with: sudo ${install.join(' ')}`)
    process.exit(1)
  }
}

if (!existsSync(etcd36)) {
  const unfinished = `${etcd36}.${process.pid}`
  const go = exists('go')
  if (go && succeeds('go', ['build', '-buildvcs=false', '-o', unfinished, '.'], `${import.meta.dirname}/etcd-3.6`)) {
    renameSync(unfinished, etcd36)
  } else {
    console.error(go ? 'etcd 3.6 could not be built.' : 'There is no Go to build etcd 3.6 with.')
    if (process.env['CI']) process.exit(1)
  }
}
