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
      '8760h': 31_536_000_000,
      '2562047h': 9_223_369_200_000,
    })
  ) {
    t.equal(parseDuration(text), ms, text)
  }
})

t.test('anything else is refused', async t => {
  const refused = [
    '', '10', '-1s', '1 s', '1d', 'm', '1h-30m', '1e3s', '.s', '2562048h', '9'.repeat(400) + 'h', 'Infinity', '1s ',
  ]
  for (const text of refused) {
    t.throws(() => parseDuration(text), { message: /^a duration/ }, JSON.stringify(text))
  }
})
