/** The permissions of the GitHub workflows, and the actions that they run. */
import { globSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import t from 'tap'
import { parse } from 'yaml'
import packageJson from '../package.json' with { type: 'json' }
import { ROOT } from './support/paths.ts'

interface Step { uses?: string, run?: string, with?: Record<string, unknown> }
interface Job { permissions?: Record<string, string>, steps?: Step[], uses?: string, needs?: string }
interface Workflow { on: Record<string, unknown>, permissions: object, jobs: Record<string, Job> }

const texts = new Map(
  globSync('.github/workflows/*.yaml', { cwd: ROOT }).map(
    path => [basename(path), readFileSync(join(ROOT, path), 'utf8')]
  )
)
const workflows = new Map([...texts].map(([name, text]) => [name, parse(text) as Workflow]))

t.test('actions are pinned to a commit, with the version in a comment', async t => {
  const uses = [...texts.values()].flatMap(text => [...text.matchAll(/uses: (.*)/g)].map(([, action = '']) => action))
    .filter(action => !action.startsWith('./'))
  t.ok(uses.length > 5)
  for (const action of uses) t.match(action, /^[\w-]+\/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/)
})

t.test('jobs declare their permissions, and can only read unless they publish', async t => {
  for (const [name, { permissions, jobs }] of workflows) {
    t.strictSame(permissions, {}, name)
    for (const [id, { permissions, steps = [] }] of Object.entries(jobs)) {
      t.equal(permissions?.['contents'], 'read', `${name}: ${id}`)
      const publishes = name === 'release.yaml' && id !== 'test'
      t.equal(Object.values(permissions ?? {}).includes('write'), publishes, `${name}: ${id}`)
      for (const { uses, with: inputs } of steps) {
        if (uses?.startsWith('actions/checkout@')) {
          t.equal(inputs?.['persist-credentials'], false, 'keeps no token')
        }
      }
      for (const { run = '' } of steps) t.notMatch(run, /\$\{\{/, 'no expression is expanded in a shell')
    }
  }
})

t.test('the test workflow runs what developers run', async t => {
  const { on, jobs } = workflows.get('test.yaml') as Workflow
  t.strictSame(Object.keys(on).sort(), ['pull_request', 'push', 'workflow_call'])
  t.ok(jobs['test']?.steps?.some(({ run }) => run === 'bash .ci/run'))
  t.ok(jobs['image']?.steps?.some(({ run }) => run?.startsWith('docker compose up --build --wait')))
})

t.test('a release requires a tag that matches the version, is tested, and is attested', async t => {
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
  t.match(jobs['image']?.steps?.find(({ uses }) => uses?.startsWith('docker/build-push-action@'))?.with, {
    provenance: 'mode=max',
    sbom: true,
    push: true,
  })
})
