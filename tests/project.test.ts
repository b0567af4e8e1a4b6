/** What is said about the project in more than one place is the same in each. */
import { existsSync, globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Ajv } from 'ajv'
import t from 'tap'
import packageJson from '../package.json' with { type: 'json' }
import { ConfigSchema } from '../plugins/config/index.ts'
import { ROOT } from './support/paths.ts'
import { buildTestApp, CALLER } from './support/service.ts'

const read = (path: string) => readFileSync(join(ROOT, path), 'utf8')
const settings: { variable: string, meaning: string, default?: string, required?: true, secret?: true }[] =
  Object.values(ConfigSchema).map(({ name, ...setting }) => ({ ...setting, variable: `KAFSCALE_MCP_${name}` }))

t.test('.env.example lists every variable with its meaning and default', async t => {
  const entries = settings.flatMap(({ variable, meaning, default: value = '', required, secret }) => [
    `# ${meaning}${required ? ' (required)' : ''}\n# ${variable}=${value}\n`,
    ...secret ? [`# A file with the value of ${variable}, instead of it\n# ${variable}_FILE=\n`] : [],
  ])
  t.equal(
    read('.env.example'),
    `# For npm run dev: copy to .env, and take the # off what is to be set.\n\n${entries.join('\n')}`
  )
})

t.test('the README', async t => {
  const readme = read('README.md')

  t.test('has every variable in its table, with its default and meaning', async t => {
    const rows = readme.split('\n').filter(line => line.startsWith('| `KAFSCALE_MCP_')).map(line =>
      line.split('|').slice(1, -1).map(cell => cell.trim())
    )
    t.strictSame(
      rows,
      settings.map((
        { variable, meaning, default: value, required }
      ) => [`\`${variable}\``, required ? 'required' : value === undefined ? '' : `\`${value}\``, meaning])
    )
  })

  t.test('links to what there is', async t => {
    const paths = [...readme.matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map(([, path = '']) => path)
    t.not(paths.length, 0)
    for (const path of paths) t.ok(existsSync(join(ROOT, path)), path)
  })

  t.test('names scripts that there are', async t => {
    const scripts = [...readme.matchAll(/npm run ([\w-]+)/g)].map(([, script = '']) => script)
    t.not(scripts.length, 0)
    for (const script of scripts) t.ok(Object.hasOwn(packageJson.scripts, script), script)
  })

  t.test('shows of each tool an answer that it can give, if not the whole of it', async t => {
    const app = await buildTestApp(t)
    const ajv = new Ajv({ allowUnionTypes: true })
    const examples = new Map(
      [...readme.matchAll(/^\*\*`(\w+)`\*\*.*\n+```json\n(.*)\n```$/gm)].map((
        [, tool, answer = '']
      ) => [tool, JSON.parse(answer)])
    )
    t.strictSame([...examples.keys()].sort(), app.tools.list(CALLER.principal).map(({ name }) => name))
    for (const { name, outputSchema } of app.tools.list(CALLER.principal)) {
      t.ok(ajv.validate(partial(outputSchema), examples.get(name)), `${name}: ${ajv.errorsText()}`)
    }
  })
})

/** The same schema where anything may be absent, and nothing may be there besides. */
function partial (schema: unknown): object {
  return JSON.parse(JSON.stringify(schema, (keyword, value) => {
    if (keyword === 'required') return undefined
    return value?.properties && !value.additionalProperties ? { ...value, additionalProperties: false } : value
  }))
}

t.test('the service starts from its sources, and .env is for development alone', async t => {
  t.equal(packageJson.scripts.start, 'node bin/kafscale-mcp.js --exit-with $PPID')
  t.equal(packageJson.scripts.dev, 'node --watch --env-file-if-exists=.env server.ts')
  const readers = globSync('{*.ts,bin/*.js,{cli,kafscale,lib,plugins,routes,tools}/**/*.ts}', { cwd: ROOT }).filter(path =>
    /process\.env|loadEnvFile/.test(read(path))
  )
  t.strictSame(readers, ['plugins/config/index.ts'], 'one file reads the environment')
})

t.test('tools have no way to secrets, requests or files', async t => {
  const imports = globSync('tools/**/*.ts', { cwd: ROOT }).flatMap(path =>
    [...read(path).matchAll(/^(?:import|export|\}) (?!type ).*from '([^']*)'/gm)].map(([, specifier = '']) => specifier)
  )
  t.strictSame(
    [...new Set(imports)].filter(specifier => /^node:(?!crypto$)|config\.ts$|auth\/|audit\//.test(specifier)),
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
