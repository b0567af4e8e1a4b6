/** `npm run docs:chart`: writes the table of values in the chart's README, from the comments of values.yaml. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { isMap, isScalar, parseDocument, type YAMLMap } from 'yaml'

const CHART = join(import.meta.dirname, '..', 'chart')
const README = join(CHART, 'README.md')

/** The README with a table that is as values.yaml says. */
export function readmeWithTable (readme: string, values: string): string {
  const rows = rowsOf(parseDocument(values).contents as YAMLMap)
  const table = [
    '| value | default | meaning |',
    '|---|---|---|',
    ...rows.map(({ path, value, meaning }) => `| \`${path}\` | \`${JSON.stringify(value)}\` | ${meaning} |`),
  ]
  return readme.replace(/(?<=<!-- values -->\n)[^]*(?=<!-- end of values -->)/, () => table.join('\n') + '\n')
}

interface Row { path: string, value: unknown, meaning: string }

/** A key with a comment that starts with `--` is a row; without one, its members are. */
function rowsOf (map: YAMLMap, above: string[] = []): Row[] {
  return map.items.flatMap(({ key, value }, index) => {
    if (!isScalar(key)) return []
    const path = [...above, String(key.value)]
    // What stands in front of a map's first key belongs to the map.
    const comment = (index === 0 ? map.commentBefore : undefined) ?? key.commentBefore ?? ''
    const meaning = comment.split('\n').find(line => line.startsWith(' -- '))?.slice(' -- '.length)
    if (meaning !== undefined) {
      return [{
        path: path.join('.'),
        value: isMap(value) || !isScalar(value) ? JSON.parse(JSON.stringify(value)) : value.value,
        meaning,
      }]
    }
    if (!isMap(value)) throw new Error(`values.yaml: ${path.join('.')} has no comment`)
    return rowsOf(value, path)
  })
}

if (import.meta.main) {
  writeFileSync(README, readmeWithTable(readFileSync(README, 'utf8'), readFileSync(join(CHART, 'values.yaml'), 'utf8')))
}
