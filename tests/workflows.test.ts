/** The GitHub workflows: their permissions, the actions that they run, and what a release consists of. */
import { spawnSync } from 'node:child_process'
import { chmodSync, globSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import t from 'tap'
import { parse } from 'yaml'
import packageJson from '../package.json' with { type: 'json' }
import { ROOT } from './support/paths.ts'
import { temporaryFolder } from './support/run.ts'

interface Step { uses?: string, run?: string, with?: Record<string, unknown> }
interface Job { permissions?: Record<string, string>, steps?: Step[], uses?: string, needs?: string }
interface Workflow { on: Record<string, unknown>, permissions: object, jobs: Record<string, Job> }

const texts = new Map(
  globSync('.github/workflows/*.yaml', { cwd: ROOT }).map(
    path => [basename(path), readFileSync(join(ROOT, path), 'utf8')]
  )
)
const workflows = new Map([...texts].map(([name, text]) => [name, parse(text) as Workflow]))

t.test('actions are pinned to a commit, with the version beside it', async t => {
  const uses = [...texts.values()].flatMap(text => [...text.matchAll(/uses: (.*)/g)].map(([, action = '']) => action))
    .filter(action => !action.startsWith('./'))
  t.ok(uses.length > 5)
  for (const action of uses) t.match(action, /^[\w-]+\/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/)
})

t.test('each job declares its permissions, and only those that publish may write', async t => {
  for (const [name, { permissions, jobs }] of workflows) {
    t.strictSame(permissions, {}, name)
    for (const [id, { permissions, steps = [] }] of Object.entries(jobs)) {
      t.equal(permissions?.['contents'], 'read', `${name}: ${id}`)
      const publishes = name === 'release.yaml' && id !== 'test'
      t.equal(Object.values(permissions ?? {}).includes('write'), publishes, `${name}: ${id}`)
      for (const { uses, with: inputs } of steps) {
        if (uses?.startsWith('actions/checkout@')) {
          t.equal(inputs?.['persist-credentials'], false, 'the token is not left in the checkout')
        }
      }
      for (const { run = '' } of steps) t.notMatch(run, /\$\{\{/, 'no expression is expanded into a shell script')
    }
  }
})

t.test('CI runs the same checks as developers', async t => {
  const { on, jobs } = workflows.get('test.yaml') as Workflow
  t.strictSame(Object.keys(on).sort(), ['pull_request', 'push', 'workflow_call'])
  t.ok(jobs['test']?.steps?.some(({ run }) => run === 'bash .ci/run'))
  t.ok(jobs['image']?.steps?.some(({ run }) => run?.startsWith('docker compose up --build --wait')))
})

t.test('a release is tested, its tag is its version, and its provenance is published', async t => {
  const { on, jobs } = workflows.get('release.yaml') as Workflow
  t.strictSame(on, { push: { tags: ['v*'] } })
  t.equal(jobs['test']?.uses, './.github/workflows/test.yaml')
  for (const id of ['package', 'image']) {
    t.equal(jobs[id]?.needs, 'test')
    t.ok(jobs[id]?.steps?.some(({ run = '' }) => /^test "\$GITHUB_REF_NAME" = "v.*package\.json.*\.version/.test(run)))
    t.match(jobs[id]?.permissions, { 'id-token': 'write', attestations: 'write' })
    t.ok(jobs[id]?.steps?.some(({ uses }) => uses?.startsWith('actions/attest@')))
  }
  t.ok(
    jobs['package']?.steps?.some(({ run }) =>
      run === `npm publish --provenance --access public ./${packageJson.name}-*.tgz`
    )
  )
  t.notOk(jobs['package']?.steps?.some(({ run }) => run?.includes('npm pkg set')), 'the package is published as it is')
  t.match(jobs['image']?.steps?.find(({ uses }) => uses?.startsWith('docker/build-push-action@'))?.with, {
    provenance: 'mode=max',
    sbom: true,
    push: true,
  })
})

t.test('CI refuses dependencies with known vulnerabilities, before a release too', async t => {
  const { jobs } = workflows.get('test.yaml') as Workflow
  const runs = Object.values(jobs).flatMap(({ steps = [] }) => steps.map(({ run }) => run))
  t.ok(runs.includes('npm audit --omit=dev --audit-level=high'))
})

t.test('a release builds on base images that are pinned to a digest', async t => {
  const { steps = [] } = (workflows.get('release.yaml') as Workflow).jobs['image'] ?? {}
  const pin = steps.findIndex(({ run }) => run?.includes('docker buildx imagetools inspect'))
  const build = steps.findIndex(({ uses }) => uses?.startsWith('docker/build-push-action@'))
  t.ok(steps.findIndex(({ uses }) => uses?.startsWith('docker/setup-buildx-action@')) < pin)
  t.ok(pin !== -1 && pin < build)
  t.match(steps[build]?.with, { context: '.', file: /^\$\{\{ runner\.temp \}\}\/Dockerfile$/ })

  const DIGEST = `sha256:${'0123456789abcdef'.repeat(4)}`
  /** Runs the step with a `docker` that prints this digest. Returns the FROM lines of the Dockerfile that is built. */
  const pinned = (dockerfile: string, digest = DIGEST, status = 0) => {
    const dir = temporaryFolder(t)
    writeFileSync(join(dir, 'docker'), `#!/bin/sh\necho '${digest}'\nexit ${status}\n`)
    chmodSync(join(dir, 'docker'), 0o755)
    const folder = temporaryFolder(t)
    writeFileSync(join(folder, 'Dockerfile'), dockerfile)
    const env = { PATH: `${dir}:${process.env['PATH']}`, RUNNER_TEMP: dir }
    const ended = spawnSync('bash', ['-eo', 'pipefail', '-c', steps[pin]?.run ?? ''], { cwd: folder, env })
    if (ended.status !== 0) return 'failed'
    return readFileSync(join(dir, 'Dockerfile'), 'utf8').split('\n').filter(line => line.startsWith('FROM '))
  }
  t.strictSame(pinned(readFileSync(join(ROOT, 'Dockerfile'), 'utf8')), [
    `FROM --platform=$BUILDPLATFORM node:24-trixie-slim@${DIGEST} AS dependencies`,
    'FROM dependencies AS build',
    `FROM gcr.io/distroless/nodejs24-debian13:nonroot@${DIGEST}`,
  ])
  t.strictSame(
    pinned('FROM node:24 AS a\nFROM node:24-slim AS node\nFROM node\nFROM alpine\nFROM node:24\n'),
    [
      `FROM node:24@${DIGEST} AS a`,
      `FROM node:24-slim@${DIGEST} AS node`,
      'FROM node',
      `FROM alpine@${DIGEST}`,
      `FROM node:24@${DIGEST}`,
    ],
    'also without a tag, with names that begin alike, and twice'
  )
  t.equal(pinned('FROM node:24\n', ''), 'failed', 'without a digest')
  t.equal(pinned('FROM node:24\n', 'latest'), 'failed', 'with something else')
  t.equal(pinned('FROM node:24\n', DIGEST, 1), 'failed', 'if the registry does not answer')
  t.equal(pinned('# FROM node:24\n'), 'failed', 'without a base image')
})

t.test('a release from another tag or repository fails', async t => {
  const { jobs } = workflows.get('release.yaml') as Workflow
  const checks = jobs['package']?.steps?.flatMap(({ run = '' }) => run.startsWith('test ') ? run : []).join('\n') ?? ''
  const passes = (tag: string, repository: string) => {
    const env = { PATH: process.env['PATH'], GITHUB_REF_NAME: tag, GITHUB_REPOSITORY: repository }
    return spawnSync('sh', ['-ec', checks], { cwd: ROOT, env }).status === 0
  }
  const tag = `v${packageJson.version}`
  t.ok(passes(tag, 'KafScale/kafscale-mcp'))
  t.notOk(passes('v0.0.0', 'KafScale/kafscale-mcp'))
  t.notOk(passes(tag, 'somebody/kafscale-mcp'))
})
