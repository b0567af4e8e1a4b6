import { mock } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import { BEGINNING, type ChainRecord, parseRecord } from '../../../plugins/audit/chain.ts'
import type { Medium } from '../../../plugins/audit/sinks/medium.ts'
import { body, sinkOver } from '../../support/audit.ts'
import { waitFor } from '../../support/wait-for.ts'

/** A medium that does what a test says and remembers what it was asked to do. */
function medium (more: Partial<Medium> = {}) {
  const done: string[] = []
  const records: ChainRecord[] = []
  let begins = true
  const fake: Medium = {
    kind: 'file',
    open: async position => ({ position: position ?? { file: 0, end: BEGINNING }, begins }),
    append: async (lines, onAttempt) => {
      await more.append?.(lines, onAttempt)
      done.push('append')
      begins = false
      for (const line of lines.split('\n').slice(0, -1)) records.push(parseRecord(Buffer.from(line)) as ChainRecord)
    },
    sync: async () => {
      await more.sync?.()
      done.push('sync')
    },
    close: async () => { done.push('close') },
  }
  return { fake, done, records, events: () => records.map(({ event }) => event) }
}

/** A clock that only advances when a test says so. */
function clock (t: Test): (ms: number) => Promise<void> {
  mock.timers.enable({ apis: ['setTimeout', 'setInterval'] })
  const now = performance.now()
  let passedMs = 0
  const performanceNow = mock.method(performance, 'now', () => now + passedMs)
  t.teardown(() => { mock.timers.reset(); performanceNow.mock.restore() })
  return async ms => {
    passedMs += ms
    mock.timers.tick(ms)
    for (let turns = 0; turns < 10; turns++) await turn()
  }
}

t.test('a record is accepted before it is fsynced, which happens within 100 ms', async t => {
  const pass = clock(t)
  const { fake, done } = medium()
  const sink = sinkOver(fake)
  await sink.write(body(), false)
  t.strictSame(done, ['append'])
  await pass(100)
  t.strictSame(done, ['append', 'sync'])
  await pass(1_000)
  t.strictSame(done, ['append', 'sync'], 'nothing is left to sync')
  await sink.close()
})

t.test('many records are one append and one fsync', async t => {
  const pass = clock(t)
  const { fake, done, records } = medium()
  const sink = sinkOver(fake)
  await Promise.all(Array.from({ length: 400 }, () => sink.write(body(), false)))
  await pass(100)
  t.strictSame(done, ['append', 'sync'])
  t.equal(records.length, 401)
  await sink.close()
})

t.test('a durable record is accepted only after an fsync that began after its append', async t => {
  const syncs: PromiseWithResolvers<void>[] = []
  const { fake, done } = medium({
    sync: () => {
      const sync = Promise.withResolvers<void>()
      syncs.push(sync)
      return sync.promise
    },
  })
  const sink = sinkOver(fake)
  const accepted: string[] = []
  const first = sink.write(body(), true).then(() => accepted.push('first'))
  await waitFor(() => syncs.length === 1 || done, 1_000, 'the first fsync')
  const second = sink.write(body(), true).then(() => accepted.push('second'))
  await sink.write(body(), false)
  t.strictSame(done, ['append', 'append'], 'an fsync under way delays no read')
  syncs[0]?.resolve()
  await first
  await waitFor(() => syncs.length === 2 || done, 1_000, 'the second fsync')
  t.strictSame(accepted, ['first'], 'the first fsync may have missed the second record')
  syncs[1]?.resolve()
  await second
  const closed = sink.close()
  await waitFor(() => syncs.length === 3 || done, 1_000, 'the last fsync')
  syncs[2]?.resolve()
  await closed
  t.equal(done.at(-1), 'close')
})

t.test('an fsync with nothing left to do does not prevent later ones', async t => {
  const pass = clock(t)
  const slow = Promise.withResolvers<void>()
  const { fake, done } = medium({ sync: () => slow.promise })
  const sink = sinkOver(fake)
  const first = sink.write(body(), true)
  await pass(0)
  await sink.write(body(), false)
  slow.resolve()
  await first
  await pass(0)
  t.strictSame(done, ['append', 'append', 'sync', 'sync'], 'the second one has come early')
  await pass(100)
  await sink.write(body(), false)
  await pass(100)
  t.strictSame(done.slice(4), ['append', 'sync'])
  await t.resolves(sink.write(body(), true))
  await sink.close()
})

t.test('a record whose fsync fails is not durable', async t => {
  let broken = true
  const { fake } = medium({
    sync: async () => {
      if (broken) throw Object.assign(new Error('EIO: i/o error, fdatasync'), { code: 'EIO', syscall: 'fdatasync' })
    },
  })
  const sink = sinkOver(fake)
  await t.rejects(sink.write(body(), true), { code: 'EIO' })
  t.match(sink.state, { state: 'failed', reason: 'fdatasync: EIO' })
  broken = false
  await t.resolves(sink.write(body(), true))
  t.match(sink.state, { state: 'ok' })
  await sink.close()
})

t.test('a medium that hangs delays no call for long, and loses nothing', async t => {
  const pass = clock(t)
  let answer = Promise.withResolvers<void>()
  const { fake, events } = medium({ append: () => answer.promise })
  const sink = sinkOver(fake)
  const first = sink.write(body(), false)
  const refused = t.rejects(first, { message: 'records were not accepted in time' })
  await pass(4_000)
  const second = t.rejects(sink.write(body(), false), { message: 'records were not accepted in time' })
  await pass(2_000)
  await refused
  t.match(sink.state, { state: 'failed', reason: 'records were not accepted in time', missed: 0 })
  await t.rejects(
    sink.write(body(), false),
    { message: 'records were not accepted in time' },
    'further records are refused at once'
  )
  await pass(5_000)
  await second
  answer.resolve()
  answer = Promise.withResolvers()
  answer.resolve()
  await pass(0)
  t.strictSame(events(), ['header', 'tool_call', 'tool_call', 'tool_call'], 'refused records are not lost')
  t.match(sink.state, { state: 'ok', missed: 0 })
  await sink.close()
})

t.test('a backlog that is being written is not another failure', async t => {
  const pass = clock(t)
  const lines: string[] = []
  const { log } = Fastify({ logger: { level: 'info', stream: { write: line => lines.push(line) } } })
  const answers: PromiseWithResolvers<void>[] = []
  const { fake, events } = medium({
    append: () => {
      const answer = Promise.withResolvers<void>()
      answers.push(answer)
      return answer.promise
    },
  })
  const sink = sinkOver(fake, log)
  const writes = Promise.allSettled(Array.from({ length: 2_000 }, () => sink.write(body(), false)))
  await pass(0)
  await pass(6_000)
  t.match(sink.state, { state: 'failed' })
  const states: string[] = []
  for (let batch = 0; batch < 4; batch++) {
    answers.shift()?.resolve()
    await pass(1_000)
    states.push(sink.state.state)
  }
  answers.shift()?.resolve()
  await pass(0)
  t.strictSame(states, ['ok', 'ok', 'ok', 'ok'])
  t.strictSame(lines.map(line => JSON.parse(line).msg), [
    'an audit sink is not accepting records',
    'an audit sink is accepting records again',
  ])
  const settled = await writes
  t.ok(settled.every(({ status }) => status === 'rejected'), 'they were late')
  t.equal(events().filter(event => event === 'tool_call').length, 2_000)
  const closed = sink.close()
  await pass(0)
  for (const { resolve } of answers) resolve()
  await closed
})

t.test('an fsync that hangs delays no mutation for long', async t => {
  const pass = clock(t)
  const answer = Promise.withResolvers<void>()
  const { fake } = medium({ sync: () => answer.promise })
  const sink = sinkOver(fake)
  const refused = [true, true].map(durable =>
    t.rejects(sink.write(body(), durable), { message: 'records were not accepted in time' })
  )
  await pass(0)
  await pass(6_000)
  await Promise.all(refused)
  answer.resolve()
  await sink.close()
})

t.test('the queue is bounded, and the chain records what did not fit', async t => {
  const answer = Promise.withResolvers<void>()
  const { fake, events, records } = medium({ append: () => answer.promise })
  const sink = sinkOver(fake)
  const first = sink.write(body(), false)
  await turn()
  await turn()
  const waiting = Array.from({ length: 5_000 }, () => sink.write(body(), false))
  const beyond = await Promise.allSettled(Array.from({ length: 3 }, () => sink.write(body(), false)))
  t.strictSame(beyond.map(({ status }) => status), ['rejected', 'rejected', 'rejected'])
  t.equal(sink.state.missed, 3)
  answer.resolve()
  await Promise.all([first, ...waiting])
  t.equal(events().filter(event => event === 'tool_call').length, 5_001)
  t.strictSame(records.filter(({ event }) => event === 'gap').map(({ gap }) => (gap as { records: number }).records), [
    3,
  ])
  await sink.close()
})

t.test('a checkpoint is written every minute if there are records to seal', async t => {
  const pass = clock(t)
  const { fake, events } = medium()
  const sink = sinkOver(fake)
  await sink.write(body(), false)
  await pass(60_000)
  t.strictSame(events(), ['header', 'tool_call', 'checkpoint'])
  await pass(120_000)
  t.strictSame(events(), ['header', 'tool_call', 'checkpoint'])
  await sink.write(body(), false)
  await pass(60_000)
  t.strictSame(events(), ['header', 'tool_call', 'checkpoint', 'tool_call', 'checkpoint'])
  await sink.close()
})

t.test('a checkpoint that could not be written is retried a minute later', async t => {
  const pass = clock(t)
  let full = false
  const { fake, events } = medium({ append: async () => { if (full) throw new Error('full') } })
  const sink = sinkOver(fake)
  await sink.write(body(), false)
  full = true
  await pass(60_000)
  t.match(sink.state, { state: 'failed' })
  full = false
  await pass(60_000)
  t.strictSame(events(), ['header', 'tool_call', 'checkpoint'])
  t.match(sink.state, { state: 'ok' })
  await sink.close()
})

t.test('a closed sink no longer uses its medium', async t => {
  const pass = clock(t)
  const { fake, done } = medium()
  const sink = sinkOver(fake)
  const written = sink.write(body(), false)
  const closed = sink.close()
  await written
  await closed
  const open = mock.method(fake, 'open')
  await pass(60_000)
  t.equal(open.mock.callCount(), 0)
  t.equal(done.at(-1), 'close')
})

t.test('a sink that closes without some records logs how many', async t => {
  const pass = clock(t)
  const lines: string[] = []
  const { log } = Fastify({ logger: { level: 'error', stream: { write: line => lines.push(line) } } })
  const { fake, done } = medium({ append: () => new Promise(() => {}) })
  const sink = sinkOver(fake, log)
  const writes = Promise.allSettled([sink.write(body(), false), sink.write(body(), false)])
  await turn()
  await turn()
  sink.write(body(), false).catch(() => {})
  const closed = sink.close()
  await pass(6_000)
  await closed
  await writes
  t.match(lines.map(line => JSON.parse(line)), [{ msg: 'an audit sink is not accepting records' }, {
    records: 3,
    msg: 'an audit sink was closed without these records',
  }])
  t.strictSame(done, ['close'])
  await t.rejects(sink.write(body(), false), { message: 'the sink is closed' })
})
