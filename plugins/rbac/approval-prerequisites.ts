import { isConfidential } from '../../lib/address.ts'
import { quote } from '../../lib/printable.ts'
import { CHANGE_TOOLS } from '../changes/change.ts'
import type { Config } from '../config/read.ts'
import { variableOf } from '../config/schema.ts'
import { needsApproval, type Policy } from './policy.ts'

/**
 * One sentence for each thing that is missing for the approvals that a policy requires in this environment. Approvers
 * sign in on a page.
 */
export function missingForApprovals (
  policy: Policy,
  { auth, publicUrl, changes }: Pick<Config, 'auth' | 'publicUrl' | 'changes'>
): string[] {
  if (!changes) return []
  const { environment, sessionKeys } = changes
  const tools = CHANGE_TOOLS.filter(tool => needsApproval(policy, environment, [tool]))
  if (tools.length === 0) return []
  const where = environment === null
    ? `in an environment without a name (${variableOf('environment')} is not set)`
    : `in the environment ${quote(environment)}`
  const cause = `${variableOf('policyFile')} requires approvals ${where}`
  const client = auth.mode === 'oidc' ? auth.introspection : undefined
  const needed = {
    publicUrl, oidcClientId: client, oidcClientSecret: client, sessionKey: sessionKeys,
  } as const
  const missing = Object.entries(needed).filter(([, value]) => value === undefined)
    .map(([key]) => `${variableOf(key as keyof typeof needed)} is not set: expected a value, since ${cause}`)
  if (auth.mode !== 'oidc') {
    missing.unshift(`The authentication mode is ${auth.mode}: expected oidc, since ${cause}`)
  }
  if (publicUrl !== undefined && !isConfidential(publicUrl)) {
    missing.push(
      `${variableOf('publicUrl')} is ${quote(publicUrl)}: expected https, since ${cause}, and browsers keep no ` +
      'session of approvers over plain http'
    )
  }
  return missing
}
