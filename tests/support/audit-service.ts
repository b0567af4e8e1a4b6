/**
 * A service that only records, as a process that a test can kill. Each line of standard input is a request id to
 * record, or `durable ID` to record durably. On descriptor 3 it writes `ready`, then `ID ok` or `ID CODE` for each
 * request.
 */
import { writeSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { auditApp, entry } from './audit.ts'

const app = auditApp(JSON.parse(process.argv[2] ?? '{}'))
await app.ready()
writeSync(3, 'ready\n')

for await (const line of createInterface({ input: process.stdin })) {
  const id = line.replace('durable ', '')
  const given = entry({
    where: { remote_address: null, user_agent: null, mcp_client: null, request_id: id, trace_id: null },
  })
  const recorded = line === id ? app.audit.record(given) : app.audit.recordDurably(given)
  void recorded.then(() => 'ok', error => error.code).then(outcome => writeSync(3, `${id} ${outcome}\n`))
}
await app.close()
