import t from 'tap'
import type { Principal } from '../../../plugins/auth/principal.ts'
import { VerifiedTokens } from '../../../plugins/auth/verified-tokens.ts'

const alice = { subject: 'alice' } as Principal
const until = (untilMs: number) => async () => ({ principal: alice, untilMs })

t.test('a token is remembered until its time is up', async t => {
  const tokens = new VerifiedTokens()
  t.equal(tokens.get('a'), undefined)
  t.notOk(tokens.hasAccepted('a'))
  t.equal(await tokens.verify('a', until(Date.now() + 60_000)), alice)
  t.equal(tokens.get('a'), alice)
  await tokens.verify('b', until(Date.now()))
  t.equal(tokens.get('b'), undefined)
  t.ok(tokens.hasAccepted('b'), 'it still counts as accepted before')
  t.equal(tokens.get('a'), alice)
})

t.test('the cache is bounded, and drops the oldest token first', async t => {
  const tokens = new VerifiedTokens()
  for (let index = 0; index < 1_001; index++) await tokens.verify(String(index), until(Infinity))
  t.equal(tokens.get('0'), undefined)
  t.notOk(tokens.hasAccepted('0'))
  t.equal(tokens.get('1'), alice)
  t.equal(tokens.get('1000'), alice)
})

t.test('concurrent calls share one verification, and a failure is not remembered', async t => {
  const tokens = new VerifiedTokens()
  const answers = [Promise.reject(new Error('down')), { principal: alice, untilMs: Infinity }]
  let asked = 0
  const verify = async () => await answers[asked++]!
  const ask = async () => await Promise.allSettled([1, 2, 3].map(async () => await tokens.verify('a', verify)))
  t.strictSame((await ask()).map(({ status }) => status), ['rejected', 'rejected', 'rejected'])
  t.notOk(tokens.hasAccepted('a'))
  t.strictSame((await ask()).map(({ status }) => status), ['fulfilled', 'fulfilled', 'fulfilled'])
  t.equal(asked, 2)
})
