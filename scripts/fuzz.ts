/**
 * `npm run fuzz [-- --seconds N] [-- TARGET…]`: tries generated inputs on each parser in turn, with new seeds, for an
 * hour or as long as given. Prints each finding with the seed that repeats it, and exits with 1 when there is one.
 * `npm run fuzz -- --seed N TARGET` repeats a finding.
 */
import { parseArgs } from 'node:util'
import { loadTargets } from '../tests/support/fuzz/target.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { seconds: { type: 'string', default: '3600' }, seed: { type: 'string' } },
})
const seconds = positive('seconds', values.seconds)
const known = await loadTargets()
const targets = positionals.length === 0 ? known : known.filter(({ name }) => positionals.includes(name))
const unknown = positionals.filter(name => !known.some(target => target.name === name))
if (unknown.length > 0) {
  throw new Error(`${unknown.join(', ')}: expected ${known.map(({ name }) => name).join(' or ')}`)
}

const first = values.seed === undefined ? Date.now() % 1_000_000_000 : positive('seed', values.seed)
const runs = new Map(targets.map(({ name }) => [name, 0]))
const failed = new Set<string>()
const endsAtMs = performance.now() + seconds * 1_000
console.log(`fuzz: ${targets.map(({ name }) => name).join(', ')} for ${seconds} s, from seed ${first}`)
for (let seed = first; performance.now() < endsAtMs && failed.size < targets.length; seed++) {
  for (const { name, run } of targets) {
    if (failed.has(name)) continue
    try {
      await run(seed)
      runs.set(name, (runs.get(name) ?? 0) + 1)
    } catch (error) {
      failed.add(name)
      console.log(`FINDING in ${name}, seed ${seed}: ${error instanceof Error ? error.stack : String(error)}`)
    }
  }
  if (values.seed !== undefined) break
}
for (const [name, count] of runs) console.log(`${name}: ${count} seeds passed`)
process.exitCode = failed.size === 0 ? 0 : 1

function positive (name: string, text: string): number {
  const value = Number(text)
  if (!(value > 0)) throw new Error(`--${name} is ${JSON.stringify(text)}: expected a number above 0`)
  return value
}
