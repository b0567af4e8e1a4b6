import { createHash } from 'node:crypto'
import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import {
  AuditUnavailable,
  describeError,
  GroupNotFound,
  Internal,
  InvalidArgument,
  InvalidCursor,
  MAX_ANSWER_BYTES,
  MetadataUnavailable,
  MetricsNotConfigured,
  MetricsUnavailable,
  PermissionDenied,
  RateLimited,
  ResultTooLarge,
} from '../../../errors.ts'
import type { AuditEntry } from '../../../plugins/audit/record.ts'
import { TOOLS_OF_CHANGES } from '../../../plugins/changes/change.ts'
import type { Environment } from '../../../plugins/config/read.ts'
import type { Caller, ToolResult } from '../../../tools/tool.ts'
import { buildTestApp, CALLER, tool } from '../../support/service.ts'

const TOO_LARGE = 'The answer would be 1 MB or more (a batch shares this limit).'
const limit = Type.Optional(Type.Integer({ minimum: 1, maximum: 1000 }))

async function call (app: FastifyInstance, input?: unknown, name = 'test', caller = CALLER): Promise<ToolResult> {
  return await app.tools.call(name, input, caller, new AbortController().signal)
}

/** A caller whom the policy allows to mutate. */
const OPERATOR: Caller = {
  ...CALLER,
  principal: { ...CALLER.principal, subject: 'operator', method: 'jwks', issuer: 'ops', claims: { sub: 'operator' } },
}

function policy (t: Test): Environment {
  const dir = t.testdir({
    policy: JSON.stringify({
      roles: { operator: { allow: [{ operations: ['observe', 'propose', 'apply'] }] } },
      bindings: [{ role: 'operator', claim: 'sub', value: 'operator' }],
    }),
  })
  return { KAFSCALE_MCP_POLICY_FILE: `${dir}/policy` }
}

function failure (code: string, text: string, rest: object = { retryable: false }): ToolResult {
  return {
    content: [{ type: 'text', text: `${code}: ${text}` }],
    isError: true,
    _meta: { 'kafscale-mcp/error': { code, ...rest } },
  }
}

t.test('an answer is returned twice, as a value and as compact JSON text', async t => {
  const app = await buildTestApp(t)
  app.tools.declare(tool({ answer: () => ({ a: [1, null, 'x'], b: {} }) }))
  t.strictSame(await call(app), {
    content: [{ type: 'text', text: '{"a":[1,null,"x"],"b":{}}' }],
    structuredContent: { a: [1, null, 'x'], b: {} },
  })
})

t.test('unseen characters are escaped in the text and unchanged in the value', async t => {
  const app = await buildTestApp(t)
  const unseen = '\u0000\u001f\u007f\u0080\u009f\u00ad\u061c\u200b\u200f\u2028\u202e\u2060\u2069\ufe0f\ufeff\ufff9'
  app.tools.declare(tool({ answer: () => ({ [unseen]: unseen, visible: 'é☃😀"\\' }) }))
  const { content: [{ text } = { text: '' }], structuredContent } = await call(app)
  const escaped = '\\u0000\\u001f\\u007f\\u0080\\u009f\\u00ad\\u061c\\u200b\\u200f\\u2028\\u202e\\u2060\\u2069\\ufe0f' +
    '\\ufeff\\ufff9'
  t.equal(text, `{"${escaped}":"${escaped}","visible":"é☃😀\\"\\\\"}`)
  t.strictSame(JSON.parse(text), structuredContent)
  t.strictSame(structuredContent, { [unseen]: unseen, visible: 'é☃😀"\\' })
})

t.test('input that does not match the schema is rejected, with every mistake', async t => {
  const app = await buildTestApp(t)
  app.tools.declare(tool({
    properties: {
      group_id: Type.String(),
      limit,
      names: Type.Optional(Type.Array(Type.String())),
      pattern: Type.Optional(Type.String({ maxLength: 3 })),
    }
  }))
  const refusal = async (input: unknown) => {
    const { isError, content, _meta } = await call(app, input)
    t.equal(isError, true)
    t.strictSame(_meta, { 'kafscale-mcp/error': { code: 'INVALID_ARGUMENT', retryable: false } })
    const [, mistakes, advice] =
      /^INVALID_ARGUMENT: The arguments do not match the tool's input schema: (.*)\. (Correct .*)$/
        .exec(content[0]?.text ?? '') ?? []
    t.equal(advice, 'Correct them and call again.')
    return mistakes
  }
  t.equal(await refusal(undefined), '"group_id" is required')
  t.equal(await refusal({}), '"group_id" is required')
  t.equal(await refusal({ group_id: null }), '"group_id" is required', 'null counts as absent')
  t.equal(await refusal({ group_id: 5 }), '"group_id" must be string')
  t.equal(await refusal({ group_id: 'a', groupId: 'a' }), '"groupId" is not an input of this tool')
  t.equal(await refusal({ group_id: 'a', groupId: null }), '"groupId" is not an input of this tool')
  t.equal(await refusal({ group_id: 'a', 'a\u202eb': 1 }), '"a\\u202eb" is not an input of this tool')
  t.equal(
    await refusal(JSON.parse('{"group_id":"a","__proto__":{"limit":5}}')),
    '"__proto__" is not an input of this tool'
  )
  t.equal(
    await refusal({ group_id: 'a', constructor: 1, toString: 1 }),
    '"constructor" is not an input of this tool; "toString" is not an input of this tool'
  )
  t.equal(await refusal({ group_id: 'a', names: ['a', 5, null] }), '"names.1" must be string; "names.2" must be string')
  t.equal(await refusal({ group_id: 'a', pattern: 'abcd' }), '"pattern" must NOT have more than 3 characters')
  for (const wrong of [0, 1001, -1]) t.match(await refusal({ group_id: 'a', limit: wrong }), /^"limit" must be [<>]= 1/)
  for (const wrong of [1.5, true, [5], {}]) {
    t.equal(await refusal({ group_id: 'a', limit: wrong }), '"limit" must be integer')
  }
  t.equal(
    await refusal({ limit: 0, names: {}, other: 1 }),
    '"group_id" is required; "other" is not an input of this tool; "limit" must be >= 1; "names" must be array',
    'all mistakes at once'
  )
  for (const input of ['text', 5, true, [], null]) t.equal(await refusal(input), 'the input must be object')
})

t.test('an optional property that is null or empty counts as absent, and a required one is refused', async t => {
  const app = await buildTestApp(t)
  const names = Type.Array(Type.String())
  app.tools.declare(tool({
    properties: {
      group_id: Type.String(),
      members: names,
      limit,
      pattern: Type.Optional(Type.String()),
      names: Type.Optional(names),
    }
  }))
  const required = { group_id: 'a', members: ['b'] }
  for (const nothing of [null, '', []]) {
    const input = { ...required, limit: nothing, pattern: nothing, names: nothing }
    t.strictSame((await call(app, input)).structuredContent, { input: required }, JSON.stringify(nothing))
  }
  for (const [input, mistakes] of [
    [{ ...required, group_id: '' }, '"group_id" is required and must not be empty'],
    [{ ...required, group_id: null }, '"group_id" is required'],
    [{ ...required, members: [] }, '"members" is required and must not be empty'],
    [{ group_id: '', members: [], limit: 0 }, '"group_id" is required and must not be empty; ' +
      '"members" is required and must not be empty; "limit" must be >= 1'],
    [{ ...required, members: ['b', ''] }, '"members.1" must not be empty'],
    [{ ...required, names: [''] }, '"names.0" must not be empty'],
  ] as const) {
    t.match((await call(app, input)).content[0]?.text, `tool's input schema: ${mistakes}. Correct them`)
  }
  for (const blank of [' ', [' ']]) {
    t.match((await call(app, { ...required, pattern: blank, names: blank })).content[0]?.text, /must be/, 'not empty')
  }
})

t.test('an object in an input is read as the input itself is: strict about names, lenient about form', async t => {
  const app = await buildTestApp(t)
  const int64 = Type.Unsafe<number | string>({
    type: ['integer', 'string'], pattern: '^-?[0-9]+$', maxLength: 20, maximum: Number.MAX_SAFE_INTEGER
  })
  app.tools.declare(tool({
    properties: {
      config: Type.Object({ 'retention.ms': Type.Optional(int64), 'segment.bytes': Type.Optional(int64) }),
      reason: Type.Optional(Type.Object({ why: Type.String({ maxLength: 9 }), tickets: Type.Array(Type.String()) })),
    }
  }))
  const config = { 'retention.ms': 5 }
  for (const [given, input] of [
    [{ config }, { config }],
    [{ config: '{"retention.ms":"5"}' }, { config }],
    [{ config: { 'retention.ms': '5', 'segment.bytes': null } }, { config }],
    [{ config: { 'retention.ms': '9007199254740993', 'segment.bytes': '' } }, {
      config: { 'retention.ms': '9007199254740993' }
    }],
    ...[null, '', {}, '{}', { why: '', tickets: [] }, { why: null }].map(nothing =>
      [{ config, reason: nothing }, { config }] as const),
    [{ config, reason: { why: 'x', tickets: '["a"]' }, toolCallId: 'c' }, {
      config, reason: { why: 'x', tickets: ['a'] }
    }],
  ] as const) {
    t.strictSame((await call(app, given)).structuredContent, { input }, JSON.stringify(given))
  }
  const many = Object.fromEntries(Array.from({ length: 101 }, (_, index) => [`x${index}`, 1]))
  for (const [given, mistake] of [
    [{}, '"config" is required'],
    [{ config: {} }, '"config" is required and must not be empty'],
    [{ config: { 'retention.ms': null } }, '"config" is required and must not be empty'],
    [{ config: 'many' }, '"config" must be a JSON object, not a string'],
    [{ config: [] }, '"config" is required and must not be empty; "config" must be object'],
    [{ config: 5 }, '"config" must be object'],
    [{ config: { 'cleanup.policy': 'compact' } }, '"config.cleanup.policy" is not an input of this tool'],
    [{ config: { retention_ms: 5 } }, '"config.retention_ms" is not an input of this tool, but "config.retention.ms"'],
    [{ config: { ...config, toolCallId: 'c' } }, '"config.toolCallId" is not an input of this tool'],
    [JSON.parse('{"config":{"retention.ms":5,"__proto__":1}}'), '"config.__proto__" is not an input of this tool'],
    [{ config: { 'retention.ms': 'many' } }, '"config.retention.ms" must be integer'],
    [{ config: { 'retention.ms': 1.5 } }, '"config.retention.ms" must be integer or string'],
    [{ config: { 'retention.ms': 2 ** 53 } }, '"config.retention.ms" must be <= 9007199254740991'],
    [{ config, reason: { why: 'x', tickets: [] } }, '"reason.tickets" is required and must not be empty'],
    [{ config, reason: { tickets: ['a', ''] } }, '"reason.tickets.1" must not be empty; "reason.why" is required'],
    [{ config, reason: { why: 'x'.repeat(10), tickets: ['a'] } }, '"reason.why" must NOT have more than 9 characters'],
    [{ config: many }, 'the input has 101 properties, of which this tool has 2'],
  ] as const) {
    const name = JSON.stringify(given).slice(0, 100)
    t.match((await call(app, given)).content[0]?.text, `tool's input schema: ${mistake}`, name)
  }
})

t.test('JSON text counts as the list or number that it contains, where the schema requires one', async t => {
  const app = await buildTestApp(t)
  const int64 = Type.Unsafe<number | string>({ type: ['integer', 'string'], pattern: '^-?[0-9]+$', maxLength: 20 })
  app.tools.declare(tool({
    properties: {
      limit,
      names: Type.Optional(Type.Array(Type.String({ maxLength: 5 }), { maxItems: 3 })),
      min_lag: Type.Optional(int64),
      pattern: Type.Optional(Type.String()),
    }
  }))
  for (const [given, input] of [
    [{ names: '["a","b"]' }, { names: ['a', 'b'] }],
    [{ names: ' [ "a" ] ' }, { names: ['a'] }],
    [{ names: '[]' }, {}],
    [{ names: 'null', limit: 'null' }, {}],
    [{ limit: '5' }, { limit: 5 }],
    [{ limit: ' 5.0 ' }, { limit: 5 }],
    [{ min_lag: '-5' }, { min_lag: -5 }],
    [{ min_lag: '007' }, { min_lag: '007' }],
    [{ min_lag: '9007199254740993' }, { min_lag: '9007199254740993' }],
    [{ pattern: '["a"]' }, { pattern: '["a"]' }],
    [{ pattern: '5' }, { pattern: '5' }],
    [{ pattern: 'null' }, { pattern: 'null' }],
  ] as const) {
    t.strictSame((await call(app, given)).structuredContent, { input }, JSON.stringify(given))
  }
  const items = (count: number) => JSON.stringify(new Array(count).fill(5))
  for (const [given, mistake] of [
    [{ names: 'a' }, '"names" must be a JSON array, not a string'],
    [{ names: 'a, b' }, '"names" must be a JSON array, not a string'],
    [{ names: '["a"' }, '"names" must be a JSON array, not a string'],
    [{ names: '"a"' }, '"names" must be a JSON array, not a string'],
    [{ names: '{"a":1}' }, '"names" must be a JSON array, not a string'],
    [{ names: '5' }, '"names" must be a JSON array, not a string'],
    [{ names: 5 }, '"names" must be array'],
    [{ names: '["a",5]' }, '"names.1" must be string'],
    [{ names: '["a",""]' }, '"names.1" must not be empty'],
    [{ names: '["abcdef"]' }, '"names.0" must NOT have more than 5 characters'],
    [{ names: '["a","b","c","d"]' }, '"names" must NOT have more than 3 items'],
    [{ names: items(400_000) }, '"names" must NOT have more than 3 items; ' +
      '"names.0" must be string; "names.1" must be string; "names.2" must be string; "names.3" must be string'],
    [{ names: '['.repeat(400_000) + ']'.repeat(400_000) }, '"names.0" must be string'],
    [{ limit: 'many' }, '"limit" must be integer'],
    [{ limit: '1.5' }, '"limit" must be integer'],
    [{ limit: '"5"' }, '"limit" must be integer'],
    [{ limit: '[5]' }, '"limit" must be integer'],
    [{ limit: '1001' }, '"limit" must be <= 1000'],
    [{ limit: '1e999' }, '"limit" must be integer'],
    [{ min_lag: 'many' }, '"min_lag" must be integer'],
    [{ min_lag: true }, '"min_lag" must be integer or string'],
    [{ min_lag: 'null' }, '"min_lag" must be integer'],
    [{ min_lag: '1.5' }, '"min_lag" must be integer'],
    [{ min_lag: '9'.repeat(21) }, '"min_lag" must NOT have more than 20 characters'],
  ] as const) {
    const name = JSON.stringify(given).slice(0, 100)
    t.match((await call(app, given)).content[0]?.text, `tool's input schema: ${mistake}. Correct them`, name)
  }
})

t.test('properties that clients add are ignored, in any spelling', async t => {
  const app = await buildTestApp(t)
  app.tools.declare(tool({ properties: { group_id: Type.String(), limit } }))
  for (const [client, added] of Object.entries({
    n8n: { toolCallId: 'call_1', sessionId: 'a', action: 'sendMessage', chatInput: 'Which groups are behind?' },
    Cursor: { random_string: 'dummy' },
    OpenCode: { _placeholder: true },
    Cline: { task_progress: '- [x] look' },
    'Gemini CLI': { wait_for_previous: false },
    others: { tool_call_id: 'a', SessionID: null, waitForPrevious: {} },
  })) {
    t.strictSame((await call(app, { group_id: 'a', ...added })).structuredContent, { input: { group_id: 'a' } }, client)
  }
  t.match((await call(app, { toolCallId: 'a' })).content[0]?.text, 'input schema: "group_id" is required. Correct')

  t.test('unless a tool has an input of that name', async t => {
    app.tools.declare(tool({ properties: { action: Type.Optional(Type.String()) } }))
    t.strictSame((await call(app, { action: 'a' })).structuredContent, { input: { action: 'a' } })
    t.match((await call(app, { action: 5 })).content[0]?.text, '"action" must be string')
  })
})

t.test('the error about an unknown property names the one that was meant', async t => {
  const app = await buildTestApp(t)
  const text = (description?: string) => Type.Optional(Type.String({ ...description && { description } }))
  app.tools.declare(tool({
    properties: {
      group_id: text(),
      topics: text('Names of topics'),
      min_lag: text(),
      pattern: text('Glob for the name'),
      limit: text('Rows per page'),
      cursor: text('next_cursor of the previous page'),
    }
  }))
  const message = async (input: object) => (await call(app, input)).content[0]?.text ?? ''
  for (const [name, meant] of Object.entries({
    groupId: 'group_id',
    GroupID: 'group_id',
    group: 'group_id',
    'group.name': 'group_id',
    topic: 'topics',
    topicName: 'topics',
    minLag: 'min_lag',
    patern: 'pattern',
    cusror: 'cursor',
    next_cursor: 'cursor',
    Limit: 'limit',
    rows: 'limit',
  })) {
    t.match(await message({ [name]: 'a' }), `${JSON.stringify(name)} is not an input of this tool, but "${meant}" is. `)
  }
  for (const name of ['other', 'id', 'member_id', 'page', 'max', '', 'x', 'topic'.repeat(20)]) {
    t.match(await message({ [name]: 'a' }), /is not an input of this tool\. Correct/, name)
  }
  t.match(await message({ group_id: 'a', groupId: 'a' }), '"groupId" is not an input of this tool. Correct')
  const many = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, index) => [`limt${index}`, 1]))
  t.match(await message(many(100)), /; and 80 more\. Correct/)
  t.match(await message(many(101)), /: the input has 101 properties, of which this tool has \d+\. Correct/)
})

t.test('a failure states its code, what happened and what to do', async t => {
  const app = await buildTestApp(t)
  let error: unknown
  app.tools.declare(tool({ answer: () => { throw error } }))

  error = new GroupNotFound('"orders"')
  t.strictSame(
    await call(app),
    failure(
      'GROUP_NOT_FOUND',
      'Consumer group "orders" does not exist: it has no members and no committed offsets. ' +
      'Call list_groups for the groups that exist.'
    )
  )
  error = new MetadataUnavailable('etcd has not answered yet')
  t.strictSame(
    await call(app),
    failure(
      'METADATA_UNAVAILABLE',
      'The cluster metadata is not available: etcd has not answered yet. ' +
      'Call again in a few seconds; operators can find the reason at /healthz or with kafscale-mcp check.',
      { retryable: true, retry_after_ms: 2_000 }
    )
  )
})

t.test('an unexpected error reveals nothing to the caller', async t => {
  const app = await buildTestApp(t)
  const internal = failure(
    'INTERNAL',
    'The service failed to answer. Call again; if it fails again, operators can find the reason in the log.',
    { retryable: true }
  )
  const secret = Object.assign(new Error('connect http://root:hunter2@etcd:2379 /etc/passwd'), { code: 'ECONNREFUSED' })
  for (
    const error of [
      secret,
      'hunter2',
      undefined,
      null,
      { code: 'GROUP_NOT_FOUND', message: 'hunter2' },
      new TypeError('hunter2'),
    ]
  ) {
    app.tools.declare(tool({ answer: () => { throw error } }))
    t.strictSame(await call(app), internal)
    app.tools.declare(tool({ answer: () => Promise.reject(error) }))
    t.strictSame(await call(app), internal)
  }
})

t.test('an error says whether and when to retry', async t => {
  t.strictSame(
    [
      new InvalidArgument(''),
      new InvalidCursor(),
      new GroupNotFound(''),
      new ResultTooLarge(''),
      new MetadataUnavailable(''),
      new MetricsNotConfigured(),
      new MetricsUnavailable(''),
      new PermissionDenied('', ''),
      new RateLimited(''),
      new AuditUnavailable(),
      new Internal(),
    ].map(describeError),
    [
      { code: 'INVALID_ARGUMENT', retryable: false },
      { code: 'INVALID_CURSOR', retryable: false },
      { code: 'GROUP_NOT_FOUND', retryable: false },
      { code: 'RESULT_TOO_LARGE', retryable: false },
      { code: 'METADATA_UNAVAILABLE', retryable: true, retry_after_ms: 2_000 },
      { code: 'METRICS_NOT_CONFIGURED', retryable: false },
      { code: 'METRICS_UNAVAILABLE', retryable: true, retry_after_ms: 5_000 },
      { code: 'PERMISSION_DENIED', retryable: false },
      { code: 'RATE_LIMITED', retryable: true, retry_after_ms: 1_000 },
      { code: 'AUDIT_UNAVAILABLE', retryable: true, retry_after_ms: 5_000 },
      { code: 'INTERNAL', retryable: true },
    ]
  )
})

t.test('an answer of 1 MB is too large, but one byte less is not', async t => {
  const app = await buildTestApp(t)
  let bytes = MAX_ANSWER_BYTES - 1
  app.tools.declare(tool({ answer: () => ({ text: 'x'.repeat(bytes - '{"text":""}'.length) }) }))
  t.equal((await call(app)).content[0]?.text.length, bytes)
  bytes++
  t.strictSame(
    await call(app),
    failure('RESULT_TOO_LARGE', `${TOO_LARGE} This tool has no pages, so ask an operator.`)
  )
})

t.test('the error about an answer that is too large names a limit that fits', async t => {
  const app = await buildTestApp(t)
  /** Declares a tool that returns rows of these sizes, up to `limit`. */
  const declareRows = (sizes: number[]) => {
    let calls = 0
    app.tools.declare(tool({
      properties: { limit },
      rows: { list: 'rows' },
      answer: (_, { limit = 100 }) => {
        calls++
        return { rows: sizes.slice(0, Number(limit)).map(size => 'x'.repeat(size)) }
      }
    }))
    return { calls: () => calls }
  }
  const named = async (input: object) => {
    const text = (await call(app, input)).content[0]?.text ?? ''
    return Number(
      /^RESULT_TOO_LARGE: .* Call again with limit (\d+), which fits\.$/.exec(text)
        ?.[1] ?? text
    )
  }
  const rows = (count: number, size: number) => new Array<number>(count).fill(size)

  t.test('and is close to the largest such limit', async t => {
    for (const [sizes, input] of [
      [rows(1_000, 5_000), { limit: 1_000 }],
      [rows(1_000, 5_000), { limit: 250 }],
      [rows(200, 50_000), {}],
      [[...rows(10, 4_000), ...rows(10, 300_000)], {}],
      [[MAX_ANSWER_BYTES - 1_000, 1_000, 1], {}],
    ] as const) {
      declareRows(sizes as number[])
      const limit = await named(input)
      t.ok(limit >= 1)
      t.notOk((await call(app, { limit })).isError, `limit ${limit} fits`)
      t.match(
        await call(app, { limit: Math.ceil(limit * 1.1) + 1 }),
        { isError: true },
        `limit ${limit} is close to the largest`
      )
    }
  })

  t.test('and is computed from the rows of the answer, without another', async t => {
    const { calls } = declareRows(rows(100, Math.ceil(MAX_ANSWER_BYTES / 100)))
    await named({ limit: 1_000 })
    t.equal(calls(), 1)
  })

  t.test('and takes no more work than an answer that fits', async t => {
    let serialized = 0
    const row = { toJSON: () => { serialized++; return 'x'.repeat(MAX_ANSWER_BYTES / 16) } }
    app.tools.declare(tool({
      properties: { limit },
      rows: { list: 'rows' },
      answer: () => ({ rows: new Array(1_000).fill(row) }),
    }))
    t.equal(await named({}), 15)
    t.ok(serialized <= 2 * 16 + 8, `${serialized} rows were serialized`)
  })

  t.test('unless even one row does not fit', async t => {
    declareRows([MAX_ANSWER_BYTES, 1])
    t.match(
      await call(app, {}),
      failure('RESULT_TOO_LARGE', `${TOO_LARGE} Even one row does not fit, so ask for less.`)
    )
  })
})

t.test('calls that arrive together leave the event loop in between', async t => {
  const app = await buildTestApp(t)
  let turn = 0
  const count = () => { turn++; counting = setImmediate(count) }
  let counting = setImmediate(count)
  t.teardown(() => clearImmediate(counting))
  const turns: number[] = []
  app.tools.declare(tool({
    answer: () => {
      turns.push(turn)
      for (const start = performance.now(); performance.now() - start < 11;);
      return {}
    },
  }))
  await Promise.all(Array.from({ length: 10 }, () => call(app)))
  t.equal(new Set(turns).size, 10, `turns ${turns}`)
})

t.test('tools are listed by name, regardless of the order of their declarations', async t => {
  const app = await buildTestApp(t)
  const before = app.tools.list(CALLER.principal).map(({ name }) => name)
  for (const name of ['zz', 'Aa', 'aa']) app.tools.declare(tool({ name }))
  t.strictSame(app.tools.list(CALLER.principal).map(({ name }) => name), ['Aa', 'aa', ...before, 'zz'])
})

t.test('a tool is published with its schemas and with annotations for its operation', async t => {
  const app = await buildTestApp(t, policy(t))
  const observes = tool({ name: 'observes', properties: { limit } })
  app.tools.declare(observes)
  app.tools.declare(tool({ name: 'proposes', operation: 'propose' }))
  app.tools.declare(tool({ name: 'applies', operation: 'apply' }))
  const definition = (name: string) => app.tools.list(OPERATOR.principal).find(tool => tool.name === name)
  t.strictSame(definition('observes'), {
    name: 'observes',
    title: 'Test',
    description: 'For the test',
    inputSchema: observes.input,
    outputSchema: observes.output,
    annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  })
  const annotations = { readOnlyHint: false, openWorldHint: false }
  t.strictSame(definition('proposes')?.annotations, { ...annotations, destructiveHint: false, idempotentHint: false })
  t.strictSame(definition('applies')?.annotations, { ...annotations, destructiveHint: true, idempotentHint: true })
})

t.test('a tool can list an input in another form than it accepts, or not at all', async t => {
  const app = await buildTestApp(t)
  const lag = Type.Unsafe<number | string>({ type: ['integer', 'string'], pattern: '^[0-9]+$' })
  const listed = { lag: Type.Integer(), limit: null }
  app.tools.declare({ ...tool({ properties: { group_id: Type.String(), lag, limit } }), listed })
  const definition = app.tools.list(CALLER.principal).find(({ name }) => name === 'test')
  t.strictSame(JSON.parse(JSON.stringify(definition?.inputSchema)), {
    type: 'object',
    required: ['group_id', 'lag'],
    properties: { group_id: { type: 'string' }, lag: { type: 'integer' } },
    additionalProperties: false,
  })
  const input = { group_id: 'a', lag: '99999999999999999999', limit: 5 }
  t.strictSame((await call(app, input)).structuredContent, { input })
})

t.test('a schema with an unknown keyword is rejected when the tool is declared', async t => {
  const app = await buildTestApp(t)
  t.throws(
    () => app.tools.declare(tool({ properties: { a: Type.Unsafe({ type: 'string', maxLenght: 5 }) } })),
    /maxLenght/
  )
})

t.test('only declared tools exist', async t => {
  const app = await buildTestApp(t)
  t.equal(app.tools.operation('list_topics'), 'observe')
  for (const name of ['nope', '__proto__', 'constructor', '']) {
    t.equal(app.tools.operation(name), undefined)
    await t.rejects(call(app, {}, name), `no tool ${name}`)
  }
})

t.test('a denied tool is neither listed nor run, and its input is not examined', async t => {
  const app = await buildTestApp(t, policy(t))
  let ran = 0
  app.tools.declare(tool({ properties: { limit }, operation: 'apply', answer: () => ({ ran: ++ran }) }))
  const isListed = ({ principal }: Caller) => app.tools.list(principal).some(({ name }) => name === 'test')

  t.equal(isListed(CALLER), false)
  t.strictSame(
    await call(app, {}),
    failure(
      'PERMISSION_DENIED',
      'You are not allowed to call test. It requires authentication with oidc or jwks, which identifies the caller. ' +
      'Call explain_access to see what you may call.'
    )
  )
  t.match(await call(app, { limit: 0 }), { _meta: { 'kafscale-mcp/error': { code: 'PERMISSION_DENIED' } } })
  t.equal(ran, 0)

  t.equal(isListed(OPERATOR), true)
  t.match(await call(app, {}, 'test', OPERATOR), { structuredContent: { ran: 1 } })
})

t.test('a disabled tool does not exist', async t => {
  const names = async (env: Environment) =>
    (await buildTestApp(t, env)).tools.list(CALLER.principal).map(({ name }) => name)
  t.strictSame(await names({ KAFSCALE_MCP_TOOLS: 'list_topics, cluster_status' }), ['cluster_status', 'list_topics'])
  t.strictSame(
    await names({ KAFSCALE_MCP_TOOLS: 'list_topics,cluster_status', KAFSCALE_MCP_DISABLED_TOOLS: 'list_topics' }),
    ['cluster_status']
  )
  const all = await names({})
  t.strictSame(await names({ KAFSCALE_MCP_DISABLED_TOOLS: 'list_topics' }), all.filter(name => name !== 'list_topics'))

  const app = await buildTestApp(t, { KAFSCALE_MCP_DISABLED_TOOLS: 'list_topics' })
  t.equal(app.tools.operation('list_topics'), undefined)
  await t.rejects(call(app, {}, 'list_topics'), 'no tool list_topics')
})

t.test('the tools of changes do not exist without changes, but settings and policies may name them', async t => {
  const policyOfChanges = t.testdir({
    policy: JSON.stringify({
      roles: { operator: { allow: [{ operations: ['observe', 'propose', 'apply'], tools: [...TOOLS_OF_CHANGES] }] } },
      bindings: [{ role: 'operator', claim: 'sub', value: 'operator' }],
    }),
  })
  const app = await buildTestApp(t, {
    KAFSCALE_MCP_TOOLS: ['list_topics', ...TOOLS_OF_CHANGES].join(),
    KAFSCALE_MCP_DISABLED_TOOLS: 'delete_topic,apply_change',
    KAFSCALE_MCP_POLICY_FILE: `${policyOfChanges}/policy`,
  })
  await app.ready()
  for (const name of TOOLS_OF_CHANGES) t.equal(app.tools.operation(name), undefined, name)
  t.strictSame(app.tools.list(OPERATOR.principal), [])
  t.strictSame(new Set(app.tools.known).size, app.tools.known.length)
})

t.test('the service does not start if a setting names an unknown tool', async t => {
  for (const variable of ['TOOLS', 'DISABLED_TOOLS']) {
    const app = await buildTestApp(t, { [`KAFSCALE_MCP_${variable}`]: 'list_topics,list_topcis' })
    await t.rejects(async () => {
      await app.ready()
    }, {
      name: 'ConfigError',
      message: /name "list_topcis": expected names of apply_change, .*list_topics, update_topic_config$/,
    })
  }
})

/** Replaces the audit log with a list in memory, and lets a test make it fail. */
function keepRecords (app: FastifyInstance) {
  const kept: AuditEntry[] = []
  const fails = { record: false, recordDurably: false }
  for (const method of ['record', 'recordDurably'] as const) {
    app.audit[method] = async entry => {
      if (fails[method]) throw new AuditUnavailable()
      kept.push(entry)
    }
  }
  return { kept, fails }
}

t.test('each call is recorded before it is answered, whatever its outcome', async t => {
  const app = await buildTestApp(t)
  const { kept } = keepRecords(app)
  app.tools.declare(tool({ properties: { names: Type.Array(Type.String()), group_id: Type.String() } }))
  app.tools.declare(tool({ name: 'mutates', operation: 'apply' }))
  const input = { names: ['orders', 'billing'], group_id: 'analytics' }
  const startedAt = new Date()
  const { content: [{ text } = { text: '' }] } = await app.tools.call('test', input, {
    ...CALLER,
    receivedAt: startedAt,
    userAgent: 'agent/1',
    mcpClient: 'test 1',
    requestId: 'req-1',
    traceId: 'a'.repeat(32),
  }, new AbortController().signal)
  t.strictSame({ ...kept[0], when: null }, {
    event: 'tool_call',
    who: {
      subject: 'anonymous',
      issuer: null,
      client_id: null,
      roles: ['observer'],
      method: 'none',
      token_id: null,
      client_certificate: null,
    },
    what: {
      tool: 'test',
      operation: 'observe',
      arguments: input,
      resources: { topics: ['orders', 'billing'], groups: ['analytics'] },
    },
    when: null,
    where: {
      remote_address: '127.0.0.1',
      user_agent: 'agent/1',
      mcp_client: 'test 1',
      request_id: 'req-1',
      trace_id: 'a'.repeat(32),
    },
    decision: 'allowed',
    rule: 'observer.allow[0]',
    outcome: 'ok',
    error_code: null,
    result: { bytes: Buffer.byteLength(text), sha256: createHash('sha256').update(text).digest('hex') },
    diff: null,
    warning: null,
  })
  const { received, finished, duration_ms: durationMs } = kept[0]?.when ??
    { received: '', finished: '', duration_ms: -1 }
  t.equal(received, startedAt.toISOString())
  t.ok(new Date(finished) >= startedAt)
  t.ok(durationMs >= 0 && durationMs < 10_000)
  t.equal(durationMs, Number(durationMs.toFixed(3)), 'three decimals at most')

  await call(app, { names: 'orders' })
  t.match(kept[1], {
    what: { arguments: { names: 'orders' }, resources: { topics: ['orders'] } },
    decision: 'allowed',
    outcome: 'error',
    error_code: 'INVALID_ARGUMENT',
  })
  const asText = { names: '["orders", "billing"]', group_id: '', toolCallId: 'call_1' }
  await call(app, asText)
  t.strictSame(kept[2]?.what, {
    tool: 'test',
    operation: 'observe',
    arguments: asText,
    resources: { topics: ['orders', 'billing'] },
  }, 'the arguments as received')
  for (const names of ['[', '{}', JSON.stringify(new Array(5_000).fill('orders'))]) {
    await call(app, { names, group_id: 'a' })
    const topics = kept.pop()?.what?.resources.topics
    t.strictSame(topics, names.length > 2 ? new Array(1_000).fill('orders') : [names])
  }
  await call(app, {}, 'mutates')
  t.match(kept[3], {
    event: 'tool_call',
    what: { tool: 'mutates', operation: 'apply' },
    decision: 'denied',
    rule: 'no-identity',
    outcome: 'denied',
    error_code: 'PERMISSION_DENIED',
  })
  await call(app, input, 'test', {
    ...CALLER,
    principal: { ...CALLER.principal, subject: 'static-token', method: 'token' },
  })
  t.match(kept[4], { who: { subject: 'static-token', method: 'token' }, warning: /shared secret/ })
  t.equal(kept.length, 5)
})

t.test('a call that cannot be recorded is not answered', async t => {
  const app = await buildTestApp(t)
  const { fails } = keepRecords(app)
  app.tools.declare(tool({ answer: () => ({ secret: 'of the cluster' }) }))
  fails.record = true
  t.strictSame(
    await call(app),
    failure(
      'AUDIT_UNAVAILABLE',
      'The call cannot be recorded in the audit log, so it is not answered. ' +
      'Call again in a few seconds; operators can find the reason at /healthz or with kafscale-mcp check.',
      { retryable: true, retry_after_ms: 5_000 }
    )
  )
})

t.test('a tool takes steps on changes only in the name of its caller, and approves none', async t => {
  const app = await buildTestApp(t, policy(t))
  const steps: unknown[][] = []
  const step = (name: string) => async (...args: unknown[]) => {
    steps.push([name, ...args])
    return {}
  }
  app.decorate('changes', {
    propose: step('propose'),
    apply: step('apply'),
    cancel: step('cancel'),
    get: step('get'),
    list: step('list'),
    approve: step('approve'),
    reject: step('reject'),
    reviewBreakGlass: step('review'),
    recompute: step('recompute'),
  } as unknown as FastifyInstance['changes'])
  app.tools.declare(tool({
    operation: 'apply',
    async answer (_, __, { changes }) {
      await changes.propose('delete_topic', { topic: 'orders' })
      await changes.apply('c-1', { reason: 'fire', ticket: 'T-1' })
      await changes.cancel('c-2')
      await changes.get('c-3')
      await changes.list({ topic: 'orders' })
      return { steps: Object.keys(changes) }
    },
  }))
  const { signal } = new AbortController()
  const told: string[] = []
  const progress = (message: string) => { told.push(message) }
  const { structuredContent } = await app.tools.call('test', {}, OPERATOR, signal, progress)
  t.strictSame(structuredContent, { steps: ['propose', 'apply', 'cancel', 'get', 'list'] })
  t.strictSame(steps, [
    ['propose', OPERATOR, 'delete_topic', { topic: 'orders' }, signal],
    ['apply', OPERATOR, 'c-1', { reason: 'fire', ticket: 'T-1' }, progress],
    ['cancel', OPERATOR, 'c-2'],
    ['get', OPERATOR, 'c-3'],
    ['list', OPERATOR, { topic: 'orders' }],
  ])
})
