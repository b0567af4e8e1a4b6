/** Makes the change that docs/changes.md walks through, with its requests, and compares the answers. */
import { join } from 'node:path'
import t from 'tap'
import { authority } from './support/authorization.ts'
import { startBroker } from './support/brokers/broker.ts'
import { initialSnapshot, SNAPSHOT_KEY } from './support/brokers/store.ts'
import { needsEtcd, startEtcd } from './support/etcd.ts'
import { readPage } from './support/pages.ts'
import { buildSyncedApp } from './support/service.ts'

const CLUSTER_ID = '0d5b0f2e-6f3b-4a5c-9f43-1f1c1f7f3c11'
const page = readPage('changes.md')

/** Without what differs each time: ids, times and revisions. */
const settled = (text: string) =>
  text.replaceAll(/chg-[0-9a-f]{16}/g, 'chg-0').replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'a time')
    .replaceAll(/"revision":\s*\d+/g, '"revision":0')

t.test('a change in dev, from the proposal to the outcome', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const { dir, env, token, policyFile } = await authority(t)
  const broker = await startBroker(t, etcd, { checked: { auditFiles: [join(dir, 'audit.jsonl')] } })
  const [host = '', port] = broker.address.split(':')
  const snapshot = { ...initialSnapshot(0, host, Number(port)), ClusterID: CLUSTER_ID, Topics: null }
  await etcd.client.put(SNAPSHOT_KEY).value(JSON.stringify(snapshot))
  const app = await buildSyncedApp(t, etcd, {
    ...env,
    KAFSCALE_MCP_POLICY_FILE: policyFile(page.block('yaml policy')),
    KAFSCALE_MCP_ENVIRONMENT: 'dev',
    KAFSCALE_MCP_CHANGES: 'enabled',
    KAFSCALE_MCP_EXPECTED_CLUSTER_ID: CLUSTER_ID,
    KAFSCALE_MCP_KAFKA_BROKERS: broker.address,
  })
  const url = await app.listen({ host: '127.0.0.1', port: 0 })
  const KAFSCALE_TOKEN = await token('alice', {
    scope: 'kafscale:observe kafscale:propose kafscale:apply', groups: ['team-orders'], client_id: 'agent',
  })
  const [propose = '', apply = ''] = page.ofKind('sh change')
  const [planned = '', applied = ''] = page.ofKind('json change')
  const [idOnPage = ''] = /chg-[0-9a-f]{16}/.exec(planned) ?? []
  let id = idOnPage

  /** Sends a request of the page, and compares the fields of the answer that the page shows. */
  const answers = async (request: string, shown: string) => {
    const [body = ''] = await page.run(request.replaceAll(idOnPage, id), { cwd: dir, url, env: { KAFSCALE_TOKEN } })
    const answer = JSON.parse(body).result.structuredContent as Record<string, unknown>
    const fields = JSON.parse(settled(shown)) as Record<string, unknown>
    const received = JSON.parse(settled(JSON.stringify(answer))) as Record<string, unknown>
    t.strictSame(Object.fromEntries(Object.keys(fields).map(field => [field, received[field]])), fields)
    return answer
  }

  const { change_id: changeId, requested_at: requestedAt, expires_at: expiresAt } = await answers(propose, planned)
  id = String(changeId)
  t.equal(Date.parse(String(expiresAt)) - Date.parse(String(requestedAt)), 600_000)
  t.strictSame(broker.mutations, [], 'a proposal changes nothing')
  const outcome = await answers(apply, applied)
  t.equal(broker.mutations.length, 1)
  t.strictSame(await answers(apply, applied), outcome, 'called again, it returns the outcome')
  t.equal(broker.mutations.length, 1)

  const [story = ''] = await page.run(page.block('sh story').replace(idOnPage, id), { cwd: dir })
  t.equal(settled(story), settled(page.block('text story')))
})
