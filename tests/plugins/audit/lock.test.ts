/** At most one process writes to an audit file. */
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import { FileLock, type Holder } from '../../../plugins/audit/sinks/lock.ts'
import { verifyFiles } from '../../../plugins/audit/verify/index.ts'
import { body, events, fileSink, startService as startRecorder } from '../../support/audit.ts'
import { startService } from '../../support/service.ts'
import { waitFor } from '../../support/wait-for.ts'

const WITHIN_MS = 10_000
const OTHER = 'other-host'
/** The id of a user without any rights. */
const NOBODY = 65_534

function logIn (t: Test): string {
  return join(t.testdir(), 'audit.jsonl')
}

/** A lock whose holder is released with the test. */
function lockAt (t: Test, path: string, host?: string): FileLock {
  const lock = new FileLock(path, host)
  t.teardown(() => lock.release())
  return lock
}

const holderOf = (lock: string): Holder => JSON.parse(readFileSync(lock, 'utf8'))

/** Leaves the lock of a process that is gone, as a crash does. */
function leave (lock: string, { silentMs = 0, ...more }: Partial<Holder> & { silentMs?: number } = {}): void {
  const holder: Holder = {
    host: hostname(),
    pid: 1,
    since: '2026-01-01T00:00:00.000Z',
    instance: '0123456789abcdef',
    reach: null,
    ...more,
  }
  writeFileSync(lock, `${JSON.stringify(holder)}\n`)
  const renewed = new Date(Date.now() - silentMs)
  utimesSync(lock, renewed, renewed)
}

const serviceEnv = (path: string) => ({ KAFSCALE_MCP_AUDIT_SINKS: `file:${path}` })

t.test('a second service on the same file does not start, and says who writes to it', async t => {
  const path = logIn(t)
  const first = startService(t, serviceEnv(path))
  await first.url
  const { pid, since, host } = holderOf(`${path}.lock`)
  t.strictSame({ pid, host }, { pid: first.process.pid, host: hostname() })
  t.equal(statSync(`${path}.lock`).mode & 0o777, 0o600)
  const second = startService(t, serviceEnv(path))
  t.equal(await second.exit, 1)
  t.ok(second.output.stderr.endsWith(
    `kafscale-mcp does not start:\nKAFSCALE_MCP_AUDIT_SINKS names "${path}", to which another process of the service ` +
      `(host "${host}", process ${pid}, since "${since}") writes: stop that process, or give each process a file of ` +
      'its own\n'
  ), second.output.stderr)
  first.process.kill('SIGTERM')
  await first.exit
  t.strictSame(events(path), ['header', 'start', 'stop', 'checkpoint'], 'the second process wrote nothing')
  t.notOk(existsSync(`${path}.lock`), 'a process that ends gives the lock back')
})

t.test('a service that is suspended still has its file', async t => {
  const path = logIn(t)
  const first = startService(t, serviceEnv(path))
  await first.url
  first.process.kill('SIGSTOP')
  const second = startService(t, serviceEnv(path))
  t.equal(await second.exit, 1)
  first.process.kill('SIGCONT')
})

t.test('a service that was killed is replaced at once', async t => {
  const path = logIn(t)
  for (const run of [1, 2, 3]) {
    const service = startService(t, serviceEnv(path))
    await service.url
    t.equal(holderOf(`${path}.lock`).pid, service.process.pid, `run ${run}`)
    t.notMatch(service.output.stderr, 'holds the lock', 'it did not wait')
    service.process.kill('SIGKILL')
    await service.exit
  }
  const files = readdirSync(join(path, '..')).map(name => join(path, '..', name))
  t.strictSame(files, [path, `${path}.lock`])
  const { exitCode, findings } = await verifyFiles(files)
  t.equal(exitCode, 0, 'a glob may match the lock too')
  t.match(findings.join('\n'), 'audit.jsonl.lock: skipped: the lock of the process that writes the log')
})

t.test('a lock of this host whose holder cannot be seen is taken over when it is not renewed', async t => {
  // As in a container that was restarted with another network.
  const lock = join(t.testdir(), 'lock')
  leave(lock)
  const mine = lockAt(t, lock)
  t.match(await mine.hold(), { holder: { pid: 1 }, running: false })
  let waited = 0
  t.equal(await mine.acquire(() => waited++), undefined)
  t.equal(waited, 1)
  t.equal(holderOf(lock).pid, process.pid)
})

t.test('a lock of another host is taken over after 30 s without renewal, and not before', async t => {
  const lock = join(t.testdir(), 'lock')
  leave(lock, { host: OTHER, silentMs: 20_000 })
  const mine = lockAt(t, lock)
  await mine.hold()
  const renewedMs = statSync(lock).mtimeMs
  await waitFor(async () => {
    const held = await mine.hold()
    if (!held) return true
    t.equal(held.running, false)
    return statSync(lock).mtimeMs === renewedMs && 'still waiting'
  }, 15_000, 'the lock')
  t.ok(Date.now() - renewedMs >= 30_000)
  t.equal(holderOf(lock).pid, process.pid)
})

t.test('a lock of another host that is renewed is not taken over, however far its clock is off', async t => {
  const lock = join(t.testdir(), 'lock')
  leave(lock, { host: OTHER, silentMs: 3_600_000 })
  const mine = lockAt(t, lock)
  t.match(await mine.hold(), { running: false })
  const renewed = new Date(Date.now() - 3_599_000)
  utimesSync(lock, renewed, renewed)
  t.match(await mine.acquire(() => {}), { holder: { host: OTHER }, running: true })
})

t.test('a lock whose holder this machine can see to run is not taken over, whatever its host and age', async t => {
  const lock = join(t.testdir(), 'lock')
  const theirs = lockAt(t, lock, OTHER)
  t.equal(await theirs.hold(), undefined)
  utimesSync(lock, new Date(0), new Date(0))
  t.match(await lockAt(t, lock).hold(), { holder: { host: OTHER }, running: true })
})

t.test('of many processes that find an abandoned lock, one gets it', async t => {
  const lock = join(t.testdir(), 'lock')
  for (let round = 0; round < 20; round++) {
    const gone = new FileLock(lock)
    await gone.hold()
    const holder = holderOf(lock)
    await gone.release()
    leave(lock, holder)
    const locks = Array.from({ length: 8 }, () => new FileLock(lock))
    const held = await Promise.all(locks.map(async lock => {
      for (;;) {
        const held = await lock.hold()
        if (!held || held.running) return held
      }
    }))
    t.equal(held.filter(held => held === undefined).length, 1)
    const checked = await Promise.all(locks.map(async lock => await lock.hold()))
    t.equal(checked.filter(held => held === undefined).length, 1, 'and keeps it')
    await Promise.all(locks.map(async lock => { await lock.release() }))
    t.strictSame(readdirSync(join(lock, '..')), [], 'nothing is left')
  }
})

t.test('a crash while a lock is created or taken over delays the next process, and no more', async t => {
  const dir = t.testdir()
  const lock = join(dir, 'lock')
  const old = new Date(Date.now() - 31_000)
  for (const content of ['', undefined]) {
    if (content === undefined) {
      leave(lock, { silentMs: 31_000 })
      writeFileSync(`${lock}.0123456789abcdef`, 'unfinished')
      utimesSync(`${lock}.0123456789abcdef`, old, old)
    } else {
      writeFileSync(lock, content)
      utimesSync(lock, old, old)
    }
    const mine = new FileLock(lock)
    t.equal(await mine.acquire(() => {}), undefined)
    await mine.release()
    t.strictSame(readdirSync(dir), [])
  }
})

t.test('a process that has lost its lock writes nothing more', async t => {
  const path = logIn(t)
  const sink = fileSink(path)
  await sink.write(body(), false)
  const before = readFileSync(path, 'utf8')
  rmSync(`${path}.lock`)
  leave(`${path}.lock`, { host: OTHER, pid: 7 })
  const refused = /^another process of the service \(host "other-host", process 7, since ".+"\) has the lock/
  await t.rejects(sink.write(body(), true), { message: refused })
  t.match(sink.state, { state: 'failed', reason: refused })
  rmSync(`${path}.lock`)
  await t.rejects(sink.write(body(), true), { message: refused }, 'even when the other process has ended')
  await sink.close()
  t.equal(readFileSync(path, 'utf8'), before)
})

t.test('a lock file that somebody deletes is created again', async t => {
  const path = logIn(t)
  const sink = fileSink(path)
  await sink.write(body(), false)
  rmSync(`${path}.lock`)
  await sink.write(body(), false)
  t.equal(holderOf(`${path}.lock`).pid, process.pid)
  const other = fileSink(path, { host: OTHER })
  await t.rejects(other.write(body(), false), { message: /has the lock of the file/ })
  await other.close()
  await sink.close()
  t.strictSame(events(path), ['header', 'tool_call', 'tool_call', 'checkpoint'])
})

t.test('what is no lock is left alone', async t => {
  for (const content of ['root:x:0:0\n', '{"host":"a"}\n', '['.repeat(5_000)]) {
    const path = logIn(t)
    writeFileSync(`${path}.lock`, content)
    utimesSync(`${path}.lock`, new Date(0), new Date(0))
    const sink = fileSink(path)
    await t.rejects(sink.write(body(), false), { message: /\.lock next to it is not a lock of the service: move it/ })
    await sink.close()
    t.equal(readFileSync(`${path}.lock`, 'utf8'), content)
    t.notOk(existsSync(path))
    rmSync(`${path}.lock`)
  }
  const path = logIn(t)
  writeFileSync(`${path}.target`, '')
  symlinkSync(`${path}.target`, `${path}.lock`)
  const sink = fileSink(path)
  await t.rejects(sink.write(body(), false), { message: /symbolic link/ })
  await sink.close()
  t.equal(readFileSync(`${path}.target`, 'utf8'), '')
})

t.test('no lock is created next to a file that is not an audit log', async t => {
  const dir = t.testdir({ passwd: 'root:x:0:0\n' })
  const sink = fileSink(join(dir, 'passwd'))
  await t.rejects(sink.write(body(), false), { message: /not an audit log/ })
  t.strictSame(readdirSync(dir), ['passwd'])
  await sink.close()
})

t.test('a folder that cannot be written to', async t => {
  const path = logIn(t)
  mkdirSync(join(path, '..'), { recursive: true })
  chmodSync(join(path, '..'), 0o500)
  // The superuser can write to any folder.
  const isRoot = process.getuid?.() === 0
  if (isRoot) process.seteuid?.(NOBODY)
  try {
    const sink = fileSink(path)
    await sink.prepare()
    await t.rejects(sink.write(body(), false), { code: 'EACCES' })
    await sink.close()
  } finally {
    if (isRoot) process.seteuid?.(0)
  }
  chmodSync(join(path, '..'), 0o700)
})

// Needs a UTS namespace, for a process with another host name on this machine.
const namespaces = spawnSync('unshare', ['-Uru', 'true']).status === 0
if (namespaces) {
  t.test('a live process with another host name is recognized', async t => {
    const path = logIn(t)
    const other = startRecorder(t, { auditSinks: [{ kind: 'file', path }] }, {
      wrapper: ['unshare', '-Uru', 'sh', '-c', `hostname ${OTHER} && exec "$@"`, '-'],
    })
    await waitFor(() => existsSync(`${path}.lock`), WITHIN_MS, 'the lock')
    const service = startService(t, serviceEnv(path))
    t.equal(await service.exit, 1)
    t.match(service.output.stderr, `(host "${OTHER}", process `)
    other.stdin?.end()
    await Promise.all([text(other.stdio[3] as NodeJS.ReadableStream), once(other, 'exit')])
    const next = startService(t, serviceEnv(path))
    await next.url
  })
}
