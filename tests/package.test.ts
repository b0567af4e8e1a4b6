/** The npm package: what it contains, and that it runs where nothing else is installed. */
import { copyFileSync, existsSync, readFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { Client } from '@modelcontextprotocol/client'
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio'
import t from 'tap'
import packageJson from '../package.json' with { type: 'json' }
import { needsEtcd, startEtcd } from './support/etcd.ts'
import { ask, buildContext, commandLine, PATH, run, sources, start, V8_OPTIONS } from './support/packaging.ts'
import { readPage } from './support/pages.ts'
import { ROOT } from './support/paths.ts'
import { temporaryFolder } from './support/run.ts'
import { fill } from './support/service.ts'
import { clean } from './support/spawn.ts'

const DOCUMENTS = ['README.md', 'LICENSE'].filter(name => existsSync(join(ROOT, name)))

/** A copy is packed, so that nothing else sees a half-written dist. */
const source = buildContext(t)
for (const name of DOCUMENTS) copyFileSync(join(ROOT, name), join(source, name))
symlinkSync(join(ROOT, 'node_modules'), join(source, 'node_modules'))
const packed = await run('npm', ['pack', '--json'], { cwd: source })
const [{ filename, files }] = JSON.parse(packed.slice(packed.indexOf('[\n'))) as [
  { filename: string, files: { path: string }[] }
]

const page = readPage('install.md')
const dir = temporaryFolder(t)
copyFileSync(join(source, filename), join(dir, filename))
await run('sh', ['-ec', page.block('sh package')], {
  cwd: dir,
  env: { npm_config_audit: 'false', npm_config_fund: 'false' },
})
const installed = join(dir, 'node_modules/kafscale-mcp')
const server = join(installed, 'dist/server.js')

t.test('it contains the launcher, each source as JavaScript, the schemas that it needs, and nothing else', async t => {
  t.strictSame(
    files.map(({ path }) => path).sort(),
    [
      ...DOCUMENTS,
      'package.json',
      'bin/kafscale-mcp.js',
      'dist/package.json',
      'dist/plugins/broker-control/broker-control.proto',
      'schemas/audit-record.json',
      ...sources().map(path => `dist/${path.slice(0, -'.ts'.length)}.js`),
    ].sort()
  )
})

t.test('no dependency needs to run a script during installation', async t => {
  const { packages } = JSON.parse(readFileSync(join(dir, 'node_modules/.package-lock.json'), 'utf8')) as {
    packages: Record<string, { hasInstallScript?: true }>
  }
  t.strictSame(
    Object.keys(packages).filter(path => packages[path]?.hasInstallScript),
    ['node_modules/protobufjs'],
    'except one that only warns about versions'
  )
})

t.test('it answers from a real etcd', needsEtcd(), async t => {
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

  t.test('started by its launcher: in the same process, with options for V8', async t => {
    const service = await start(t, join(dir, 'node_modules/.bin/kafscale-mcp'), [], {
      cwd: dir,
      env: { ...env, OTEL_TRACES_EXPORTER: 'otlp' }, // loads modules that are not loaded otherwise
    })
    t.match(await ask(service, 'list_topics'), orders)
    const health = await (await fetch(new URL('/healthz', service.url))).json()
    t.match(health, { status: 'ok', version: packageJson.version })
    t.strictSame(commandLine(service.process.pid), [...V8_OPTIONS, server])
    t.equal(await service.stop(), 0)
  })

  t.test('started by its launcher, without npx', async t => {
    const service = await start(t, ...command(byNode), { cwd: dir, env })
    t.match(await ask(service, 'list_topics'), orders)
    t.strictSame(commandLine(service.process.pid), [...V8_OPTIONS, server])
    t.equal(await service.stop(), 0)
  })

  t.test('to a client that starts it as npx kafscale-mcp stdio', async t => {
    const [command, args] = clean('npx', ['-y', 'kafscale-mcp', 'stdio'], {
      PATH, HOME: dir, npm_config_offline: 'true', ...etcd.env,
    })
    const client = new Client({ name: 'test', version: '1' }, { versionNegotiation: { mode: 'auto' } })
    await client.connect(new StdioClientTransport({ command, args, cwd: dir, stderr: 'ignore' }))
    t.match(await client.callTool({ name: 'list_topics', arguments: {} }), { structuredContent: orders })
    await client.close()
  })

  t.test('its commands make keys and tokens, and verify and show what is recorded', async t => {
    const npx = async (...args: string[]) => await run('npx', ['--offline', 'kafscale-mcp', ...args], { cwd: dir })
    const launcher = join(dir, 'node_modules/.bin/kafscale-mcp')
    t.equal(await npx('--version'), `${packageJson.version}\n`)
    for (const command of ['stdio', 'check', 'token', 'audit']) {
      t.match(await run(launcher, [command, '--help'], { cwd: dir }), `kafscale-mcp ${command}`)
    }
    await npx('token', 'keygen', '--key', 'token.key', '--jwks', 'jwks.json')
    const audience = 'https://kafscale-mcp.example/mcp'
    const claims = ['--audience', audience, '--subject', 'alice', '--scope', 'kafscale:observe']
    const token = await npx('token', 'issue', '--key', 'token.key', ...claims)
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
