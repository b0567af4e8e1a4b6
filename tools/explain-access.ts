import type { Principal } from '../plugins/auth/principal.ts'
import { NO_SCOPE, SCOPES, type Decision } from '../plugins/rbac/decide.ts'
import { defineTool } from './define-tool.ts'
import { flag, input, list, object, text, textOrNull } from './schema.ts'

export default defineTool({
  name: 'explain_access',
  title: 'Explain my access',
  description: 'Who the service takes the caller for, the caller\'s roles, and for each tool whether it is allowed, by which rule, and what would change that.',
  operation: 'observe',
  input: input({}),
  output: object({
    principal: object({ subject: text, issuer: textOrNull, client_id: textOrNull, method: text }),
    roles: list(text),
    tools: list(object({ name: text, allowed: flag, rule: text, needs: textOrNull })),
  }),
  answer (app, _, { principal }) {
    const { subject, issuer, clientId, method, scopes } = principal
    return {
      principal: { subject, issuer, client_id: clientId, method },
      roles: app.authorize.roles(principal),
      tools: app.tools.known.toSorted().flatMap(name => {
        const operation = app.tools.operation(name)
        return operation === undefined ? [] : [{ name, ...explain(app.authorize.decide(principal, { name, operation }), SCOPES[operation], scopes) }]
      }),
    }
  },
})

function explain (decision: Decision, scope: string, scopes: Principal['scopes']): { allowed: boolean, rule: string, needs: string | null } {
  if (decision.kind === 'denied') return { allowed: false, rule: decision.rule, needs: decision.needs }
  if (scopes?.has(scope) === false) return { allowed: false, rule: NO_SCOPE, needs: `the scope ${scope}` }
  return { allowed: true, rule: decision.rule, needs: null }
}
