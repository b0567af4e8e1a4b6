import fp from 'fastify-plugin'
import { BrokerUnreachable } from '../../errors.ts'
import type { KafkaConfig } from '../config/changes.ts'
import { type BrokerSession, openSession, type Timeouts } from './session.ts'

export type { AdminCall, AdminResult } from './calls.ts'
export type { BrokerSession, BrokerView } from './session.ts'

declare module 'fastify' {
  interface FastifyInstance { kafkaAdmin: KafkaAdmin }
}

/** The brokers' admin API. Exists only if `KAFSCALE_MCP_CHANGES` is `enabled`. */
export interface KafkaAdmin {
  /** The principal in KafScale's ACLs: `KAFSCALE_MCP_KAFKA_CLIENT_ID`. */
  readonly principal: string
  /**
   * Connects to one broker: `preferred` if it is configured and answers, else the first of
   * `KAFSCALE_MCP_KAFKA_BROKERS` that does.
   * @throws {BrokerUnreachable} if none answers
   */
  connect: (signal: AbortSignal, preferred?: string) => Promise<BrokerSession>
}

/** A change takes a broker milliseconds; without etcd, it answers after 5 s. */
const TIMEOUTS: Timeouts = { connectMs: 5_000, answerMs: 15_000 }

/** Opens no connection before it is asked to. */
export function kafkaAdminOf (kafka: KafkaConfig, timeouts = TIMEOUTS): KafkaAdmin & { close: () => Promise<void> } {
  const open = new Set<BrokerSession>()
  return {
    principal: kafka.clientId,
    async connect (signal, preferred) {
      const { brokers } = kafka
      const others = brokers.filter(address => address !== preferred)
      const reasons: string[] = []
      for (const address of [...brokers.filter(address => address === preferred), ...others]) {
        try {
          const session = await openSession(address, kafka, timeouts, signal)
          open.add(session)
          return {
            ...session,
            async close () {
              open.delete(session)
              await session.close()
            },
          }
        } catch (error) {
          signal.throwIfAborted()
          reasons.push(`${address} (${(error as Error).message})`)
        }
      }
      throw new BrokerUnreachable(reasons.join(', '))
    },
    async close () {
      await Promise.all(Array.from(open, async session => await session.close()))
      open.clear()
    },
  }
}

export default fp(async function kafkaAdmin (app) {
  const { changes } = app.config
  if (!changes) return
  const { close, ...admin } = kafkaAdminOf(changes.kafka)
  app.decorate<KafkaAdmin>('kafkaAdmin', admin)
  app.addHook('onClose', async () => { await close() })
}, { name: 'kafka-admin', dependencies: ['config'] })
