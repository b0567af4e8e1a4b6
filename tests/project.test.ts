/** What is said about the project in more than one place is the same in each. */
import { existsSync, globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Ajv } from 'ajv'
import t from 'tap'
import { NotAuditor, PermissionDenied, Unauthenticated, Unverifiable } from '../errors.ts'
import packageJson from '../package.json' with { type: 'json' }
import { ConfigSchema, PREFIX, type Setting } from '../plugins/config/schema.ts'
import { configureWithTable, envExample } from '../scripts/docs-settings.ts'
import { allTools } from '../scripts/docs-tools.ts'
import { ROOT } from './support/paths.ts'

const read = (path: string) => readFileSync(join(ROOT, path), 'utf8')
const settings = Object.values<Setting>(ConfigSchema)

t.test('.env.example and docs/configure.md list every setting with its default and meaning', async t => {
  const configure = read('docs/configure.md')
  t.equal(read('.env.example'), envExample(), 'as npm run docs:settings writes it')
  t.equal(configure, configureWithTable(configure), 'as npm run docs:settings writes it')
  for (const { name, meaning, default: value = '', required, secret } of settings) {
    const variable = PREFIX + name
    t.ok(envExample().includes(`# ${meaning}${required ? ' (required)' : ''}\n# ${variable}=${value}\n`), variable)
    if (secret) t.ok(envExample().includes(`# ${variable}_FILE=\n`), `${variable}_FILE`)
    const shown = required ? 'required' : value && `\`${value}\``
    t.ok(configure.includes(`| \`${variable}\` | ${shown} | ${meaning} |\n`), variable)
  }
})

t.test('what applies to tokens without a scope claim is the same everywhere', async t => {
  const rule = 'A token without a scope claim, such as an app-only or service account token, ' +
    'needs a role from a binding in the policy.'
  for (const path of ['README.md', 'docs/security.md', 'chart/values.yaml']) {
    t.ok(read(path).replace(/\s+(?:# )?/g, ' ').includes(rule), path)
  }
})

t.test('the README', async t => {
  const readme = read('README.md')
  const rows = readme.split('\n').filter(line => line.startsWith('|'))
    .map(line => line.split('|').slice(1, -1).map(cell => cell.trim()))

  t.test('has at most 130 lines', async t => {
    t.ok(readme.trimEnd().split('\n').length <= 130)
  })

  t.test('names at most five settings in its tables, with their defaults', async t => {
    const named = new Set(rows.flat().flatMap(cell => cell.match(/KAFSCALE_MCP_\w+/g) ?? []))
    t.ok(named.size > 0 && named.size <= 5)
    for (const name of named) {
      const setting = settings.find(setting => PREFIX + setting.name === name)
      const [, value] = rows.find(([cell]) => cell === `\`${name}\``) ?? []
      t.equal(value, setting?.required ? 'required' : setting?.default ? `\`${setting.default}\`` : '', name)
    }
  })

  t.test('lists every tool', async t => {
    t.strictSame(
      rows.flatMap(([cell = '']) => [...cell.matchAll(/`([a-z]+(?:_[a-z]+)+)`/g)].map(([, name]) => name)).sort(),
      (await allTools()).map(({ name }) => name)
    )
  })

  t.test('links to existing files', async t => {
    const paths = [...readme.matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map(([, path = '']) => path)
    t.not(paths.length, 0)
    for (const path of paths) t.ok(existsSync(join(ROOT, path)), path)
  })

  t.test('names existing scripts', async t => {
    const scripts = [...readme.matchAll(/npm run ([\w:-]+)/g)].map(([, script = '']) => script)
    t.not(scripts.length, 0)
    for (const script of scripts) t.ok(Object.hasOwn(packageJson.scripts, script), script)
  })
})

t.test('each tool has an example answer that fits its output schema, complete or in part', async t => {
  const ajv = new Ajv({ allowUnionTypes: true })
  const examples = JSON.parse(read('docs/tool-examples.json')) as Record<string, unknown>
  const tools = await allTools()
  t.strictSame(Object.keys(examples).sort(), tools.map(({ name }) => name))
  for (const { name, output } of tools) {
    t.ok(ajv.validate(partial(output), examples[name]), `${name}: ${ajv.errorsText()}`)
  }
})

/** The same schema, with every property optional and no others allowed. */
function partial (schema: unknown): object {
  return JSON.parse(JSON.stringify(schema, (keyword, value) => {
    if (keyword === 'required') return undefined
    return value?.properties && !value.additionalProperties ? { ...value, additionalProperties: false } : value
  }))
}

t.test('the service starts from its sources, and .env is for development alone', async t => {
  t.equal(packageJson.scripts.start, 'node bin/kafscale-mcp.js --exit-with $PPID')
  t.equal(packageJson.scripts.dev, 'node --watch --env-file-if-exists=.env server.ts')
  const readers = globSync('{*.ts,bin/*.js,{cli,kafscale,lib,plugins,routes,tools}/**/*.ts}', { cwd: ROOT })
    .filter(path => /process\.env|loadEnvFile/.test(read(path)))
  t.strictSame(readers, ['plugins/config/read.ts'], 'one file reads the environment')
})

t.test('tools have no way to secrets, requests or files', async t => {
  const imports = globSync('tools/**/*.ts', { cwd: ROOT }).flatMap(path =>
    [...read(path).matchAll(/^(?:import|export|\}) (?!type ).*from '([^']*)'/gm)].map(([, specifier = '']) => specifier)
  )
  t.strictSame(
    [...new Set(imports)].filter(specifier => /^node:(?!crypto$)|config\/|auth\/|audit\//.test(specifier)),
    []
  )
})

t.test('what is imported is a dependency that package.json names', async t => {
  const importsOf = (pattern: string) =>
    [
      ...new Set(
        globSync(pattern, { cwd: ROOT }).flatMap(path =>
          [...read(path).matchAll(/^(?:import|export|\}).* from '([^.'][^']*)'/gm)]
            .map(([, specifier = '']) => /^(?:@[^/]+\/)?[^/]+/.exec(specifier)?.[0] ?? '')
        )
      ),
    ].filter(name => !name.startsWith('node:')).sort()
  const dependencies = Object.keys(packageJson.dependencies)
  const service = importsOf('{*.ts,bin/*.js,{cli,kafscale,lib,plugins,routes,tools}/**/*.ts}')
  t.strictSame(service, dependencies.sort(), 'the service: neither more nor less')
  const all = [...dependencies, ...Object.keys(packageJson.devDependencies)]
  t.strictSame(importsOf('{bench,demo,tests}/**/*.ts').filter(name => !all.includes(name)), [], 'what surrounds it')
})

t.test('errors.ts declares every error, each with a code of its own', async t => {
  const service = globSync('{*.ts,{cli,lib,plugins,routes,tools}/**/*.ts}', { cwd: ROOT })
  const declaring = service.filter(path => /extends \w*Error\b|createError[<(]/.test(read(path)))
  t.strictSame(declaring, ['errors.ts'])
  t.notOk(new Unverifiable('') instanceof Unauthenticated)
  t.notOk(new NotAuditor() instanceof PermissionDenied)
})
