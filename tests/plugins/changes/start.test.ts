/** A service with changes needs its ledger to start. */
import Fastify from 'fastify'
import fp from 'fastify-plugin'
import t, { type Test } from 'tap'
import changes from '../../../plugins/changes/index.ts'
import type { LedgerConfig } from '../../../plugins/config/changes.ts'
import { Secret } from '../../../plugins/config/secret.ts'
import { needsEtcd, startEtcd } from '../../support/etcd.ts'

/** The plugin by itself: nothing that it depends on is used before it is ready. */
async function start (t: Test, ledger: Partial<LedgerConfig>): Promise<void> {
  const app = Fastify()
  t.teardown(() => app.close())
  const config = { changes: { ledger: { endpoints: [], ...ledger } } }
  await app.register(fp(async app => { app.decorate('config', config as never) }, { name: 'config' }))
  for (const name of ['metadata', 'audit', 'rbac', 'kafka-admin', 'broker-control', 'webhook']) {
    await app.register(fp(async () => {}, { name }))
  }
  await app.register(changes)
  await app.ready()
}

t.test('a ledger that cannot be used stops the start, with one sentence that says why', needsEtcd(), async t => {
  const refusal = (endpoints: string[], reason: string) => ({
    name: 'ConfigError',
    message: `KAFSCALE_MCP_CHANGES is enabled and the ledger at ${endpoints.join(',')} cannot be used: expected an ` +
      'etcd whose user KAFSCALE_MCP_CHANGES_ETCD_USERNAME can read and write /kafscale-mcp/changes/. The ledger of ' +
      `changes does not answer: ${reason}`,
  })
  const nowhere = ['http://127.0.0.1:1']
  await t.rejects(start(t, { endpoints: nowhere }), refusal(nowhere, "its etcd can't be reached"))
  const { endpoints } = await startEtcd(t, { auth: true })
  const refused = refusal(endpoints, 'its etcd refuses the credentials or the permission')
  await t.rejects(start(t, { endpoints }), refused, 'without credentials')
  const mirror = { username: 'kafscale', password: new Secret('read-only') }
  await t.rejects(start(t, { endpoints, ...mirror }), refused, 'the user of the mirror')
})
