import t from 'tap'
import { waitFor } from './support/wait-for.ts'

t.test('waits until the check says true', async t => {
  let value = 0
  await waitFor(() => ++value === 3 || value, 1_000, 'three')
  t.equal(value, 3)
})

t.test('says what it saw last', async t => {
  await t.rejects(waitFor(() => ({ value: 3 }), 50, 'four'), {
    message: 'four: not within 50 ms; last seen: { value: 3 }',
  })
  await t.rejects(
    waitFor(
      () => {
        throw new Error('away')
      },
      50,
      'an answer'
    ),
    /last seen: Error: away/
  )
})

t.test('does not wait for a check that hangs', async t => {
  const started = performance.now()
  await t.rejects(
    waitFor(
      async () => {
        await new Promise(resolve => setTimeout(resolve, 1_000))
      },
      50,
      'an end'
    ),
    /an end: not within 50 ms/
  )
  t.ok(performance.now() - started < 500)
})
