/** Whether callers could be authenticated and authorized: issuers, keys, and the policy. */
import { readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { issuersOf } from '../../plugins/auth/index.ts'
import type { Issuer } from '../../plugins/auth/issuer.ts'
import { keysFromFile } from '../../plugins/auth/keys-file.ts'
import { firstPolicy } from '../../plugins/rbac/index.ts'
import { attempt, type Finding } from './finding.ts'

const POLL_MS = 20

export async function * checkAuthentication (app: FastifyInstance): AsyncGenerator<Finding> {
  const { auth } = app.config
  const closing = new AbortController()
  const item = 'authentication'
  switch (auth.mode) {
    case 'oidc':
      yield * await Promise.all(issuersOf(auth, app).map(issuer => checkIssuer(issuer, closing)))
      break
    case 'jwks':
      yield await attempt(item, async () => {
        await keysFromFile(auth.file, { onChange: () => {}, log: app.log, signal: closing.signal })
        return 'the keys of the JWKS file are valid'
      })
      break
    case 'token':
      yield { level: 'ok', item, detail: 'one token that all callers share' }
      break
    case 'none':
      yield { level: 'ok', item, detail: 'none: callers on this machine only' }
  }
  closing.abort()
}

export async function * checkPolicy (app: FastifyInstance): AsyncGenerator<Finding> {
  const { policyFile } = app.config
  if (policyFile === undefined) {
    yield { level: 'skipped', item: 'policy', detail: 'KAFSCALE_MCP_POLICY_FILE is not set' }
    return
  }
  yield await attempt('policy', async () => {
    const content = await readFile(policyFile)
    const { roles, bindings, changes } = firstPolicy(app.config, content, app.tools.known)
    const stop = changes === 'closed' ? '; changes: closed stops all changes' : ''
    return `is valid, with ${roles.size} roles and ${bindings?.length ?? 0} bindings${stop}`
  })
}

/** Loads the metadata and the keys of an issuer, once. */
async function checkIssuer (issuer: Issuer, closing: AbortController): Promise<Finding> {
  void issuer.follow(closing.signal)
  while (issuer.state.state === 'connecting') await delay(POLL_MS)
  const { state, reason = '' } = issuer.state
  const item = `issuer ${issuer.identifier}`
  return state === 'reachable'
    ? { level: 'ok', item, detail: 'its metadata and keys load' }
    : { level: 'failed', item, detail: `its metadata or keys do not load: ${reason}` }
}
