/** The schema of records. `check-records.ts` compares every record that the tests write with it. */
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Ajv2020 } from 'ajv/dist/2020.js'
import t from 'tap'
import { buildAudit, entry, recordsOf } from '../../support/audit.ts'
import { mistakesIn, SCHEMA_FILE } from '../../support/check-records.ts'
import { ROOT } from '../../support/paths.ts'

const schema = JSON.parse(readFileSync(SCHEMA_FILE, 'utf8'))
const place = { schema: 1, sequence: 2, prev: 'ab'.repeat(32), time: '2026-07-28T12:00:00.000Z' }
const event = { ...place, ...entry(), where: { ...entry().where, replica: 'a' } }

t.test('it is valid in strict mode, and accepts what a log contains', async t => {
  const validate = new Ajv2020({ strict: true, allowUnionTypes: true }).compile(schema)
  const path = join(t.testdir(), 'audit.jsonl')
  const app = await buildAudit(t, { auditSinks: [{ kind: 'file', path }] })
  await app.audit.record(entry())
  await app.close()
  const records = recordsOf(path)
  t.strictSame(records.map(({ event }) => event), ['header', 'checkpoint', 'start', 'tool_call', 'stop', 'checkpoint'])
  for (const record of records) t.ok(validate(record), record.event)
  t.ok(validate({ ...event, later: 1 }), 'a member that a later version has added')
})

t.test('the tests accept no record that it does not describe', async t => {
  t.equal(mistakesIn(event), '')
  const { who, rule, ...without } = event
  for (
    const [what, record] of Object.entries({
      'a missing member': { ...without, who },
      'a member that it does not have': { ...event, later: 1 },
      'a nested member that it does not have': { ...event, result: { ...event.result, later: 1 } },
      'an unknown event': { ...event, event: 'later' },
      'another type': { ...event, when: { ...event.when, duration_ms: '1' } },
      'a time that is not in UTC': { ...event, time: '2026-07-28T12:00:00+02:00' },
      'an event with the members of another': { ...event, event: 'gap' },
      'no record': null,
    })
  ) {
    t.not(mistakesIn(record), '', what)
  }
})

t.test('a process that writes another record ends', async t => {
  const script = `
    import { join } from 'node:path'
    import { auditApp, entry } from './tests/support/audit.ts'
    const app = auditApp({ auditSinks: [{ kind: 'file', path: process.argv[1] }] })
    await app.ready()
    await app.audit.record({ ...entry(), later: 1 })
    await new Promise(resolve => setTimeout(resolve, 60_000))`
  const run = promisify(execFile)(
    process.execPath,
    ['--input-type=module', '-e', script, '--', join(t.testdir(), 'audit.jsonl')],
    { cwd: ROOT }
  )
  await t.rejects(run, { code: 1, stderr: /audit-record\.json: event_record must NOT have additional properties/ })
})
