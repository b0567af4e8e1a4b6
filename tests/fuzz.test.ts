/** Each parser withstands some generated inputs. `npm run fuzz` goes on for longer, with other seeds. */
import { spawnSync } from 'node:child_process'
import t from 'tap'
import { loadTargets } from './support/fuzz/target.ts'
import { ROOT } from './support/paths.ts'

/** Takes about ten seconds for a target. Always the same seeds, so that a failure is repeatable. */
const SEEDS = Array.from({ length: 8 }, (_, index) => index + 1)

for (const { name, run } of await loadTargets()) {
  t.test(name, async t => {
    for (const seed of SEEDS) await t.resolves(async () => await run(seed), `seed ${seed}`)
  })
}

t.test('npm run fuzz repeats a seed, and names the targets', async t => {
  const fuzz = (...args: string[]) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, ['scripts/fuzz.ts', ...args], {
      cwd: ROOT,
      encoding: 'utf8',
    })
    return { status, stdout, stderr }
  }
  t.match(fuzz('--seed', '7', 'jwt'), {
    status: 0,
    stdout: 'fuzz: jwt for 3600 s, from seed 7\njwt: 1 seeds passed\n',
  })
  const names = (await loadTargets()).map(({ name }) => name).join(' or ')
  t.match(fuzz('nothing'), { status: 1, stderr: `nothing: expected ${names}` })
  t.match(fuzz('--seconds', 'x'), { status: 1, stderr: /--seconds is "x": expected a number above 0/ })
})
