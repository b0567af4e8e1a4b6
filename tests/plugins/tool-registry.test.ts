import { Type, type TProperties } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import {
  describeError, GroupNotFound, Internal, InvalidArgument, InvalidCursor, MetadataUnavailable, MetricsNotConfigured, MetricsUnavailable, ResultTooLarge
} from '../../errors.ts'
import type { Tool } from '../../tools/define-tool.ts'
import type { ToolResult } from '../../plugins/tool-registry.ts'
import { buildTestApp } from '../helper.ts'

const MAX_ANSWER_BYTES = 4 * 1024 * 1024
const limit = Type.Optional(Type.Integer({ minimum: 1, maximum: 1000 }))

/** A tool that answers its input, but for what a test says otherwise. */
function tool ({ properties = {}, ...rest }: Partial<Tool> & { properties?: TProperties }): Tool {
  return {
    name: 'test',
    title: 'Test',
    description: 'For the test',
    operation: 'observe',
    input: Type.Object(properties, { additionalProperties: false }),
    output: Type.Object({}),
    answer: (_, input) => ({ input }),
    ...rest,
  }
}

async function call (app: FastifyInstance, input?: unknown, name = 'test'): Promise<ToolResult> {
  return await app.tools.call(name, input, { signal: new AbortController().signal })
}

function failure (code: string, text: string, rest: object = { retryable: false }): ToolResult {
  return { content: [{ type: 'text', text: `${code}: ${text}` }], isError: true, _meta: { 'kafscale-mcp/error': { code, ...rest } } }
}

t.test('an answer is given twice: as a value, and as the same value in compact JSON', async t => {
  const app = await buildTestApp(t)
  app.tools.declare(tool({ answer: () => ({ a: [1, null, 'x'], b: {} }) }))
  t.strictSame(await call(app), { content: [{ type: 'text', text: '{"a":[1,null,"x"],"b":{}}' }], structuredContent: { a: [1, null, 'x'], b: {} } })
})

t.test('what can\'t be seen stands in the JSON as an escape, and in the value as it is', async t => {
  const app = await buildTestApp(t)
  const unseen = '\u0000\u001f\u007f\u0080\u009f\u00ad\u061c\u200b\u200f\u2028\u202e\u2060\u2069\ufeff'
  app.tools.declare(tool({ answer: () => ({ [unseen]: unseen, seen: 'é☃😀"\\' }) }))
  const { content: [{ text } = { text: '' }], structuredContent } = await call(app)
  t.equal(text, '{"\\u0000\\u001f\\u007f\\u0080\\u009f\\u00ad\\u061c\\u200b\\u200f\\u2028\\u202e\\u2060\\u2069\\ufeff":' +
    '"\\u0000\\u001f\\u007f\\u0080\\u009f\\u00ad\\u061c\\u200b\\u200f\\u2028\\u202e\\u2060\\u2069\\ufeff","seen":"é☃😀\\"\\\\"}')
  t.strictSame(JSON.parse(text), structuredContent)
  t.strictSame(structuredContent, { [unseen]: unseen, seen: 'é☃😀"\\' })
})

t.test('input that breaks the schema is a failure that names every wrong property', async t => {
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
    return /^INVALID_ARGUMENT: The input does not fit the tool's schema: (.*)\. Correct what is named and call again\.$/.exec(content[0]?.text ?? '')?.[1]
  }
  t.equal(await refusal(undefined), '"group_id" is required')
  t.equal(await refusal({}), '"group_id" is required')
  t.equal(await refusal({ group_id: null }), '"group_id" is required', 'null is absent')
  t.equal(await refusal({ group_id: 5 }), '"group_id" must be string')
  t.equal(await refusal({ group_id: 'a', groupId: 'a' }), '"groupId" is not an input of this tool')
  t.equal(await refusal({ group_id: 'a', groupId: null }), '"groupId" is not an input of this tool')
  t.equal(await refusal({ group_id: 'a', 'a\u202eb': 1 }), '"a\\u202eb" is not an input of this tool')
  t.equal(await refusal(JSON.parse('{"group_id":"a","__proto__":{"limit":5}}')), '"__proto__" is not an input of this tool')
  t.equal(await refusal({ group_id: 'a', constructor: 1, toString: 1 }), '"constructor" is not an input of this tool; "toString" is not an input of this tool')
  t.equal(await refusal({ group_id: 'a', names: ['a', 5, null] }), '"names.1" must be string; "names.2" must be string')
  t.equal(await refusal({ group_id: 'a', pattern: 'abcd' }), '"pattern" must NOT have more than 3 characters')
  for (const wrong of [0, 1001, -1]) t.match(await refusal({ group_id: 'a', limit: wrong }), /^"limit" must be [<>]= 1/)
  for (const wrong of [1.5, '5', true, [5], {}]) t.equal(await refusal({ group_id: 'a', limit: wrong }), '"limit" must be integer')
  t.equal(await refusal({ limit: 0, names: {}, other: 1 }),
    '"group_id" is required; "other" is not an input of this tool; "limit" must be >= 1; "names" must be array', 'all of them at once')
  for (const input of ['text', 5, true, [], null]) t.equal(await refusal(input), 'the input must be object')
})

t.test('a property that is null is one that is not given', async t => {
  const app = await buildTestApp(t)
  app.tools.declare(tool({ properties: { group_id: Type.String(), limit, pattern: Type.Optional(Type.String()) } }))
  t.strictSame((await call(app, { group_id: 'a', limit: null, pattern: null })).structuredContent, { input: { group_id: 'a' } })
})

t.test('a failure tells its code, what happened and what to do', async t => {
  const app = await buildTestApp(t)
  let error: unknown
  app.tools.declare(tool({ answer: () => { throw error } }))

  error = new GroupNotFound('"orders"')
  t.strictSame(await call(app), failure('GROUP_NOT_FOUND', 'There is no consumer group "orders": it has neither members nor committed offsets. Call list_groups for the groups that exist.'))
  error = new MetadataUnavailable('etcd has not answered yet')
  t.strictSame(await call(app), failure('METADATA_UNAVAILABLE',
    'The cluster\'s metadata is not known: etcd has not answered yet. Call again in a few seconds; an operator finds more under /healthz.',
    { retryable: true, retry_after_ms: 2_000 }))
})

t.test('a failure that was not meant for callers tells them nothing', async t => {
  const app = await buildTestApp(t)
  const internal = failure('INTERNAL',
    'The service failed to answer. Call again; if it fails again, an operator finds the reason in the service\'s log.', { retryable: true })
  const secret = Object.assign(new Error('connect http://root:hunter2@etcd:2379 /etc/passwd'), { code: 'ECONNREFUSED' })
  for (const error of [secret, 'hunter2', undefined, null, { code: 'GROUP_NOT_FOUND', message: 'hunter2' }, new TypeError('hunter2')]) {
    app.tools.declare(tool({ answer: () => { throw error } }))
    t.strictSame(await call(app), internal)
    app.tools.declare(tool({ answer: () => Promise.reject(error) }))
    t.strictSame(await call(app), internal)
  }
})

t.test('which failures are worth another try, and when', async t => {
  t.strictSame([
    new InvalidArgument(''), new InvalidCursor(), new GroupNotFound(''), new ResultTooLarge(''), new MetadataUnavailable(''),
    new MetricsNotConfigured(), new MetricsUnavailable(''), new Internal()
  ].map(describeError), [
    { code: 'INVALID_ARGUMENT', retryable: false },
    { code: 'INVALID_CURSOR', retryable: false },
    { code: 'GROUP_NOT_FOUND', retryable: false },
    { code: 'RESULT_TOO_LARGE', retryable: false },
    { code: 'METADATA_UNAVAILABLE', retryable: true, retry_after_ms: 2_000 },
    { code: 'METRICS_NOT_CONFIGURED', retryable: false },
    { code: 'METRICS_UNAVAILABLE', retryable: true, retry_after_ms: 5_000 },
    { code: 'INTERNAL', retryable: true },
  ])
})

t.test('an answer of 4 MB is too large, one byte less is not', async t => {
  const app = await buildTestApp(t)
  let bytes = MAX_ANSWER_BYTES - 1
  app.tools.declare(tool({ answer: () => ({ text: 'x'.repeat(bytes - '{"text":""}'.length) }) }))
  t.equal((await call(app)).content[0]?.text.length, bytes)
  bytes++
  t.strictSame(await call(app), failure('RESULT_TOO_LARGE', 'The answer would be 4 MB or more. Ask an operator: the answer has no pages.'))
})

t.test('an answer that is too large names a limit that fits', async t => {
  const app = await buildTestApp(t)
  /** Declares a tool that answers rows of these sizes, up to `limit`. */
  const declareRows = (sizes: number[]) => {
    let answers = 0
    app.tools.declare(tool({
      properties: { limit },
      answer: (_, { limit = 100 }) => {
        answers++
        return { rows: sizes.slice(0, Number(limit)).map(size => 'x'.repeat(size)) }
      }
    }))
    return { answers: () => answers }
  }
  const named = async (input: object) => {
    const text = (await call(app, input)).content[0]?.text ?? ''
    return Number(/^RESULT_TOO_LARGE: The answer would be 4 MB or more\. Call again with limit (\d+), which fits\.$/.exec(text)?.[1] ?? text)
  }
  const rows = (count: number, size: number) => new Array<number>(count).fill(size)

  t.test('near the largest that does', async t => {
    for (const [sizes, input] of [
      [rows(1_000, 5_000), { limit: 1_000 }],
      [rows(1_000, 5_000), { limit: 850 }],
      [rows(200, 50_000), {}],
      [[...rows(10, 4_000), ...rows(10, 1_000_000)], {}],
      [[MAX_ANSWER_BYTES - 1_000, 1_000, 1], {}],
    ] as const) {
      declareRows(sizes as number[])
      const limit = await named(input)
      t.ok(limit >= 1)
      t.notOk((await call(app, { limit })).isError, `limit ${limit} fits`)
      t.match(await call(app, { limit: Math.ceil(limit * 1.1) + 1 }), { isError: true }, `limit ${limit} is not needlessly small`)
    }
  })

  t.test('without trying one limit after the other', async t => {
    const { answers } = declareRows(rows(100, Math.ceil(MAX_ANSWER_BYTES / 100)))
    await named({ limit: 1_000 })
    t.ok(answers() <= 12, `${answers()} answers were made`)
  })

  t.test('unless not even one row does', async t => {
    declareRows([MAX_ANSWER_BYTES, 1])
    t.match(await call(app, {}), failure('RESULT_TOO_LARGE', 'The answer would be 4 MB or more. Not even one row fits: ask for less.'))
  })
})

t.test('tools are listed in a fixed order, whatever the order in which they were declared', async t => {
  const app = await buildTestApp(t)
  const before = app.tools.list().map(({ name }) => name)
  for (const name of ['zz', 'Aa', 'aa']) app.tools.declare(tool({ name }))
  t.strictSame(app.tools.list().map(({ name }) => name), ['Aa', 'aa', ...before, 'zz'])
})

t.test('a tool is published with the schemas that validate it, and with what it does to the cluster', async t => {
  const app = await buildTestApp(t)
  const observes = tool({ name: 'observes', properties: { limit } })
  app.tools.declare(observes)
  app.tools.declare(tool({ name: 'mutates', operation: 'mutate' }))
  const definition = (name: string) => app.tools.list().find(tool => tool.name === name)
  t.strictSame(definition('observes'), {
    name: 'observes',
    title: 'Test',
    description: 'For the test',
    inputSchema: observes.input,
    outputSchema: observes.output,
    annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  })
  t.strictSame(definition('mutates')?.annotations, { readOnlyHint: false, destructiveHint: true, idempotentHint: false, openWorldHint: false })
})

t.test('a schema that says what no validator knows is refused when the tool is declared', async t => {
  const app = await buildTestApp(t)
  t.throws(() => app.tools.declare(tool({ properties: { a: Type.Unsafe({ type: 'string', maxLenght: 5 }) } })), /maxLenght/)
})

t.test('there is no tool but those that were declared', async t => {
  const app = await buildTestApp(t)
  t.equal(app.tools.has('list_topics'), true)
  for (const name of ['nope', '__proto__', 'constructor', '']) {
    t.equal(app.tools.has(name), false)
    await t.rejects(call(app, {}, name), `no tool ${name}`)
  }
})
