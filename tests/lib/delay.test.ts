import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { longDelay } from '../../lib/delay.ts'

t.test('a delay may be longer than a timer of Node.js, which would end at once', async t => {
  const controller = new AbortController()
  const warnings: Error[] = []
  const warn = (warning: Error) => warnings.push(warning)
  process.on('warning', warn)
  t.teardown(() => process.off('warning', warn))
  const pending = longDelay(2 ** 31, controller.signal)
  const ended = pending.then(() => 'ended', () => 'aborted')
  t.equal(await Promise.race([ended, delay(20, 'pending')]), 'pending')
  controller.abort()
  t.equal(await ended, 'aborted')
  t.strictSame(warnings, [])
})

t.test('a short delay ends', async t => {
  await longDelay(1, new AbortController().signal)
  t.pass()
})
