/** The image, without a container engine: this follows the steps of the Dockerfile, and runs the result. */
import { cpSync, existsSync, globSync, mkdirSync, readFileSync, statSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parse } from 'yaml'
import packageJson from '../package.json' with { type: 'json' }
import { readConfig } from '../plugins/config/read.ts'
import { needsEtcd, startEtcd } from './support/etcd.ts'
import {
  ask,
  buildContext,
  commandLine,
  contextNames,
  PATH,
  run,
  sources,
  start,
  V8_OPTIONS,
} from './support/packaging.ts'
import { ROOT } from './support/paths.ts'
import { temporaryFolder } from './support/run.ts'
import { fill } from './support/service.ts'

interface Instruction { name: string, text: string }
interface Stage { base: string, instructions: Instruction[] }

const stages = new Map<string, Stage>()
const dockerfile = readFileSync(join(ROOT, 'Dockerfile'), 'utf8')
for (const line of dockerfile.replace(/^#.*\n/gm, '').replace(/\\\n\s*/g, '').split('\n').filter(line => line !== '')) {
  const [, name = '', text = ''] = /^([A-Z]+) +(.*)$/.exec(line) ?? []
  if (name === 'FROM') {
    const [base = '', alias = 'image'] = text.replace('--platform=$BUILDPLATFORM ', '').split(' AS ')
    stages.set(alias, { base, instructions: [] })
  } else {
    [...stages.values()].at(-1)?.instructions.push({ name, text })
  }
}
const image = stages.get('image')?.instructions ?? []
const ofImage = (name: string) => image.filter(instruction => instruction.name === name).map(({ text }) => text)
const pairs = (text = '') =>
  Object.fromEntries(
    [...text.matchAll(/([\w.]+)=("[^"]*"|\S+)/g)].map((
      [, name = '', value = '']
    ) => [name, value.replace(/^"(.*)"$/, '$1')])
  )
/** Only root may run a program as another user. */
const asRoot = process.getuid?.() === 0
const entrypoint = JSON.parse(ofImage('ENTRYPOINT')[0] ?? '[]') as string[]

t.test('its build context is what the build reads, and nothing else', async t => {
  t.strictSame(
    contextNames().sort(),
    [
      ...new Set(sources().map(path => path.split('/')[0])),
      'bin',
      'package-lock.json',
      'package.json',
      'schemas', // part of the package, which is built from the same files
      'tsconfig.build.json',
      'tsconfig.json',
    ].sort()
  )
})

t.test('it runs on a supported Node.js, as an unprivileged user', async t => {
  t.match(stages.get('dependencies')?.base, /^node:24-/)
  t.match(stages.get('image')?.base, /^gcr\.io\/distroless\/nodejs24-/)
  t.strictSame(ofImage('USER'), ['10001:10001'])
  t.strictSame(ofImage('EXPOSE'), ['8090 9090'])
  t.notOk(image.some(({ name }) => ['RUN', 'ADD', 'SHELL'].includes(name)), 'it has no shell')
})

t.test('its labels describe it', async t => {
  const set = pairs(ofImage('ARG').join(' '))
  t.strictSame(pairs(ofImage('LABEL')[0]?.replace(/\$\{(\w+)\}/g, (_, name) => `${set[name]}`)), {
    'org.opencontainers.image.title': packageJson.name,
    'org.opencontainers.image.description': packageJson.description,
    'org.opencontainers.image.version': set['VERSION'],
    'org.opencontainers.image.revision': set['REVISION'],
    'org.opencontainers.image.licenses': packageJson.license,
  })
})

t.test('it starts the launcher', async t => {
  t.strictSame(entrypoint, ['node', 'bin/kafscale-mcp.js'])
  t.strictSame(ofImage('CMD'), [])
})

t.test('it answers as uid 10001 from folders that it cannot write to', needsEtcd(), async t => {
  const root = temporaryFolder(t)
  await follow('image', root, buildContext(t))
  const [workdir = ''] = ofImage('WORKDIR')
  const cwd = join(root, workdir)
  t.strictSame(globSync('*', { cwd }).sort(), ['bin', 'dist', 'node_modules', 'package.json'])
  t.strictSame(globSync('**/*.ts', { cwd, exclude: ['node_modules'] }), [])
  const locked = Object.entries(
    JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')).packages as Record<string, { dev?: true }>
  )
  t.strictSame(
    locked.filter(([path, { dev }]) => dev && existsSync(join(cwd, path))),
    [],
    'no development dependencies'
  )

  // The base image has Node.js there.
  mkdirSync(join(root, 'nodejs/bin'), { recursive: true })
  cpSync(process.execPath, join(root, 'nodejs/bin/node'))
  await run('chmod', ['-R', 'a+rX,a-w', root], { cwd: root })
  const { PATH: path = '', ...set } = pairs(ofImage('ENV').join(' '))
  t.match(path, /^\/nodejs\/bin:/)
  const etcd = await startEtcd(t)
  await fill(etcd, [{
    key: '/kafscale/metadata/snapshot',
    value: JSON.stringify({ Topics: [{ Topic: 'orders', Partitions: [] }] }),
  }])
  const port = /:(\d+)$/.exec(set['KAFSCALE_MCP_HTTP_ADDR'] ?? '')?.[1] ?? ''
  const env = {
    ...set,
    PATH: path.split(':').map(folder => join(root, folder)).join(':'),
    KAFSCALE_MCP_HTTP_ADDR: set['KAFSCALE_MCP_HTTP_ADDR']?.replace(port, '0'),
    KAFSCALE_MCP_TELEMETRY_ADDR: 'off',
    KAFSCALE_MCP_AUTH_TOKEN: 'x'.repeat(32),
    ...etcd.env,
  }
  const [node = '', ...args] = entrypoint
  const service = await start(t, join(root, 'nodejs/bin', node), args, {
    cwd,
    env,
    ...asRoot && { uid: 10001, gid: 10001 },
  })
  t.match(await ask(service, 'list_topics', 'x'.repeat(32)), { topics: [{ name: 'orders' }], total: 1 })
  t.match(service.output.stdout, /"tool":"list_topics"/, 'audit records go to standard output')
  t.strictSame(commandLine(service.process.pid), [...V8_OPTIONS, join(cwd, 'dist/server.js')], 'in the same process')
  if (asRoot) {
    t.match(readFileSync(`/proc/${service.process.pid}/status`, 'utf8'), /^Uid:(\t10001){4}$[^]*^Gid:(\t10001){4}$/m)
  }

  t.test('its health check succeeds only while the service runs', async t => {
    const [, command = ''] = /^(?:--\S+ )*CMD (.*)$/.exec(ofImage('HEALTHCHECK')[0] ?? '') ?? []
    const [node = '', ...args] = JSON.parse(command) as string[]
    t.match(args.join(' '), `127.0.0.1:${port}/`)
    const check = async () =>
      await run(
        join(root, 'nodejs/bin', node),
        args.map(argument => argument.replace(port, new URL(service.url).port)),
        { cwd }
      )
    t.equal(await check(), '')
    t.equal(await service.stop(), 0)
    await t.rejects(check(), { cause: 1 })
  })
})

t.test('docker-compose.yaml starts an etcd and the service, on loopback only', async t => {
  interface Service {
    image: string
    ports: string[]
    environment?: Record<string, string>
    depends_on?: Record<string, { condition: string }>
    healthcheck?: { test: string[] }
    command?: string[]
    volumes?: string[]
  }
  const { services, volumes } = parse(readFileSync(join(ROOT, 'docker-compose.yaml'), 'utf8')) as {
    services: Record<'etcd' | 'kafscale-mcp', Service>
    volumes: object
  }
  for (const { ports } of Object.values(services)) for (const port of ports) t.match(port, /^127\.0\.0\.1:(\d+):\1$/)
  const { etcd, 'kafscale-mcp': service } = services
  t.match(etcd.image, /:v\d+\.\d+\.\d+$/)
  t.ok(etcd.healthcheck)
  t.strictSame(service.depends_on, { etcd: { condition: 'service_healthy' } })
  t.strictSame(Object.keys(volumes), etcd.volumes?.map(volume => volume.split(':')[0]))
  t.match(service, { read_only: true, cap_drop: ['ALL'], security_opt: ['no-new-privileges:true'], build: '.' })

  t.test('but not without a token', async t => {
    const { KAFSCALE_MCP_AUTH_TOKEN: token } = service.environment ?? {}
    t.match(token, /^\$\{KAFSCALE_MCP_AUTH_TOKEN:\?\S[^}]*openssl rand -hex 32\}$/)
    t.match(await run('openssl', ['rand', '-hex', '32'], { cwd: ROOT }), /^[0-9a-f]{64}\n$/)
  })

  t.test('with settings whose only warning is that of a shared secret', async t => {
    const given = Object.entries(service.environment ?? {}).map((
      [name, value]
    ) => [name, value.replace(/\$\{\w+:\?[^}]*\}/, 'x'.repeat(64)).replace(/\$\{\w+:-([^}]*)\}/, '$1')])
    const { auth: { mode: authMode }, httpAddr, etcdEndpoints, publicUrl, warnings } = readConfig({
      ...pairs(ofImage('ENV').join(' ')),
      ...Object.fromEntries(given),
    })
    t.match({ authMode, publicUrl, port: httpAddr.port }, {
      authMode: 'token',
      publicUrl: 'http://127.0.0.1:8090',
      port: 8090,
    })
    t.match(warnings, [/shared secret/])
    t.equal(warnings.length, 1)
    t.strictSame(etcdEndpoints, ['http://etcd:2379'], 'the etcd beside it')
    t.ok(etcd.command?.includes('--advertise-client-urls=http://etcd:2379'))
  })

  t.test('with flags that etcd knows', needsEtcd(), async t => {
    const help = await run('sh', ['-c', 'etcd --help 2>&1'], { cwd: ROOT, env: { ETCD_UNSUPPORTED_ARCH: 'arm64' } })
    const [, ...flags] = etcd.command ?? []
    for (const flag of flags) t.match(help, new RegExp(`^ +${flag.split('=')[0]}\\b`, 'm'))
  })
})

/** Makes a stage in a folder, which stands for the root of its files. */
async function follow (name: string, root: string, context: string): Promise<void> {
  const instructions = instructionsOf(name)
  const lastInstall = instructions.findLastIndex(isInstall)
  let cwd = root
  for (const [index, instruction] of instructions.entries()) {
    const { name, text } = instruction
    if (name === 'WORKDIR') {
      cwd = join(root, text)
      mkdirSync(cwd, { recursive: true })
    } else if (name === 'COPY') {
      const [, from, paths = ''] = /^(?:--from=(\S+) )?(.*)$/.exec(text) ?? []
      const origin = from === undefined ? context : await made(from, context)
      const names = paths.split(' ')
      const destination = join(cwd, names.pop() ?? '')
      for (const path of names) {
        await copy(join(origin, path), names.length > 1 ? join(destination, path) : destination)
      }
    } else if (isInstall(instruction) && index < lastInstall) {
      // The next installation removes this one first.
    } else if (isInstall(instruction) && !text.includes('--omit=dev')) {
      // The tests run on what the same lock file has installed.
      symlinkSync(join(ROOT, 'node_modules'), join(cwd, 'node_modules'))
    } else if (name === 'RUN') {
      await run('sh', ['-ec', text], { cwd, env: { PATH } })
    }
  }
}

/** Copies a file, or the content of a folder. Node.js takes five times as long for the dependencies. */
async function copy (from: string, to: string): Promise<void> {
  const isFolder = statSync(from).isDirectory()
  if (isFolder) mkdirSync(to, { recursive: true })
  await run('cp', ['-RP', isFolder ? `${from}/.` : from, to], { cwd: ROOT })
}

/** The instructions of a stage and of the stages that it is based on. */
function instructionsOf (name: string): Instruction[] {
  const { base, instructions } = stages.get(name) as Stage
  return [...stages.has(base) ? instructionsOf(base) : [], ...instructions]
}

function isInstall ({ name, text }: Instruction): boolean {
  return name === 'RUN' && text.startsWith('npm ci ')
}

const finished = new Map<string, Promise<string>>()

/** The root of a stage that others copy from. */
async function made (name: string, context: string): Promise<string> {
  const root = temporaryFolder(t)
  const stage = finished.get(name) ?? follow(name, root, context).then(() => root)
  finished.set(name, stage)
  return await stage
}
