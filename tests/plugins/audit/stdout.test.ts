import { execFileSync } from 'node:child_process'
import { closeSync, constants, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parseRecord } from '../../../plugins/audit/chain.ts'
import { stdoutMedium } from '../../../plugins/audit/sinks/stdout.ts'
import { body, sinkOver } from '../../support/audit.ts'
import { waitFor } from '../../support/wait-for.ts'

t.test('a full pipe is waited for, and loses nothing', async t => {
  const path = join(t.testdir(), 'pipe')
  execFileSync('mkfifo', [path])
  const pipe = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
  t.teardown(() => closeSync(pipe))
  const sink = sinkOver(stdoutMedium(pipe))
  let accepted = 0
  for (let written = 0; written < 200; written++) {
    void sink.write(body({ rule: 'x'.repeat(1_000) }), false).then(() => accepted++)
  }
  let text = ''
  await waitFor(() => {
    text += read(pipe)
    return accepted === 200 || accepted
  }, 4_000, 'all accepted')
  const closed = sink.close()
  await waitFor(() => {
    text += read(pipe)
    return text.split('\n').length === 203
  }, 4_000, 'a header, 200 records and a closing checkpoint')
  await closed
  t.ok(text.split('\n').slice(0, -1).every(line => parseRecord(Buffer.from(line))))
})

/** What is in the pipe now. */
function read (pipe: number): string {
  const buffer = Buffer.alloc(1024 * 1024)
  try {
    return buffer.toString('utf8', 0, readSync(pipe, buffer))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return ''
    throw error
  }
}

t.test('a stream that cannot be written to accepts nothing', async t => {
  const readOnly = openSync('/dev/null', 'r')
  t.teardown(() => closeSync(readOnly))
  const sink = sinkOver(stdoutMedium(readOnly))
  await t.rejects(sink.write(body(), false), { code: 'EBADF' })
  t.match(sink.state, { kind: 'stdout', state: 'failed', reason: 'write: EBADF', missed: 1 })
  await sink.close()
})
