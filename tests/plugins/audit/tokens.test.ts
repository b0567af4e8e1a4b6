/** The caller's bearer token is in no record, wherever the caller has put it. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { Environment } from '../../../plugins/config/read.ts'
import { authority } from '../../support/authorization.ts'
import { SERVICE, startProvider } from '../../support/oidc-provider.ts'
import { buildTestApp, modern } from '../../support/service.ts'

const STATIC_TOKEN = 'a~static~one,~0123456789!'.padEnd(40, '_')

for (const kind of ['static', 'jwt', 'opaque'] as const) {
  t.test(`${kind}`, async t => {
    const { env, token: sign, dir, recorded } = await authority(t)
    const { KAFSCALE_MCP_PUBLIC_URL: publicUrl, KAFSCALE_MCP_AUDIT_SINKS: sinks } = env
    const service = async (): Promise<{ settings: Environment, token: string }> => {
      const common = { KAFSCALE_MCP_PUBLIC_URL: publicUrl, KAFSCALE_MCP_AUDIT_SINKS: sinks }
      if (kind === 'static') {
        return { settings: { ...common, KAFSCALE_MCP_AUTH_TOKEN: STATIC_TOKEN }, token: STATIC_TOKEN }
      }
      if (kind === 'jwt') return { settings: env, token: await sign('alice') }
      const { issuer, opaqueToken } = await startProvider(t)
      return {
        settings: {
          ...common,
          KAFSCALE_MCP_OIDC_ISSUER: issuer,
          KAFSCALE_MCP_OIDC_CLIENT_ID: SERVICE.id,
          KAFSCALE_MCP_OIDC_CLIENT_SECRET: SERVICE.secret,
        },
        token: await opaqueToken(`${publicUrl}/mcp`),
      }
    }
    const { settings, token } = await service()
    const app = await buildTestApp(t, settings)
    const call = async (name: string, input: Record<string, unknown>, authorization = `Bearer ${token}`) => {
      const clientInfo = { name: `client ${token}`, version: token }
      const { headers, ...request } = modern('tools/call', {
        name,
        arguments: input,
        _meta: { 'io.modelcontextprotocol/clientInfo': clientInfo },
      })
      const { statusCode } = await app.inject({
        ...request,
        headers: { ...headers, authorization, 'user-agent': `agent (${token})` },
      })
      return statusCode
    }
    t.equal(await call('list_topics', { pattern: token }), 200)
    t.equal(await call('describe_group', { group_id: token }), 200)
    t.equal(await call('list_topics', { [token]: 1, names: [`Bearer ${token}`] }), 200)
    await call(token, {})
    t.equal(await call('list_topics', {}, 'Basic none'), 401)
    await app.inject({
      url: `/audit/stream?who=${encodeURIComponent(token)}`,
      headers: { authorization: `Bearer ${token}` },
    })

    t.notOk(readFileSync(join(dir, 'audit.jsonl'), 'utf8').includes(token.slice(0, 40)))
    t.match(recorded('tool_call').map(({ what }) => [what?.tool, what?.arguments]), [
      ['list_topics', { pattern: '[redacted]' }],
      ['describe_group', { group_id: '[redacted]' }],
      ['list_topics', { '[redacted]': 1, names: ['Bearer [redacted]'] }],
      ['[redacted]', {}],
    ])
    for (const { where } of recorded('tool_call')) {
      t.match(where, { user_agent: 'agent ([redacted])', mcp_client: 'client [redacted] [redacted]' })
    }
    t.match(recorded('authentication_failure'), [{ where: { user_agent: 'agent ([redacted])' } }])
    t.match(recorded('audit_stream'), [{ what: { arguments: { who: '[redacted]' } } }])
  })
}
