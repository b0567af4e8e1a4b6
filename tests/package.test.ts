/** The package that npm gets: what is in it, and that it runs where nothing else is. */
import { copyFileSync, existsSync, readFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import packageJson from '../package.json' with { type: 'json' }
import { startEtcd } from './support/etcd.ts'
import { ask, buildContext, commandLine, emptyFolder, PATH, run, sources, start } from './support/packaging.ts'
import { readPage } from './support/pages.ts'
import { ROOT } from './support/paths.ts'
import { fill } from './support/service.ts'

const [, ...startArguments] = packageJson.scripts.start.split(' ')
const V8_OPTIONS = startArguments.slice(0, -1)
const DOCUMENTS = ['README.md', 'LICENSE'].filter(name => existsSync(join(ROOT, name)))

/** Packs a copy, so that nobody finds a dist that is half written. */
const source = buildContext(t)
for (const name of DOCUMENTS) copyFileSync(join(ROOT, name), join(source, name))
symlinkSync(join(ROOT, 'node_modules'), join(source, 'node_modules'))
const packed = await run('npm', ['pack', '--json'], { cwd: source })
const [{ filename, files }] = JSON.parse(packed.slice(packed.indexOf('[\n'))) as [
  { filename: string, files: { path: string }[] }
]

const page = readPage('install.md')
const dir = emptyFolder(t)
copyFileSync(join(source, filename), join(dir, filename))
await run('sh', ['-ec', page.block('sh package')], {
  cwd: dir,
  env: { npm_config_audit: 'false', npm_config_fund: 'false' },
})
const installed = join(dir, 'node_modules/kafscale-mcp')
const server = join(installed, 'dist/server.js')

t.test('it holds the launcher, each source as JavaScript, and nothing else', async t => {
  t.strictSame(
    files.map(({ path }) => path).sort(),
    [
      ...DOCUMENTS,
      'package.json',
      'bin/kafscale-mcp.js',
      'dist/package.json',
      ...sources().map(path => `dist/${path.slice(0, -'.ts'.length)}.js`),
    ].sort()
  )
})

t.test('nothing that comes with it needs to run a script when it is installed', async t => {
  const { packages } = JSON.parse(readFileSync(join(dir, 'node_modules/.package-lock.json'), 'utf8')) as {
    packages: Record<string, { hasInstallScript?: true }>
  }
  t.strictSame(
    Object.keys(packages).filter(path => packages[path]?.hasInstallScript),
    ['node_modules/protobufjs'],
    'but one that only warns of versions'
  )
})

t.test('it answers from a real etcd', async t => {
  const etcd = await startEtcd(t)
  await fill(etcd, [{
    key: '/kafscale/metadata/snapshot',
    value: JSON.stringify({ Topics: [{ Topic: 'orders', Partitions: [] }] }),
  }])
  const env = {
    PATH,
    HOME: dir,
    KAFSCALE_MCP_HTTP_ADDR: '127.0.0.1:0',
    KAFSCALE_MCP_TELEMETRY_ADDR: 'off',
    KAFSCALE_MCP_AUDIT_SINKS: 'none',
    ...etcd.env,
  }
  const orders = { topics: [{ name: 'orders' }], total: 1 }

  const [byNpx = '', byNode = ''] = page.ofKind('sh start').map(text => text.trim().split('\n').at(-1) ?? '')
  const command = (text: string): [string, string[]] => {
    const [file = '', ...args] = text.split(' ')
    return [file, args]
  }

  t.test('started as npx kafscale-mcp', async t => {
    t.equal(byNpx, 'npx kafscale-mcp')
    const service = await start(t, ...command(byNpx), { cwd: dir, env: { ...env, npm_config_offline: 'true' } })
    t.match(await ask(service, 'list_topics'), orders)
    await service.stop()
  })

  t.test('started by its launcher: one process, with the options of npm start', async t => {
    const service = await start(t, join(dir, 'node_modules/.bin/kafscale-mcp'), [], { cwd: dir, env })
    t.match(await ask(service, 'list_topics'), orders)
    t.strictSame(commandLine(service.process.pid), [...V8_OPTIONS, server])
    t.equal(await service.stop(), 0)
  })

  t.test('started as node dist/server.js', async t => {
    const service = await start(t, ...command(byNode), { cwd: dir, env })
    t.match(await ask(service, 'list_topics'), orders)
    t.strictSame(commandLine(service.process.pid), [...V8_OPTIONS, 'node_modules/kafscale-mcp/dist/server.js'])
    t.equal(await service.stop(), 0)
  })

  t.test('from a key to a record that is checked', async t => {
    const npx = async (...args: string[]) => await run('npx', ['--offline', 'kafscale-mcp', ...args], { cwd: dir })
    await npx('token', 'keygen', '--key', 'token.key', '--jwks', 'jwks.json')
    const audience = 'https://kafscale-mcp.example/mcp'
    const token = await npx(
      'token',
      'issue',
      '--key',
      'token.key',
      '--audience',
      audience,
      '--subject',
      'alice',
      '--scope',
      'kafscale:observe'
    )
    const service = await start(t, 'node_modules/.bin/kafscale-mcp', [], {
      cwd: dir,
      env: {
        ...env,
        KAFSCALE_MCP_PUBLIC_URL: 'https://kafscale-mcp.example',
        KAFSCALE_MCP_AUTH_JWKS_FILE: 'jwks.json',
        KAFSCALE_MCP_AUTH_JWKS_ISSUER: 'kafscale-mcp',
        KAFSCALE_MCP_AUDIT_SINKS: 'file:audit.jsonl',
      },
    })
    t.match(await ask(service, 'list_topics', token.trim()), orders)
    t.equal(await service.stop(), 0)
    t.match(await npx('audit', 'verify', 'audit.jsonl'), /^intact: records 1 to \d+$/m)
    t.match(await npx('audit', 'show', 'audit.jsonl', '--who', 'alice', '--json'), /"tool":"list_topics"/)
  })
})
