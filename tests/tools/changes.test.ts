/** The tools of changes, over a stand-in for the changes: what they pass on, and how they publish a change. */
import { Ajv2020 } from 'ajv/dist/2020.js'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { PlanStale } from '../../errors.ts'
import { type Change, CHANGE_TOOLS, type ChangeTool, type ChangeView } from '../../plugins/changes/change.ts'
import type { Changes } from '../../plugins/changes/index.ts'
import { CHANGE_STATES } from '../../plugins/changes/states.ts'
import type { ToolResult } from '../../tools/tool.ts'
import { declareChangeTools, OPERATOR, operatorPolicy, viewOf } from '../support/change-tools.ts'
import { buildTestApp, CALLER } from '../support/service.ts'

type Input = Record<string, unknown>

async function build (t: Test, changes: Partial<Changes>): Promise<FastifyInstance> {
  const app = await buildTestApp(t, operatorPolicy(t))
  await declareChangeTools(app, changes)
  return app
}

async function call (app: FastifyInstance, name: string, input: Input, caller = OPERATOR): Promise<ToolResult> {
  return await app.tools.call(name, input, caller, new AbortController().signal)
}

async function ask (app: FastifyInstance, name: string, input: Input = {}): Promise<Input> {
  const { isError, content, structuredContent } = await call(app, name, input)
  if (isError || !structuredContent) throw new Error(content[0]?.text)
  return structuredContent
}

const INPUTS: Record<ChangeTool, Input> = {
  create_topic: { topic: 'orders', partitions: 3, replication_factor: 2 },
  delete_topic: { topic: 'orders' },
  create_partitions: { topic: 'orders', partitions: 6 },
  update_topic_config: { topic: 'orders', config: { 'retention.ms': '9223372036854775807', 'segment.bytes': 1024 } },
  delete_group: { group_id: 'billing' },
  drain_broker: { node_id: 2, deadline_seconds: 30 },
  flush_broker: { node_id: 2 },
}

t.test('each proposing tool plans its change with exactly its arguments, and returns the plan', async t => {
  const proposed: unknown[] = []
  const app = await build(t, {
    async propose (_, tool, args) {
      proposed.push([tool, args])
      return viewOf('c-1', { tool })
    }
  })
  for (const tool of CHANGE_TOOLS) {
    t.match(await ask(app, tool, INPUTS[tool]), { change_id: 'c-1', state: 'planned', tool, next: /apply_change/ })
    const { _meta: meta } = await call(app, tool, INPUTS[tool], CALLER)
    t.match(meta, { 'kafscale-mcp/error': { code: 'PERMISSION_DENIED' } }, `${tool}: nobody unknown proposes`)
  }
  t.strictSame(proposed, CHANGE_TOOLS.map(tool => [tool, INPUTS[tool]]))
})

t.test('input that cannot be a change is refused before anything is planned', async t => {
  const app = await build(t, {})
  for (const [tool, input, mistake] of [
    ['create_topic', { topic: 'orders' }, '"partitions" is required'],
    ['create_topic', { topic: '', partitions: 1 }, '"topic" is required and must not be empty'],
    ['create_topic', { topic: 'orders', partitions: 0 }, '"partitions" must be >= 1'],
    ['create_topic', { topic: 'orders', partitions: 1.5 }, '"partitions" must be integer'],
    ['create_topic', { topic: 'orders', partitions: 1, replication_factor: 0 }, '"replication_factor" must be >= 1'],
    ['create_topic', { topic: 'orders', partitions: 1, config: {} }, '"config" is not an input of this tool'],
    ['update_topic_config', { topic: 'orders', config: {} }, '"config" is required and must not be empty'],
    ['update_topic_config', { topic: 'orders', config: { 'cleanup.policy': 'x' } }, '"config.cleanup.policy" is not'],
    ['update_topic_config', { topic: 'o', config: { 'retention.ms': 2 ** 53 } }, 'must be <= 9007199254740991'],
    ['update_topic_config', { topic: 'o', config: { 'retention.ms': '1.5' } }, '"config.retention.ms" must be integer'],
    ['drain_broker', { node_id: -1 }, '"node_id" must be >= 0'],
    ['drain_broker', { node_id: 1, deadline_seconds: 0 }, '"deadline_seconds" must be >= 1'],
    ['flush_broker', { node_id: 'one' }, '"node_id" must be integer'],
    ['apply_change', {}, '"change_id" is required'],
    ['apply_change', { change_id: 'c', break_glass: { reason: 'fire' } }, '"break_glass.ticket" is required'],
    ['apply_change', { change_id: 'c', break_glass: { reason: 'fire', ticket: '' } }, '"break_glass.ticket" is requ'],
    ['apply_change', { change_id: 'c', break_glass: true }, '"break_glass" must be object'],
  ] as const) {
    const { isError, content } = await call(app, tool, { ...input })
    t.equal(isError, true, mistake)
    t.match(content[0]?.text, /^INVALID_ARGUMENT: /)
    t.match(content[0]?.text, mistake)
  }
})

t.test('apply_change, cancel_change and get_change take one change a step further', async t => {
  const steps: unknown[] = []
  const step = (name: string) => async (_: unknown, id: string, ...rest: unknown[]) => {
    steps.push([name, id, ...rest.filter(each => typeof each !== 'function')])
    return viewOf(id)
  }
  const app = await build(t, { apply: step('apply'), cancel: step('cancel'), get: step('get') })
  const glass = { reason: 'fire', ticket: 'T-1' }
  await ask(app, 'apply_change', { change_id: 'c-1' })
  await ask(app, 'apply_change', { change_id: 'c-2', break_glass: glass })
  // Models fill in every property: that breaks no glass.
  await ask(app, 'apply_change', { change_id: 'c-3', break_glass: { reason: '', ticket: '' } })
  await ask(app, 'apply_change', { change_id: 'c-4', break_glass: null })
  await ask(app, 'cancel_change', { change_id: 'c-5' })
  await ask(app, 'get_change', { change_id: 'c-6' })
  t.strictSame(steps, [
    ['apply', 'c-1', undefined],
    ['apply', 'c-2', glass],
    ['apply', 'c-3', undefined],
    ['apply', 'c-4', undefined],
    ['cancel', 'c-5'],
    ['get', 'c-6'],
  ])
})

t.test('a refusal of the changes reaches the caller with its code', async t => {
  const app = await build(t, { apply: async () => { throw new PlanStale('partitions of "orders" was 3 and is 4') } })
  const { isError, content, _meta: meta } = await call(app, 'apply_change', { change_id: 'c-1' })
  t.equal(isError, true)
  t.match(meta, { 'kafscale-mcp/error': { code: 'PLAN_STALE', retryable: false } })
  t.match(content[0]?.text, 'partitions of "orders" was 3 and is 4')
})

t.test('a change is published in one form, without what is internal', async t => {
  const alice = { subject: 'alice', issuer: 'https://id.example', client_id: 'agent' }
  const bob = { subject: 'bob', issuer: 'https://id.example', client_id: null }
  const more: Partial<Change> = {
    state: 'failed',
    approvals: [{ by: bob, at: '2026-07-28T12:05:00.000Z', comment: null, digest: 'ab' }],
    execution: { by: alice, replica: 'r', started_at: '2026-07-28T12:06:00.000Z', broker: null, sent_at_revision: 1 },
    outcome: {
      at: '2026-07-28T12:06:01.000Z',
      revision: null,
      observed_diff: [{ field: 'partitions', before: 0, after: 1 }],
      error: { code: 'BROKER_REFUSED', message: 'no' },
    },
  }
  const view: ChangeView = { ...viewOf('c-1', more), approvalUrl: 'https://kafscale-mcp.example/changes/c-1' }
  const app = await build(t, { get: async () => view })
  t.strictSame(await ask(app, 'get_change', { change_id: 'c-1' }), {
    change_id: 'c-1',
    state: 'failed',
    tool: 'create_topic',
    arguments: { topic: 'orders', partitions: 3, replication_factor: 1 },
    environment: 'dev',
    cluster_id: 'cluster-1',
    requested_by: alice,
    requested_at: '2026-07-28T12:00:00.000Z',
    expires_at: '2026-07-28T12:10:00.000Z',
    revision: 1,
    preconditions: [{ fact: 'topic_exists', subject: 'orders', value: false }],
    diff: [{ field: 'topic', before: null, after: 'orders' }],
    effects: { partitions: 3 },
    warnings: [],
    undo: { tool: 'delete_topic', arguments: { topic: 'orders' } },
    undo_note: '',
    requires: { mode: 'direct', approvals_needed: 0 },
    approvals: [{ by: bob, at: '2026-07-28T12:05:00.000Z', comment: null }],
    approval_url: 'https://kafscale-mcp.example/changes/c-1',
    outcome: {
      at: '2026-07-28T12:06:01.000Z',
      revision: null,
      observed_diff: [{ field: 'partitions', before: 0, after: 1 }],
      error: { code: 'BROKER_REFUSED', message: 'no' },
    },
    next: 'Call apply_change.',
  })
})

t.test('answers match the published schemas', async t => {
  const ajv = new Ajv2020({ allowUnionTypes: true })
  const view = async () => viewOf('c-1', {
    state: 'applied',
    undo: null,
    expires_at: null,
    environment: null,
    outcome: { at: '2026-07-28T12:06:01.000Z', revision: 9, observed_diff: [], error: null },
  })
  const list = async () => [await view(), { change_id: 'c-2', version: 2 }]
  const app = await build(t, { propose: view, apply: view, cancel: view, get: view, list })
  const inputs: Record<string, Input> = INPUTS
  for (const { name, outputSchema } of app.tools.list(OPERATOR.principal)) {
    const isOfChanges = name.endsWith('_change') || name === 'list_changes' || name in inputs
    if (!isOfChanges) continue
    const answer = await ask(app, name, inputs[name] ?? (name === 'list_changes' ? {} : { change_id: 'c-1' }))
    t.ok(ajv.validate(outputSchema, answer), `${name}: ${ajv.errorsText()}`)
  }
})

t.test('list_changes', async t => {
  const views = Array.from({ length: 5 }, (_, index) => viewOf(`c-${index}`, {
    requested_at: `2026-07-28T12:0${index % 3}:00.000Z`
  }))
  const filters: unknown[] = []
  const app = await build(t, {
    async list (_, filter) {
      filters.push(filter)
      return [...views, { change_id: 'c-9', version: 2 }]
    }
  })
  const idsOf = ({ changes }: Input) => (changes as Change[]).map(change => change.change_id)

  t.test('shows the newest first, and names those of another version', async t => {
    const answer = await ask(app, 'list_changes')
    t.strictSame(idsOf(answer), ['c-2', 'c-1', 'c-4', 'c-0', 'c-3'])
    t.match(answer, { total: 5, other_versions: [{ change_id: 'c-9', version: 2 }] })
  })

  t.test('has pages', async t => {
    const first = await ask(app, 'list_changes', { limit: 2, topic: 'orders' })
    const second = await ask(app, 'list_changes', { limit: 3, topic: 'orders', cursor: first['next_cursor'] })
    t.strictSame([idsOf(first), idsOf(second)], [['c-2', 'c-1'], ['c-4', 'c-0', 'c-3']])
    t.equal(second['next_cursor'], undefined)
    const { _meta: meta } = await call(app, 'list_changes', { limit: 3, topic: 'other', cursor: first['next_cursor'] })
    t.match(meta, { 'kafscale-mcp/error': { code: 'INVALID_CURSOR' } })
  })

  t.test('passes its filters on, and knows every state', async t => {
    filters.splice(0)
    await ask(app, 'list_changes', { topic: 'orders', group_id: 'billing', state: 'Pending' })
    t.strictSame(filters, [{ topic: 'orders', group: 'billing', state: 'pending' }])
    for (const state of CHANGE_STATES) await ask(app, 'list_changes', { state })
    t.strictSame(filters.slice(1), CHANGE_STATES.map(state => ({ state })))
    const { content } = await call(app, 'list_changes', { state: 'open' })
    t.match(content[0]?.text, /"state" must be one of planned, pending, .*reverted/)
  })
})
