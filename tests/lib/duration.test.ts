import t from 'tap'
import { parseDuration } from '../../lib/duration.ts'

t.test('durations use the syntax of Go', async t => {
  for (
    const [text, ms] of Object.entries({
      '10m': 600_000,
      '1h30m': 5_400_000,
      '500ms': 500,
      '1.5s': 1500,
      '.5s': 500,
      0: 0,
      '0s': 0,
      '+2s': 2000,
      '1us': 0.001,
      '2µs': 0.002,
      '596h': 2_145_600_000,
    })
  ) {
    t.equal(parseDuration(text), ms, text)
  }
})

t.test('anything else is refused', async t => {
  for (const text of ['', '10', '-1s', '1 s', '1d', 'm', '1h-30m', '1e3s', '.s', '597h', 'Infinity', '1s ']) {
    t.throws(() => parseDuration(text), { message: /^a duration/ }, JSON.stringify(text))
  }
})
