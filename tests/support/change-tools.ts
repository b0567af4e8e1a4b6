/** The tools of changes, in a service that has no changes: over a stand-in, for tests of the tools alone. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import type { Change, ChangeView } from '../../plugins/changes/change.ts'
import type { Changes } from '../../plugins/changes/index.ts'
import type { Environment } from '../../plugins/config/read.ts'
import { allTools } from '../../scripts/docs-tools.ts'
import type { Caller } from '../../tools/tool.ts'
import { change } from './changes.ts'
import { type Teardown, temporaryFolder } from './run.ts'
import { CALLER } from './service.ts'

/** A caller who may do everything that {@link operatorPolicy} allows. */
export const OPERATOR: Caller = {
  ...CALLER,
  principal: { ...CALLER.principal, subject: 'operator', method: 'jwks', issuer: 'ops', claims: { sub: 'operator' } },
}

export function operatorPolicy (t: Teardown): Environment {
  const path = join(temporaryFolder(t), 'policy.yaml')
  writeFileSync(path, JSON.stringify({
    roles: { operator: { allow: [{ operations: ['observe', 'propose', 'apply'] }] } },
    bindings: [{ role: 'operator', claim: 'sub', value: 'operator' }],
    changes: [{ mode: 'direct' }],
  }))
  return { KAFSCALE_MCP_POLICY_FILE: path }
}

/** Declares every tool that exists only with changes. Steps that the test does not give are refused by the test. */
export async function declareChangeTools (app: FastifyInstance, changes: Partial<Changes> = {}): Promise<void> {
  app.decorate('changes', changes as FastifyInstance['changes'])
  const missing = (await allTools()).filter(({ name }) => app.tools.operation(name) === undefined)
  for (const tool of missing) app.tools.declare(tool)
}

export function viewOf (id: string, more: Partial<Change> = {}): ChangeView {
  return { change: change(id, more), next: 'Call apply_change.', approvalUrl: undefined }
}
