import { flag, input, list, means, object, text, textOrNull } from './shared/schema.ts'
import { defineTool } from './tool.ts'

export default defineTool({
  name: 'explain_access',
  title: 'Explain my access',
  description: 'Who you are to this service, your roles, and for each tool whether you may call it, ' +
    'which rule decides that, and what would have to change.',
  operation: 'observe',
  input: input({}),
  output: object({
    principal: object({
      subject: means(text, '`anonymous` without authentication, `static-token` with the shared secret'),
      issuer: textOrNull,
      client_id: textOrNull,
      method: means(text, 'How the caller authenticated: `oidc`, `jwks`, `token` or `none`'),
    }),
    roles: means(list(text), 'Roles that the policy binds the caller to'),
    tools: list(object({
      name: text,
      allowed: flag,
      rule: means(text, 'The rule that decided: `role.allow[0]`, or `no-scope`, `no-role`, `no-rule`'),
      needs: means(textOrNull, 'What the call requires; `null` when it is allowed'),
    })),
  }),
  answer (host, _, { principal }) {
    const { subject, issuer, clientId, method } = principal
    return {
      principal: { subject, issuer, client_id: clientId, method },
      roles: [...host.access.roles(principal)],
      tools: host.access.tools(principal).map(({ name, decision }) => ({
        name,
        allowed: decision.kind === 'allowed',
        rule: decision.rule,
        needs: decision.kind === 'denied' ? decision.needs : null,
      })),
    }
  },
})
