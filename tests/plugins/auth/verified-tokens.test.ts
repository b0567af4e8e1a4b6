import t from 'tap'
import type { Principal } from '../../../plugins/auth/principal.ts'
import { VerifiedTokens } from '../../../plugins/auth/verified-tokens.ts'

const alice = { subject: 'alice' } as Principal

t.test('a token is known until its time is over', async t => {
  const tokens = new VerifiedTokens()
  t.equal(tokens.get('a'), undefined)
  tokens.set('a', alice, Date.now() + 60_000)
  t.equal(tokens.get('a'), alice)
  tokens.set('b', alice, Date.now())
  t.equal(tokens.get('b'), undefined)
  t.equal(tokens.get('a'), alice)
})

t.test('as many are known as fit, and the oldest is forgotten first', async t => {
  const tokens = new VerifiedTokens()
  for (let index = 0; index < 1_001; index++) tokens.set(String(index), alice, Infinity)
  t.equal(tokens.get('0'), undefined)
  t.equal(tokens.get('1'), alice)
  t.equal(tokens.get('1000'), alice)
})
