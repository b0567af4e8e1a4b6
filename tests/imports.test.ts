/** The code obeys the rules of `.dependency-cruiser.js`, and each rule finds violations. */
import { execFile } from 'node:child_process'
import { copyFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { ROOT } from './support/paths.ts'

const CRUISER = join(ROOT, 'node_modules/dependency-cruiser/bin/dependency-cruise.mjs')

/** The violations in a folder, as `rule: from → to`. */
async function violations (cwd: string): Promise<string[]> {
  const args = [CRUISER, '--output-type', 'json', '--config', '.dependency-cruiser.js', '.']
  const { promise, resolve } = Promise.withResolvers<string>()
  execFile(process.execPath, args, { cwd, maxBuffer: Infinity }, (_, stdout) => resolve(stdout))
  const { summary } = JSON.parse(await promise) as {
    summary: { totalCruised: number, violations: { rule: { name: string }, from: string, to: string }[] }
  }
  if (summary.totalCruised === 0) throw new Error('no file was read')
  return summary.violations.map(({ rule, from, to }) => `${rule.name}: ${from} → ${to}`).sort()
}

t.test('no import breaks a rule', async t => {
  t.strictSame(await violations(ROOT), [])
})

t.test('an import that breaks a rule is found, even if it imports only a type', async t => {
  const broken = {
    'app.ts': "import './demo/main.ts'\n",
    'errors.ts': "import type { A } from './lib/a.ts'\nexport type B = A\n",
    demo: { 'main.ts': 'export {}\n' },
    kafscale: {
      'mirror.ts': "import type { A } from '../lib/a.ts'\nexport type C = A\n",
      'io.ts': "import 'node:fs'\n",
    },
    lib: { 'a.ts': "import type { T } from '../tools/tool.ts'\nexport type A = T\n" },
    plugins: {
      'a.ts': "import type { R } from '../routes/r.ts'\nexport type P = R\n",
      'b.ts': "import type { L } from '../tools/list.ts'\nexport type Q = L\n",
      'c.ts': "import { make } from '../tools/tool.ts'\nmake()\n",
      'one.ts': "import type { Two } from './two.ts'\nexport type One = Two\n",
      'two.ts': "import type { One } from './one.ts'\nexport type Two = One\n",
    },
    routes: { 'r.ts': 'export type R = string\n' },
    tools: {
      'tool.ts': 'export type T = string\nexport function make () {}\n',
      'list.ts': "import type { One } from '../plugins/one.ts'\nexport type L = One\n",
      'bad.ts': "import '../plugins/a.ts'\nimport 'node:http'\n",
    },
  }
  const dir = t.testdir({ ...broken, 'package.json': '{"type":"module"}' })
  for (const name of ['.dependency-cruiser.js', 'tsconfig.json']) copyFileSync(join(ROOT, name), join(dir, name))
  symlinkSync(join(ROOT, 'node_modules'), join(dir, 'node_modules'))
  t.strictSame(await violations(dir), [
    'errors-know-nothing: errors.ts → lib/a.ts',
    'kafscale-is-pure: kafscale/io.ts → fs',
    'kafscale-is-pure: kafscale/mirror.ts → lib/a.ts',
    'lib-is-pure: lib/a.ts → tools/tool.ts',
    'no-cycles: plugins/one.ts → plugins/two.ts',
    'plugins-import-types-of-tools: plugins/c.ts → tools/tool.ts',
    'plugins-know-no-routes: plugins/a.ts → routes/r.ts',
    'plugins-know-no-tool: plugins/b.ts → tools/list.ts',
    'the-service-stands-alone: app.ts → demo/main.ts',
    'tools-have-no-io: tools/bad.ts → http',
    'tools-import-types-of-plugins: tools/bad.ts → plugins/a.ts',
  ])
})
