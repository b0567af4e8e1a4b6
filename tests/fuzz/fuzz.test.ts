/** Each parser withstands some generated inputs. `npm run fuzz` goes on for longer, with other seeds. */
import t from 'tap'
import { loadTargets } from './target.ts'

/** Takes about ten seconds for a target. Always the same seeds, so that a failure is repeatable. */
const SEEDS = Array.from({ length: 3 }, (_, index) => index + 1)

for (const { name, run } of await loadTargets()) {
  t.test(name, async t => {
    for (const seed of SEEDS) await t.resolves(async () => await run(seed), `seed ${seed}`)
  })
}
