/** The launcher in a checkout. `package.test.ts` runs it in a package. */
import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import packageJson from '../../package.json' with { type: 'json' }
import { ROOT } from '../support/paths.ts'
import { clean, spawnClean } from '../support/spawn.ts'
import { waitFor } from '../support/wait-for.ts'

const START_BOUND_MS = 10_000
const NO_ETCD = {
  KAFSCALE_MCP_ETCD_ENDPOINTS: 'http://127.0.0.1:1',
  KAFSCALE_MCP_HTTP_ADDR: '127.0.0.1:0',
  KAFSCALE_MCP_TELEMETRY_ADDR: 'off',
  KAFSCALE_MCP_AUDIT_SINKS: 'none',
  KAFSCALE_MCP_MAX_EVENT_LOOP_DELAY: '0',
}

/** Runs a program to its end, with only `env` in its environment. */
async function run (
  file: string,
  args: string[],
  { cwd = ROOT, env = {} }: { cwd?: string, env?: Record<string, string> } = {}
) {
  const { promise, resolve } = Promise.withResolvers<{ code: unknown, stdout: string, stderr: string }>()
  execFile(...clean(file, args, env), { cwd, env: {} }, (error, stdout, stderr) =>
    resolve({ code: error ? error.code : 0, stdout, stderr })
  )
  return await promise
}

/** A checkout without dist: the launcher, and links to the sources that it starts. */
function checkout (t: Test): { dir: string, launch: (...args: string[]) => ReturnType<typeof run> } {
  const dir = t.testdir({ 'package.json': JSON.stringify({ type: 'module', version: packageJson.version }) })
  cpSync(join(ROOT, 'bin'), join(dir, 'bin'), { recursive: true })
  for (const name of ['cli', 'server.ts']) symlinkSync(join(ROOT, name), join(dir, name))
  return { dir, launch: async (...args) => await run(process.execPath, [join(dir, 'bin/kafscale-mcp.js'), ...args]) }
}

t.test('without a command it runs the service', async t => {
  const { dir } = checkout(t)
  const service = spawnClean(process.execPath, [join(dir, 'bin/kafscale-mcp.js')], {
    env: NO_ETCD,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  t.teardown(() => service.kill('SIGKILL'))
  const exit = new Promise(resolve => service.once('exit', resolve))
  let log = ''
  service.stderr?.on('data', chunk => { log += chunk })
  const url = () => /"url":"([^"]+)","msg":"listening"/.exec(log)?.[1]
  await waitFor(() => url() !== undefined || log, START_BOUND_MS, 'listening')
  t.match(await (await fetch(new URL('/healthz', url()))).json(), { status: 'ok', version: packageJson.version })
  service.kill('SIGTERM')
  t.equal(await exit, 0)
})

t.test('token and audit are commands with their own output and exit codes', async t => {
  const { dir, launch } = checkout(t)
  t.match(await launch('token', '--help'), { code: 0, stdout: /kafscale-mcp token issue/, stderr: '' })
  t.match(await launch('token', 'keygen', '--key', join(dir, 'key'), '--jwks', join(dir, 'jwks')), {
    code: 0,
    stdout: /kid: /,
  })
  t.match(await launch('token', 'issue', '--key', join(dir, 'key'), '--subject', 'alice'), {
    code: 0,
    stdout: /^[\w-]+\.[\w-]+\.[\w-]+\n$/,
    stderr: '',
  })
  t.match(await launch('token', 'issue', '--key', join(dir, 'missing'), '--subject', 'alice'), { code: 1, stdout: '' })
  writeFileSync(join(dir, 'audit.log'), 'not a record\n')
  t.match(await launch('audit', 'verify', join(dir, 'audit.log')), { code: 1, stdout: '' })
  t.match(await launch('audit', 'verify', join(dir, 'missing')), { code: 2, stdout: '' })
})

t.test('an unknown command is refused', async t => {
  const { launch } = checkout(t)
  for (const command of ['serve', '', '-v', 'toString', '\u202e']) {
    t.match(await launch(command), {
      code: 2,
      stdout: '',
      stderr: `kafscale-mcp: unknown command ${JSON.stringify(command)}\nUsage:`,
    })
  }
  t.match(await launch('--exit-with', '1', '--verbose'), { code: 2, stdout: '', stderr: /Unknown option '--verbose'/ })
  t.match(await launch('--help'), { code: 0, stdout: /^Usage:\n {2}kafscale-mcp +runs the service/, stderr: '' })
})

t.test('the service and every command have --version', async t => {
  const { launch } = checkout(t)
  const shown = { code: 0, stdout: `${packageJson.version}\n`, stderr: '' }
  const usage = (await launch('--help')).stdout
  const commands = [...usage.matchAll(/^ {2}kafscale-mcp (\w+) /gm)].map(([, name = '']) => name)
  t.strictSame(commands, ['stdio', 'check', 'token', 'audit'])
  t.strictSame(await launch('--version'), shown)
  t.strictSame(await launch('--exit-with', '1', '--version'), shown)
  for (const command of commands) t.strictSame(await launch(command, '--version'), shown, command)
  t.strictSame(await launch('token', 'issue', '--version'), shown)
  t.match(await launch('serve', '--version'), { code: 2, stdout: '', stderr: /unknown command "serve"\nUsage:/ })
  t.strictSame(await run(process.execPath, ['server.ts', '--version']), shown, 'also without the launcher')
})

t.test('a reader that stops reading changes no exit code, and a full disk is reported', async t => {
  const { dir, launch } = checkout(t)
  const shell = async (script: string) =>
    await run('sh', ['-c', script, process.execPath, join(dir, 'bin/kafscale-mcp.js')])
  const closed = async (command: string) => await shell(`{ "$0" "$1" ${command}; echo "exit $?" >&2; } | true`)
  t.match(await closed('check'), { stderr: /^exit 1\n$/ }, 'the settings are not valid')
  t.match(await closed('check --help'), { stderr: /^exit 0\n$/ })
  await launch('token', 'keygen', '--key', join(dir, 'key'), '--jwks', join(dir, 'jwks'))
  t.match(await closed(`token issue --key ${join(dir, 'key')} --subject a`), { stderr: /^exit 0\n$/ })
  t.match(await shell('"$0" "$1" check > /dev/full'), {
    code: 2,
    stderr: /^kafscale-mcp: cannot write to standard output: ENOSPC.*\n$/,
  })
})

t.test('it runs the sources where they are, and a build only without them', async t => {
  const { dir, launch } = checkout(t)
  mkdirSync(join(dir, 'dist/cli'), { recursive: true })
  writeFileSync(
    join(dir, 'dist/cli/token.js'),
    'export async function token (args) { console.log("built", args.join()); return 7 }'
  )
  t.match(await launch('token', '--help'), { code: 0, stdout: /^Usage:/ })
  unlinkSync(join(dir, 'cli'))
  t.strictSame(await launch('token', 'a', 'b'), { code: 7, stdout: 'built a,b\n', stderr: '' })
})

t.test('an outdated Node.js is refused with the version that is needed', async t => {
  const { dir } = checkout(t)
  const launchOn = async (version: string) =>
    await run(process.execPath, [
      '--import',
      `data:text/javascript,Object.defineProperty(process.versions, 'node', { value: '${version}' })`,
      join(dir, 'bin/kafscale-mcp.js'),
      'token',
      '--help',
    ])
  for (const version of ['18.0.0', '20.20.2', '22.21.9']) {
    t.strictSame(await launchOn(version), {
      code: 2,
      stdout: '',
      stderr: `kafscale-mcp needs Node.js 22.22 or newer, and this is ${version}.\n`,
    })
  }
  for (const version of ['22.22.0', '24.0.0']) t.match(await launchOn(version), { code: 0 })
  t.equal(packageJson.engines.node, '>=22.22')
})

t.test('npx finds it in a checkout, and runs it on the Node.js that is a dependency', async t => {
  const own = (process.env.PATH ?? '').split(delimiter).filter(path => !path.includes('node_modules'))
  const npx = async (...args: string[]) =>
    await run('npx', args, {
      env: {
        PATH: own.join(delimiter),
        HOME: t.testdirName,
        npm_config_cache: join(t.testdirName, 'npm'),
        npm_config_offline: 'true',
        npm_config_update_notifier: 'false',
      },
    })
  t.testdir({})
  const { code, stdout, stderr } = await npx('kafscale-mcp', 'token', '--help')
  t.match({ code, stdout }, { code: 0, stdout: /^Usage:\n {2}kafscale-mcp token keygen/ }, stderr)
  const { stdout: version } = await promisify(execFile)(join(ROOT, 'node_modules/.bin/node'), ['--version'])
  t.match(version, /^v24\./)
  t.equal((await npx('node', '--version')).stdout, version)
  t.match(readFileSync(join(ROOT, packageJson.bin['kafscale-mcp']), 'utf8'), /^#!\/usr\/bin\/env node\n/)
})
