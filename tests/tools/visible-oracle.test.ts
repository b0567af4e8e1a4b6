/**
 * Random histories in a real etcd: each tool must answer what the oracle computes from a range read at the same
 * revision.
 */
import { Ajv } from 'ajv'
import { Ajv2020 } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import type { Etcd3 } from 'etcd3'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import type { ToolResult } from '../../tools/tool.ts'
import { needsEtcd, startEtcd } from '../support/etcd.ts'
import type { History, Operation, Random } from '../support/generate.ts'
import { history, random } from '../support/generate.ts'
import type { Arguments, Keyspace } from '../support/oracle.ts'
import { answerable, anyText, expected, groupIds, keyspace, topicNames } from '../support/oracle.ts'
import { buildSyncedApp, caughtUp, modern } from '../support/service.ts'

const prefix = '/kafscale/'
/** In history 89 a config is truncated within an int64. */
const seeds = [1, 2, 3, 4, 5, 6, 89]
const historyLength = 300
const writesBetweenQuestions = 50

type Validators = Map<string, { validate: (value: unknown) => boolean, errors: () => string }>

/** Validators of the published output schemas, by tool name. */
async function outputSchemas (app: FastifyInstance): Promise<Validators> {
  interface Tool { name: string, outputSchema: { $schema?: string } }
  const { result } = (await app.inject(modern('tools/list'))).json<{ result: { tools: Tool[] } }>()
  return new Map(result.tools.map(({ name, outputSchema }) => {
    const options = { allErrors: true, strict: false }
    const ajv = outputSchema.$schema?.includes('draft-07') === true ? new Ajv(options) : new Ajv2020(options)
    addFormats.default(ajv)
    const validate = ajv.compile(outputSchema)
    return [name, { validate: (value: unknown) => validate(value), errors: () => ajv.errorsText(validate.errors) }]
  }))
}

/** Applies the writes in order, sometimes several in one transaction, and resolves with the last revision. */
async function apply (client: Etcd3, operations: Operation[], from: Random): Promise<string> {
  let revision = '0'
  for (let at = 0; at < operations.length;) {
    const batch: Operation[] = []
    const keys = new Set<string>()
    const size = from.chance(0.7) ? 1 : 2 + from.int(12)
    while (batch.length < size) {
      const operation = operations[at]
      if (operation === undefined) break
      const key = ('put' in operation ? operation.put : operation.delete).toString('hex')
      if (keys.has(key)) break
      keys.add(key)
      batch.push(operation)
      at++
    }
    const { header } = await client.kv.txn({
      success: batch.map(operation => 'put' in operation
        ? { request_put: { key: operation.put, value: operation.value } }
        : { request_delete_range: { key: operation.delete } })
    })
    revision = header.revision
  }
  return revision
}

async function rangeRead (client: Etcd3, revision: string): Promise<Keyspace> {
  const { kvs } = await client.getAll().prefix(prefix).revision(revision).exec()
  return keyspace({
    revision,
    kvs: kvs.map(({ key, value, mod_revision: modRevision }) => ({ key, value, modRevision })),
  })
}

/** Calls that an agent could make: every tool, every group, known and unknown names, various page sizes. */
function questions (
  space: Keyspace,
  { topics, groups }: History,
  from: Random
): Array<[tool: string, args: Arguments]> {
  const limit = (): Arguments => from.chance(0.3) ? {} : { limit: from.pick([1, 2, 3, 7, 50]) }
  const named = (): string[] =>
    from.some([...new Set([...topics, ...topicNames(space), 'nowhere', 'Nowhere'])], 1 + from.int(5))
  const patterns = [
    '*',
    '?',
    '??',
    'o*',
    'O*',
    '*s',
    'a*b',
    'a?b',
    '[a]',
    '*\n*',
    '\\',
    '*.*',
    'ORDERS',
    '(',
    '*😀',
    '**/**',
    '',
    ...topics,
    ...groups,
  ]
    .filter(pattern => pattern !== '')
  const states = [
    'stable',
    'STABLE',
    'empty',
    'Empty',
    'dead',
    'preparing_rebalance',
    'Completing_Rebalance',
    'PreparingRebalance',
    'completing-rebalance',
    ' Preparing rebalance',
    'nonsense',
  ]
  const asked = [...groupIds(space), 'nobody']
  return [
    ['cluster_status', limit()],
    ['list_topics', limit()],
    ...from.some(patterns, 6).map((pattern): [string, Arguments] => ['list_topics', { pattern, ...limit() }]),
    ['describe_topics', limit()],
    ['describe_topics', { names: [], ...limit() }],
    ...[1, 2, 3].map((): [string, Arguments] => ['describe_topics', { names: named(), ...limit() }]),
    ['list_groups', limit()],
    ...from.some(states, 3).map((state): [string, Arguments] => ['list_groups', { state, ...limit() }]),
    ...from.some(patterns, 4).map((pattern): [string, Arguments] => ['list_groups', { pattern, ...limit() }]),
    ['list_groups', { state: from.pick(states), pattern: from.pick(patterns), ...limit() }],
    ...asked.flatMap((groupId): Array<[string, Arguments]> => [
      ['describe_group', { group_id: groupId, ...limit() }],
      ['fetch_offsets', { group_id: groupId, ...limit() }],
      ['fetch_offsets', { group_id: groupId, topics: named(), ...limit() }]
    ]),
    ['describe_configs', limit()],
    ['describe_configs', { topics: [], ...limit() }],
    ...[1, 2, 3].map((): [string, Arguments] => ['describe_configs', { topics: named(), ...limit() }]),
    ['consumer_lag', limit()],
    ...groupIds(space).map((groupId): [string, Arguments] => ['consumer_lag', { group_id: groupId, ...limit() }]),
    ...named().map((topic): [string, Arguments] => ['consumer_lag', { topic, ...limit() }]),
    ...[-100, 0, 1, 200].map((lag): [string, Arguments] => ['consumer_lag', { min_lag: lag, ...limit() }]),
    ...from.some(groupIds(space), 1).map((
      groupId
    ): [string, Arguments] => ['consumer_lag', {
      group_id: groupId,
      topic: from.pick(topics),
      min_lag: 0,
      ...limit(),
    }]),
  ]
}

/** The differences between two JSON values, one line each. */
function differences (actual: unknown, wanted: unknown, path = '$'): string[] {
  if (
    typeof actual !== 'object' || typeof wanted !== 'object' || actual === null || wanted === null ||
    Array.isArray(actual) !== Array.isArray(wanted)
  ) {
    const show = (value: unknown): string =>
      (JSON.stringify(value) ?? 'undefined').replace(/^(.{60}).{20,}(.{60})$/s, '$1 ... $2')
    if (wanted === anyText && typeof actual === 'string' && actual !== '') return []
    return actual === wanted ? [] : [`${path}: ${show(actual)}, expected ${show(wanted)}`]
  }
  const own = (object: object, key: string): unknown =>
    Object.hasOwn(object, key) ? object[key as keyof object] : undefined
  return [...new Set([...Object.keys(actual), ...Object.keys(wanted)])].flatMap(key =>
    differences(own(actual, key), own(wanted, key), `${path}[${JSON.stringify(key)}]`))
}

/** Adds to `cluster_status` the state of etcd and of broker metrics: connected and not configured. */
function withHealth (wanted: Record<string, unknown>, actual: Record<string, unknown>): Record<string, unknown> {
  const age = (actual['etcd'] as { age_ms?: unknown } | undefined)?.age_ms
  return {
    ...wanted,
    brokers_reachable: null,
    brokers: (wanted['brokers'] as object[]).map(broker => ({
      ...broker,
      metrics: 'not_configured',
      s3_state: 'unknown',
    })),
    s3: { state: 'unknown', latency_ms: null, worst_latency_ms: null },
    etcd: {
      state: 'connected',
      age_ms: typeof age === 'number' && age >= 0 ? age : 'a number',
      revision: wanted['revision'],
    },
  }
}

/** C1 and bidirectional control characters, which `JSON.stringify` does not escape. */
const rawControl = /[\u0080-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/
const compact = (value: unknown): string => JSON.stringify(value)

/** Calls a tool for one page; returns what is wrong with the answer, and the cursor of the next page. */
async function checkPage (
  app: FastifyInstance,
  schemas: Validators,
  space: Keyspace,
  tool: string,
  args: Arguments,
  cursor: string | undefined,
  row: number
): Promise<{ wrong: string[], next: string | undefined }> {
  const before = Date.now()
  const { body } = await app.inject(
    modern('tools/call', { name: tool, arguments: cursor === undefined ? args : { ...args, cursor } })
  )
  const { result } = JSON.parse(body) as { result?: ToolResult }
  if (result === undefined) return { wrong: [body], next: undefined }
  const { isError, content, structuredContent, _meta: meta } = result
  const wrong: string[] = []
  if (rawControl.test(body)) wrong.push('the answer contains an unescaped control character')

  const observedAt = new Date(String(structuredContent?.['observed_at'] ?? before))
  const wanted = expected(space, tool, args, observedAt, row)
  if (wanted.kind === 'failure' || isError === true || structuredContent === undefined) {
    const { code } = (meta?.['kafscale-mcp/error'] ?? {}) as { code?: string }
    const text = content[0]?.text ?? ''
    const asExpected = wanted.kind === 'failure' && isError === true && code === wanted.code &&
      text.startsWith(`${wanted.code}: `)
    if (!asExpected) {
      wrong.push(
        `answers ${text.slice(0, 300)} (${code}), expected ${
          wanted.kind === 'failure' ? wanted.code : compact(wanted.content).slice(0, 300)
        }`
      )
    }
    return { wrong, next: undefined }
  }

  const { next_cursor: next, ...actual } = structuredContent
  wrong.push(
    ...differences(actual, tool === 'cluster_status' ? withHealth(wanted.content, actual) : wanted.content).slice(0, 3)
  )
  if ((typeof next === 'string') !== wanted.more) {
    wrong.push(`next_cursor is ${compact(next)}, expected ${wanted.more ? 'one' : 'none'}`)
  }
  if (observedAt.getTime() > Date.now() || observedAt.getTime() < before - 10_000) {
    wrong.push(`observed_at is ${observedAt.toISOString()}`)
  }

  const schema = schemas.get(tool)
  if (schema?.validate(structuredContent) !== true) {
    wrong.push(`does not match its schema: ${schema?.errors() ?? 'there is none'}`)
  }
  const text = content[0]?.text ?? ''
  const blank = /\s/.test(text.replace(/"(?:[^"\\]|\\.)*"/g, '""'))
  if (content.length !== 1 || blank || compact(JSON.parse(text)) !== compact(structuredContent)) {
    wrong.push('the text is not the structured content as compact JSON')
  }
  return { wrong, next: typeof next === 'string' ? next : undefined }
}

/** Makes all calls, page by page, and returns what is wrong with the answers. */
async function checkAnswers (
  app: FastifyInstance,
  schemas: Validators,
  space: Keyspace,
  asked: Array<[string, Arguments]>
): Promise<string[]> {
  const wrong: string[] = []
  for (const [tool, args] of asked) {
    let cursor: string | undefined
    let row = 0
    do {
      const page = await checkPage(app, schemas, space, tool, args, cursor, row)
      wrong.push(...page.wrong.map(line => `${tool} ${compact(args)} from row ${row}: ${line}`))
      cursor = page.wrong.length === 0 ? page.next : undefined
      row += args.limit ?? 100
    } while (cursor !== undefined)
  }
  return wrong
}

/** The first wrong answers, one line each. */
const report = (wrong: string[]): string => wrong.slice(0, 20).join('\n')

t.test('answers match the oracle for a range read at the same revision', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const { client } = etcd
  const watching = await buildSyncedApp(t, etcd)
  const schemas = await outputSchemas(watching)

  for (const seed of seeds) {
    t.test(`history ${seed}`, async t => {
      const from = random(seed)
      const story = history(seed, historyLength, new Date())
      let revision = (await client.delete().all().prefix(prefix).exec()).header.revision
      for (let at = 0; at < story.operations.length; at += writesBetweenQuestions) {
        revision = await apply(client, story.operations.slice(at, at + writesBetweenQuestions), from)
        await caughtUp(watching, etcd)
        const space = await rangeRead(client, revision)
        const wrong = await checkAnswers(watching, schemas, space, questions(space, story, from))
        t.equal(report(wrong), '', `after ${at + writesBetweenQuestions} writes, by watch`)
        t.equal(watching.metadata.mirror?.ignored.size, space.ignored, 'ignored keys')
      }

      const loaded = await buildSyncedApp(t, etcd)
      const space = await rangeRead(client, revision)
      t.equal(
        report(await checkAnswers(loaded, schemas, space, questions(space, story, from))),
        '',
        'at the end, by load'
      )
    })
  }

  t.test('an empty keyspace', async t => {
    const { header: { revision } } = await client.delete().all().prefix(prefix).exec()
    await caughtUp(watching, etcd)
    const asked: Array<[string, Arguments]> = answerable.map(tool =>
      [tool, ['describe_group', 'fetch_offsets'].includes(tool) ? { group_id: 'nobody' } : {}])
    t.equal(report(await checkAnswers(watching, schemas, await rangeRead(client, revision), asked)), '')
  })
})
