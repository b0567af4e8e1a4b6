/** Runs every code block of the install, configuration, connect and upgrade pages, or compares it with the service. */
import { copyFileSync, existsSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { readConfig } from '../plugins/config/read.ts'
import { ConfigSchema } from '../plugins/config/schema.ts'
import { readStdioConfig } from '../plugins/config/stdio.ts'
import { parsePolicy } from '../plugins/rbac/policy.ts'
import { needsEtcd, startEtcd } from './support/etcd.ts'
import { run } from './support/packaging.ts'
import { readPage } from './support/pages.ts'
import { ROOT } from './support/paths.ts'
import { goSdk, needsSdks, nodeSdks, pythonSdks } from './support/programs.ts'
import { temporaryFolder } from './support/run.ts'
import { buildTestApp, CALLER, fill, recordedKeyspace, startService } from './support/service.ts'

const pages = Object.fromEntries(
  readdirSync(join(ROOT, 'docs')).filter(name => name.endsWith('.md')).map(name => [name, readPage(name)])
)
const {
  'install.md': install,
  'configure.md': configure,
  'connect.md': connect,
  'upgrade.md': upgrade,
  'troubleshooting.md': troubleshooting,
} = pages as
  & Record<string, ReturnType<typeof readPage>>
  & Record<
    'install.md' | 'configure.md' | 'connect.md' | 'upgrade.md' | 'troubleshooting.md',
    ReturnType<typeof readPage>
  >
const TOKEN = '0123456789abcdef'.repeat(2)
const variables = Object.values<{ name: string, secret?: true }>(ConfigSchema).flatMap(({ name, secret }) =>
  secret ? [name, `${name}_FILE`] : [name]
)

t.test('every code block is of a kind that a test covers', async t => {
  const proxies = ['nginx prefix', 'yaml gateway'] // tests/nginx.test.ts, tests/chart/chart.test.ts
  const installing = install.kinds.filter(kind => !proxies.includes(kind))
  t.strictSame(installing, [
    'sh compose',
    'sh env none',
    'sh etcd',
    'sh etcd ledger',
    'sh image',
    'sh look',
    'sh package',
    'sh start',
  ])
  t.strictSame(configure.kinds, ['sh env none', 'sh env oidc', 'sh env token'])
  t.strictSame(connect.kinds, [
    'go sdk',
    'js ai-sdk',
    'js sdk',
    'json client',
    'json oauth',
    'json stdio',
    'python sdk',
    'sh client',
    'sh curl',
    'sh oauth',
    'sh stdio',
  ])
  t.strictSame(upgrade.kinds, ['json fields', 'yaml chart', 'yaml kafscale-chart'])
  t.strictSame(troubleshooting.kinds, [
    'sh check',
    'sh env refused',
    'sh run look',
    'text check',
    'text sentence',
  ])
})

t.test('every link leads to an existing file and heading', async t => {
  for (const name of [...Object.keys(pages), '../README.md', '../bench/README.md']) {
    for (const { path, anchor } of readPage(name).links) {
      const target = path === '' ? name : join(dirname(name), path)
      const exists = existsSync(join(ROOT, 'docs', target))
      t.ok(exists, `${name}: ${path}`)
      if (exists && anchor !== undefined) {
        t.ok(readPage(target).anchors.includes(anchor), `${name}: ${path}#${anchor}`)
      }
    }
  }
})

t.test('the pages name only existing variables, and the configuration page explains each', async t => {
  for (const [name, { text }] of Object.entries(pages)) {
    const named = new Set([...text.matchAll(/KAFSCALE_MCP_([A-Z_]*[A-Z])/g)].map(([, variable = '']) => variable))
    t.strictSame([...named].filter(variable => !variables.includes(variable)), [], name)
  }
  const [explanation = '', reference] = configure.text.split('\n## All settings\n')
  t.type(reference, 'string', 'the reference is the last section')
  const unexplained = Object.values(ConfigSchema).map(({ name }) => name).filter(name =>
    !new RegExp(`KAFSCALE_MCP_${name}\\b`).test(explanation)
  )
  t.strictSame(unexplained, [])
})

/** Creates a folder with every file that the pages name. */
async function folder (t: Test): Promise<string> {
  const dir = t.testdir({
    token: `${TOKEN}\n`,
    'etcd-password': 'read-only\n',
    'changes-etcd-password': 'read-write\n',
    'policy.yaml': 'bindings: [{ role: observer, claim: groups, value: kafka }]\n',
  })
  t.same(parsePolicy(readFileSync(join(dir, 'policy.yaml'), 'utf8'), []).bindings?.length, 1)
  for (const name of ['tls', 'ca', 'etcd-ca']) {
    await run('openssl', [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-noenc',
      '-days',
      '1',
      '-subj',
      '/CN=test',
      '-keyout',
      `${name}.key`,
      '-out',
      `${name}.crt`,
    ], { cwd: dir })
  }
  return dir
}

t.test('each configuration selects the mode in its info string, without warnings', async t => {
  const dir = await folder(t)
  for (const [name, page] of Object.entries({ install, configure })) {
    for (const kind of page.kinds.filter(kind => kind.startsWith('sh env '))) {
      for (const text of page.ofKind(kind)) {
        const { auth: { mode: authMode }, warnings } = readConfig({
          KAFSCALE_MCP_ETCD_ENDPOINTS: 'http://etcd:2379',
          ...page.environment(text, dir),
        })
        t.equal(authMode, kind.split(' ').at(-1), name)
        t.strictSame(warnings.filter(warning => !/shared secret/.test(warning)), [])
      }
    }
  }
  const [, parallel = ''] = /```sh env token\n([^]*?)```/.exec(upgrade.text) ?? []
  const { auth: { mode: authMode }, warnings } = readConfig(upgrade.environment(parallel.replaceAll(/^ +/gm, ''), dir))
  t.equal(authMode, 'token')
  t.match(warnings, [/SESSION_TIMEOUT has no effect/, /shared secret/])
})

t.test('the etcd users can read /kafscale/, and read and write the ledger, and nothing else', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const ETCDCTL = { ETCDCTL_API: '3', ETCDCTL_ENDPOINTS: etcd.endpoints[0] as string }
  // No other test needs etcdctl, so it may be missing.
  const has = await run('sh', ['-c', 'command -v etcdctl || true'], { cwd: ROOT })
  for (const kind of ['sh etcd', 'sh etcd ledger']) t.equal(install.block(kind).trim().split('\n').length, 4)
  if (has.trim() === '') return
  await fill(etcd, [{ key: '/kafscale/metadata/snapshot', value: '{"Topics":[{"Topic":"orders"}]}' }])
  for (const kind of ['sh etcd', 'sh etcd ledger']) await install.runEach(kind, { cwd: t.testdir({}), env: ETCDCTL })
  await install.run('etcdctl user add root:root\netcdctl user grant-role root root\netcdctl auth enable', {
    cwd: t.testdirName,
    env: ETCDCTL,
  })
  const as = (user: string) => async (command: string) =>
    await install.run(`etcdctl --user ${user} ${command}`, { cwd: t.testdirName, env: ETCDCTL })
  const asReader = as('kafscale-mcp:read-only')
  t.match(await asReader('get --prefix /kafscale/'), [/orders/])
  await t.rejects(asReader('get --prefix /'), /permission denied/)
  await t.rejects(asReader('put /kafscale/x y'), /permission denied/)
  await t.rejects(asReader('get --prefix /kafscale-mcp/changes/'), /permission denied/)
  await t.rejects(asReader('put /kafscale-mcp/changes/x y'), /permission denied/)

  const asLedger = as('kafscale-mcp-changes:read-write')
  await asLedger('put /kafscale-mcp/changes/by-id/x y')
  const [granted = ''] = await asLedger('lease grant 60')
  const [, lease = ''] = /lease (\w+) granted/.exec(granted) ?? []
  await asLedger(`put --lease=${lease} /kafscale-mcp/changes/lock z`)
  t.match(await asLedger('get --prefix --keys-only /kafscale-mcp/changes/'), [/by-id\/x\s+.*lock/])
  await asLedger(`lease revoke ${lease}`)
  t.match(await asLedger('del --prefix /kafscale-mcp/changes/'), [/^1$/m])
  for (const key of ['/kafscale/metadata/snapshot', '/kafscale-mcp/x', '/kafscale-mcp/changes', '/x']) {
    await t.rejects(asLedger(`put ${key} y`), /permission denied/, key)
    await t.rejects(asLedger(`del ${key}`), /permission denied/, key)
    await t.rejects(asLedger(`get ${key}`), /permission denied/, key)
  }
})

t.test('the container commands set only variables that the service knows', async t => {
  const [build = '', serve = '', verify = ''] = install.block('sh image').trim().split('\n')
  t.match(build, /^docker build --tag kafscale-mcp \.$/)
  const env = Object.fromEntries(
    [...serve.matchAll(/--env ([A-Z_]+)(?:=(\S+))?/g)].map(([, name = '', value = TOKEN]) => [name, value])
  )
  const { auth: { mode: authMode }, httpAddr, warnings } = readConfig({
    KAFSCALE_MCP_HTTP_ADDR: /KAFSCALE_MCP_HTTP_ADDR=(\S+)/.exec(readFileSync(join(ROOT, 'Dockerfile'), 'utf8'))?.[1],
    ...env,
  })
  t.match({ authMode, httpAddr }, { authMode: 'token', httpAddr: { host: '::', port: 8090 } })
  t.match(warnings, [/shared secret/, /PUBLIC_URL is not set/])
  t.match(verify, /^docker run .* --entrypoint node .* kafscale-mcp bin\/kafscale-mcp\.js audit verify /)
  const [, ...compose] = readFileSync(join(ROOT, 'docker-compose.yaml'), 'utf8').match(/^# {3}(.*)$/gm) ?? []
  t.strictSame(install.block('sh compose').trim().split('\n').slice(1), compose.map(line => line.slice(4)))
})

t.test('with a running service', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  await fill(etcd, recordedKeyspace())
  const dir = t.testdir({})
  const service = startService(t, {
    ...etcd.env,
    KAFSCALE_MCP_AUTH_TOKEN: TOKEN,
    KAFSCALE_MCP_AUDIT_SINKS: `file:${dir}/audit.jsonl`,
  })
  const url = await service.url
  const env = { KAFSCALE_TOKEN: TOKEN }

  t.test('the verification commands succeed', async t => {
    await install.run(
      'curl --silent --fail --retry 20 --retry-all-errors --retry-delay 1 http://127.0.0.1:8090/readyz',
      { cwd: dir, url }
    )
    const [ready = '', health = ''] = await install.runEach('sh look', { cwd: dir, url })
    t.strictSame(JSON.parse(ready), { status: 'ready' })
    t.match(JSON.parse(health), { status: 'ok', dependencies: { etcd: { state: 'connected', keys: Number } } })
  })

  t.test('the curl commands work with both kinds of revisions', async t => {
    const answers = (await connect.runEach('sh curl', { cwd: dir, url, env })).map(text =>
      JSON.parse(text).result.structuredContent
    )
    t.equal(answers.length, 3)
    const [legacy, modern, access] = answers
    t.ok(legacy.lag.length > 0)
    t.ok(legacy.lag.every(({ lag }: { lag: number }) => lag >= 1000))
    t.strictSame(modern.lag.length, legacy.lag.length)
    t.match(access, { principal: { subject: 'static-token' }, roles: ['observer'] })
  })

  t.test('the snippets work with both SDK versions', async t => {
    const snippets = connect.ofKind('js sdk')
    t.equal(snippets.length, 2)
    for (const [index, snippet] of snippets.entries()) {
      const file = join(dir, `snippet-${index}.mjs`)
      writeFileSync(file, at(url, snippet))
      t.match(await run(process.execPath, [file], { cwd: dir, env }), /lag: \[/)
    }
  })

  t.test('the snippet for the AI SDK works', needsSdks(nodeSdks), async t => {
    const folder = temporaryFolder(t)
    symlinkSync(join(nodeSdks, 'node_modules'), join(folder, 'node_modules'))
    writeFileSync(join(folder, 'snippet.mjs'), at(url, connect.block('js ai-sdk')))
    t.match(await run(process.execPath, ['snippet.mjs'], { cwd: folder, env }), /lag: \[/)
  })

  t.test('the snippets for Python work', needsSdks(pythonSdks), async t => {
    const snippets = connect.ofKind('python sdk')
    t.equal(snippets.length, 3)
    for (const [index, snippet] of snippets.entries()) {
      writeFileSync(join(dir, `snippet-${index}.py`), at(url, snippet))
      const printed = await run(join(pythonSdks, 'bin/python'), [`snippet-${index}.py`], { cwd: dir, env })
      t.match(printed, /["']lag\\?["']: ?\[/)
    }
  })

  t.test('the snippet for Go works', needsSdks(goSdk), async t => {
    const folder = temporaryFolder(t)
    const module = join(ROOT, 'tests/support/go-client')
    for (const name of ['go.mod', 'go.sum']) copyFileSync(join(module, name), join(folder, name))
    writeFileSync(join(folder, 'main.go'), at(url, connect.block('go sdk')))
    const printed = await run('go', ['run', '.'], { cwd: folder, env: { ...env, GOMODCACHE: goSdk, GOPROXY: 'off' } })
    t.match(printed, /lag:\[/)
  })
})

/** A snippet that connects to the service of the test. */
function at (url: string, snippet: string): string {
  return snippet.replace('http://127.0.0.1:8090/mcp', url)
}

t.test('the tested clients have the versions that the tests use', async t => {
  const read = (path: string) => readFileSync(join(ROOT, path), 'utf8')
  const locked = ({ packages }: { packages: Record<string, { version?: string }> }, name: string) =>
    packages[`node_modules/${name}`]?.version
  const versionOf = (name: string) =>
    locked(JSON.parse(read('package-lock.json')), name) ??
      locked(JSON.parse(read('tests/support/converters/package-lock.json')), name) ??
      new RegExp(`^${name}==(.*)$`, 'm').exec(read('tests/support/converters/requirements.txt'))?.[1] ??
      new RegExp(`^require ${name} v(.*)$`, 'm').exec(read('tests/support/go-client/go.mod'))?.[1]
  const tested = connect.rows('client').filter(([, , how]) => how?.startsWith('tests: '))
  t.equal(tested.length, 13)
  for (const [client = '', version] of tested) t.equal(version, versionOf(client.replaceAll('`', '')), client)
})

t.test('client configurations name the endpoint and contain no token', async t => {
  const configurations = connect.ofKind('json client')
  t.equal(configurations.length, 4)
  for (const text of configurations) {
    const { mcpServers, servers } = JSON.parse(text)
    const { url, args, headers = {} } = (mcpServers ?? servers).kafscale
    t.equal(url ?? args[2], 'http://127.0.0.1:8090/mcp')
    t.match(headers.Authorization ?? args.at(-1), /\$\{[^}]+\}$/)
  }
  for (const command of connect.ofKind('sh client')) t.match(command, ' http://127.0.0.1:8090/mcp ')
})

t.test('clients start kafscale-mcp stdio as shown, and as in the README', async t => {
  const readme = readFileSync(join(ROOT, 'README.md'), 'utf8')
  const snippets = connect.ofKind('json stdio')
  t.equal(snippets.length, 2)
  for (const text of snippets) {
    const { mcpServers, servers } = JSON.parse(text)
    const { command, args, env } = (mcpServers ?? servers).kafscale
    t.strictSame([command, ...args], ['npx', '-y', 'kafscale-mcp', 'stdio']) // tests/package.test.ts runs it
    t.ok(readStdioConfig(env))
    t.ok(readme.includes(`\`${text.trim()}\``), text)
  }
  const command = connect.block('sh stdio').trim()
  t.match(command, / -- npx -y kafscale-mcp stdio$/)
  t.ok(readme.includes(`\`${command}\``))
})

t.test('the resource metadata is as shown', async t => {
  const dir = t.testdir({})
  const service = startService(t, {
    KAFSCALE_MCP_OIDC_ISSUER: 'https://id.example/realms/main',
    KAFSCALE_MCP_AUDIT_SINKS: `file:${dir}/audit.jsonl`,
  })
  const url = await service.url
  const [metadata = ''] = await connect.runEach('sh oauth', { cwd: dir, url })
  t.strictSame(
    JSON.parse(metadata.replaceAll(new URL(url).origin, 'http://127.0.0.1:8090')),
    JSON.parse(connect.block('json oauth'))
  )
})

t.test('tools have every field that the Go service has', async t => {
  interface Schema { properties?: Record<string, Schema>, items?: Schema }
  const app = await buildTestApp(t)
  const tools = new Map(
    app.tools.list(CALLER.principal).map(({ name, outputSchema }) => [name, outputSchema as Schema])
  )
  const promised = JSON.parse(upgrade.block('json fields')) as Record<string, string[]>
  t.equal(Object.keys(promised).length, 8)
  for (const [tool, fields] of Object.entries(promised)) {
    for (const field of fields) {
      const found = field.split('.').reduce<Schema | undefined>((schema, part) => {
        const property = schema?.properties?.[part.replace('[]', '')]
        return part.endsWith('[]') ? property?.items : property
      }, tools.get(tool))
      t.ok(found, `${tool}: ${field}`)
    }
  }
})
