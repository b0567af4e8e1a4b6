import { once } from 'node:events'
import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import t from 'tap'
import { verifyFiles } from '../../../plugins/audit/verify/index.ts'
import { buildAudit, events, recordsOf, startService } from '../../support/audit.ts'
import { waitFor } from '../../support/wait-for.ts'

const RUNS = 4
/** As many as can be queued. */
const RECORDS = 5_000

t.test('kill -9 under load loses no acknowledged record', async t => {
  const path = join(t.testdir(), 'audit.jsonl')
  const acknowledged: string[] = []
  for (let run = 0; run < RUNS; run++) {
    const service = startService(t, { auditSinks: [{ kind: 'file', path }] })
    let ready = false
    createInterface({ input: service.stdio[3] as NodeJS.ReadableStream }).on('line', line => {
      ready = true
      if (line.endsWith(' ok')) acknowledged.push(line.slice(0, -3))
    })
    await waitFor(() => ready, 10_000, 'a start')
    // More than it can record before it is killed.
    service.stdin?.on('error', () => {})
    service.stdin?.write(
      Array.from({ length: RECORDS }, (_, id) => `${id % 7 === 0 ? 'durable ' : ''}${run}-${id}\n`).join('')
    )
    await waitFor(() => acknowledged.length > 500 * (run + 1) || acknowledged.length, 10_000, 'load')
    service.kill('SIGKILL')
    await once(service, 'close')
    t.ok(acknowledged.filter(id => id.startsWith(`${run}-`)).length < RECORDS, 'it was killed before it finished')
    // As an interrupted write leaves it.
    if (run % 2 === 1) appendFileSync(path, '{"decision":"all')
  }

  const app = await buildAudit(t, { auditSinks: [{ kind: 'file', path }] })
  await app.close()
  const recorded = new Set(recordsOf(path).map(({ where }) => where?.request_id))
  t.strictSame(acknowledged.filter(id => !recorded.has(id)), [])
  t.ok(acknowledged.length > RUNS * 500)
  t.equal(events(path).filter(event => event === 'start').length, RUNS + 1)
  t.ok(events(path).filter(event => event === 'torn_line').length >= RUNS / 2)
  const beforeStarts = recordsOf(path).filter(({ event }) => event !== 'torn_line').flatMap(({ event }, index, all) =>
    event === 'start' ? all[index - 1]?.['continues'] : []
  )
  t.match(
    beforeStarts,
    [{ closed: null }, ...Array<object>(RUNS).fill({ closed: false })],
    'records that a run left without a checkpoint get one before the next start'
  )
  const { exitCode, findings } = await verifyFiles([path])
  t.equal(exitCode, 0, findings.join('\n'))
})
