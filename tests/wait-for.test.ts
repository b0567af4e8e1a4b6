import { execFile } from 'node:child_process'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import t from 'tap'
import { ROOT } from './support/paths.ts'
import { scaled, TIME_SCALE } from './support/run.ts'
import { timeScale } from './support/time-scale.ts'
import { waitFor } from './support/wait-for.ts'

t.test('waits until the check returns true', async t => {
  let value = 0
  await waitFor(() => ++value === 3 || value, 1_000, 'three')
  t.equal(value, 3)
})

t.test('reports the last value seen', async t => {
  await t.rejects(waitFor(() => ({ value: 3 }), 50, 'four'), {
    message: `four: not within ${scaled(50)} ms; last seen: { value: 3 }`,
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

t.test('does not wait for a check that is still pending', async t => {
  const startMs = performance.now()
  await t.rejects(waitFor(() => setTimeout(scaled(1_000)), 50, 'an end'), /an end: not within/)
  t.ok(performance.now() - startMs < scaled(500))
})

t.test('the time scale is that of computing or of lateness, whichever is worse, and 1 on a quiet machine', async t => {
  t.equal(timeScale(118, 5), 1)
  t.equal(timeScale(140, 20), 1)
  t.equal(timeScale(236, 5), 2)
  t.equal(timeScale(118, 250), 3.5)
  t.equal(timeScale(118_000, 5), 10)
  t.ok(TIME_SCALE >= 1 && TIME_SCALE <= 10)
})

t.test('waits longer on a slow machine, and no longer than the bound on a fast one', async t => {
  /** Waits up to 200 ms for something that takes 1 s, in a process with its own time scale. */
  const wait = async (scale: number) => {
    const script = `
      import { waitFor } from './tests/support/wait-for.ts'
      const start = performance.now()
      await waitFor(() => performance.now() - start > 1_000, 200, 'a second')
        .then(() => console.log('in time'), console.log)
    `
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', script], {
      cwd: ROOT,
      env: { TEST_TIME_SCALE: `${scale}` },
    })
    return stdout
  }
  t.match(await wait(1), 'Error: a second: not within 200 ms')
  t.match(await wait(10), 'in time')
})
