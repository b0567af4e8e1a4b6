/** SECURITY.md contains a threat model: every actor has threats, and every threat a status and its evidence. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { ROOT } from './support/paths.ts'

const [, model = ''] = readFileSync(join(ROOT, 'SECURITY.md'), 'utf8').split('\n## Threat model\n')
const sectionOf = (heading: string, level = 3) =>
  model.split(`\n${'#'.repeat(level)} ${heading}\n`)[1]?.split(/^#{2,} /m)[0] ?? ''
/** The cells of a table's rows, without its heading. */
const rowsOf = (text: string) =>
  text.split('\n').filter(line => line.startsWith('| ') && line.endsWith(' |'))
    .map(line => line.slice(1, -1).split('|').map(cell => cell.trim())).slice(1)
const threats = [...model.matchAll(/^#### (.*)$/gm)].map(([, heading = '']) => ({
  heading,
  rows: rowsOf(sectionOf(heading, 4)),
}))

t.test('it names assets, and every actor with its threats', async t => {
  t.ok(rowsOf(sectionOf('Assets')).length > 3)
  const actors = rowsOf(sectionOf('Actors')).map(([actor = '']) => /^\[.*\]\(#(.*)\)$/.exec(actor)?.[1])
  t.strictSame(actors, threats.map(({ heading }) => heading.toLowerCase().replaceAll(' ', '-')))
  for (const { heading, rows } of threats) t.ok(rows.length > 2, heading)
})

t.test('each threat says what was tried and what holds, and names the test of every defense', async t => {
  for (const [threat = '', tried, status = '', defense, test = '', ...rest] of threats.flatMap(({ rows }) => rows)) {
    t.strictSame(rest, [], threat)
    t.ok(tried && defense, threat)
    t.ok(['holds', 'partly', 'does not hold'].includes(status), `${threat}: ${status}`)
    const path = /^`(tests\/\S+\.test\.ts)`$/.exec(test)?.[1]
    if (status === 'does not hold' && test === '') continue
    t.ok(path !== undefined && existsSync(join(ROOT, path)), `${threat}: ${test}`)
  }
})
