/** A broker's gRPC control plane: KafScale's, or one that also drains and flushes. */
import { readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import * as grpc from '@grpc/grpc-js'
import { service } from '../../../plugins/broker-control/rpc.ts'
import type { Etcd, Teardown } from '../etcd.ts'
import { collectEvidence, type Mutation, violationsOf } from './invariant.ts'

type Handler = (request: Record<string, unknown>) => Promise<object> | object

export interface ControlDouble {
  /** host:port, with the host as it was asked for. */
  address: string
  /** Every call that arrived. */
  calls: { method: string, request: Record<string, unknown> }[]
  close: () => void
}

/** Throws inside a handler: the broker answers with this status. */
export class Status extends Error {
  readonly code: grpc.status

  constructor (code: grpc.status, message: string) {
    super(message)
    this.code = code
  }
}

/** What KafScale answers: nothing but the status is implemented. */
const KAFSCALE: Record<string, Handler> = {
  GetStatus: () => ({
    broker_id: '0',
    version: 'dev',
    ready: true,
    partitions: [{
      topic: '__s3_health',
      partition: 0,
      leader: true,
      state: 'healthy',
      log_start_offset: '23',
      log_end_offset: '23',
      high_watermark: '15',
    }],
  }),
  DrainPartitions: () => { throw new Status(grpc.status.UNIMPLEMENTED, 'DrainPartitions not implemented') },
  TriggerFlush: () => { throw new Status(grpc.status.UNIMPLEMENTED, 'TriggerFlush not implemented') },
}

/** Where the evidence for a drain or a flush is, or why a test makes one by itself, without the service. */
export type Proof = { etcd: Etcd, auditFiles: readonly string[] } | { exempt: string }

/**
 * Starts a control plane on a free port. `handlers` replace those of KafScale. The teardown of `t` throws if it was
 * told to drain or flush without proof.
 */
export async function startControl (
  t: Teardown,
  handlers: Partial<Record<'GetStatus' | 'DrainPartitions' | 'TriggerFlush', Handler>> = {},
  tls?: { ca: string, cert: string, key: string },
  proof?: Proof
): Promise<ControlDouble> {
  const server = new grpc.Server()
  const calls: ControlDouble['calls'] = []
  const mutations: Mutation[] = []
  const implementation = Object.fromEntries(
    Object.entries({ ...KAFSCALE, ...handlers }).map(([method, handler]) => [
      method,
      (call: grpc.ServerUnaryCall<Record<string, unknown>, object>, reply: grpc.sendUnaryData<object>) => {
        calls.push({ method, request: call.request })
        remember(method, call.request).then(async () => await handler(call.request))
          .then(answer => reply(null, answer), (error: grpc.ServiceError) => reply(error))
      },
    ])
  )
  server.addService(service, implementation)
  const credentials = tls
    ? grpc.ServerCredentials.createSsl(
      readFileSync(tls.ca), [{ cert_chain: readFileSync(tls.cert), private_key: readFileSync(tls.key) }], true
    )
    : grpc.ServerCredentials.createInsecure()
  const port = await promisify(server.bindAsync.bind(server))('127.0.0.1:0', credentials)
  const close = () => server.forceShutdown()
  t.teardown(() => {
    close()
    const violations = violationsOf(mutations)
    if (violations.length > 0) throw new Error(violations.join('\n'))
  })
  return { address: `127.0.0.1:${port}`, calls, close }

  async function remember (method: string, { deadline_seconds: seconds }: Record<string, unknown>): Promise<void> {
    if (method === 'GetStatus') return
    mutations.push({
      what: `${method} at 127.0.0.1:${port}`,
      address: `127.0.0.1:${port}`,
      call: method === 'DrainPartitions'
        ? { tool: 'drain_broker', arguments: seconds ? { deadline_seconds: seconds } : {} }
        : { tool: 'flush_broker', arguments: {} },
      fence: 'none',
      evidence: !proof
        ? { ledger: undefined, records: [] }
        : 'exempt' in proof ? 'exempt' : await collectEvidence(proof.etcd, proof),
    })
  }
}
