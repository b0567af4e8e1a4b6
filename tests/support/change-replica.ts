/**
 * A replica of the change path as a process that a test can kill. Its broker is in the test's process, which it asks
 * over IPC. It does what it is told, and can kill itself with SIGKILL at any step.
 */
import type { Change } from '../../plugins/changes/change.ts'
import type { AdminCall, AdminResult, BrokerView, KafkaAdmin } from '../../plugins/kafka-admin/index.ts'
import { buildReplica, caller, type ReplicaOptions, TestPolicy } from './replica.ts'

/** What the test tells the replica. */
export interface Order {
  endpoints: readonly string[]
  auditFile: string
  changeId: string
  mode: 'direct' | 'approval'
  breakGlass?: { reason: string, ticket: string }
  /** How the point begins at which it kills itself: see {@link reached}. Without one, it sends the outcome. */
  killAt?: string
  lifetimes?: ReplicaOptions['lifetimes']
}

/** What the replica asks the broker. */
export type Question = { ask: 'view' } | { ask: 'send', call: AdminCall } | { outcome: string }
export type Answer = { view: Omit<BrokerView, 'topics'> & { topics: [string, number][] } } | { result: AdminResult }

const order = JSON.parse(process.argv[2] ?? '{}') as Order

/** Dies here, as by `kill -9`, if this is the point. */
function reached (point: string): void {
  if (order.killAt !== undefined && point.startsWith(order.killAt)) process.kill(process.pid, 'SIGKILL')
}

async function ask (question: Question): Promise<Answer> {
  const { promise, resolve } = Promise.withResolvers<Answer>()
  process.once('message', resolve)
  process.send?.(question)
  return await promise
}

const admin: KafkaAdmin = {
  principal: 'kafscale-mcp',
  async connect () {
    reached('connect')
    return {
      address: 'broker-0:9092',
      async view () {
        reached('view')
        const { view } = await ask({ ask: 'view' }) as Extract<Answer, { view: unknown }>
        return { ...view, topics: new Map(view.topics) }
      },
      validate: async () => ({ kind: 'ok' }),
      async send (call) {
        reached('send')
        const { result } = await ask({ ask: 'send', call }) as Extract<Answer, { result: unknown }>
        reached('answered')
        return result
      },
      close: async () => {},
    }
  },
}

const folders: (() => unknown)[] = []
const policy = new TestPolicy()
policy.mode = order.mode
const replica = await buildReplica({ teardown: handler => folders.push(handler) }, {
  endpoints: order.endpoints,
  auditFile: order.auditFile,
  admin,
  policy,
  ...order.lifetimes && { lifetimes: order.lifetimes },
})
const { parts } = replica

// Each record and each write to the ledger is a point, before and after.
const { audit, ledger } = parts
parts.audit = {
  async recordDurably (entry) {
    reached(`before the record ${entry.event}`)
    await audit.recordDurably(entry)
    reached(`after the record ${entry.event}`)
  },
}
const replace = ledger.replace.bind(ledger)
ledger.replace = async (stored, next, options) => {
  const what = pointOf(stored.change, next)
  reached(`before ${what} is stored`)
  const written = await replace(stored, next, options)
  reached(`after ${what} is stored`)
  return written
}
const lock = ledger.lock.bind(ledger)
ledger.lock = async (...args) => {
  const taken = await lock(...args)
  reached('locked')
  return taken
}

function pointOf (before: Change, { state, execution }: Change): string {
  if (before.state !== state) return state
  return execution ? 'the attempt' : 'the end of the attempt'
}

const outcome = await replica.changes.apply(caller('alice'), order.changeId, order.breakGlass, reached)
  .then(({ change }) => change.state, error => error.code as string)
process.send?.({ outcome } satisfies Question)
await replica.close()
process.exit()
