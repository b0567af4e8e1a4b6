/** `npm run docs:chart`: generates the table of values in the chart's README from values.yaml. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { isMap, isScalar, parseDocument, type YAMLMap } from 'yaml'

const CHART = join(import.meta.dirname, '..', 'chart')
const README = join(CHART, 'README.md')

/** The README with its table replaced by one that is generated from values.yaml. */
export function readmeWithTable (readme: string, values: string): string {
  const rows = rowsOf(parseDocument(values).contents as YAMLMap)
  const table = [
    '| key | default | description |',
    '|---|---|---|',
    ...rows.map(({ path, value, description }) => `| \`${path}\` | \`${JSON.stringify(value)}\` | ${description} |`),
  ]
  return readme.replace(/(?<=<!-- values -->\n)[^]*(?=<!-- end of values -->)/, () => table.join('\n') + '\n')
}

interface Row { path: string, value: unknown, description: string }

/**
 * A key whose comment starts with `--` is a row. A map without such a comment contributes the rows of its members.
 * @throws when a scalar has no comment
 */
function rowsOf (map: YAMLMap, above: string[] = []): Row[] {
  return map.items.flatMap(({ key, value }, index) => {
    if (!isScalar(key)) return []
    const path = [...above, String(key.value)]
    // The parser assigns the comment before a map's first key to the map.
    const comment = (index === 0 ? map.commentBefore : undefined) ?? key.commentBefore ?? ''
    const [, description] = comment.split(/^ -- /m)
    if (description !== undefined) {
      return [{
        path: path.join('.'),
        value: isMap(value) || !isScalar(value) ? JSON.parse(JSON.stringify(value)) : value.value,
        description: description.replaceAll('\n', ''),
      }]
    }
    if (!isMap(value)) throw new Error(`values.yaml: ${path.join('.')} has no comment`)
    return rowsOf(value, path)
  })
}

if (import.meta.main) {
  writeFileSync(README, readmeWithTable(readFileSync(README, 'utf8'), readFileSync(join(CHART, 'values.yaml'), 'utf8')))
}
