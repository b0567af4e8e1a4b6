import { flag, input, list, object, text, textOrNull } from './shared/schema.ts'
import { defineTool } from './tool.ts'

export default defineTool({
  name: 'explain_access',
  title: 'Explain my access',
  description:
    "Who the service takes the caller for, the caller's roles, and for each tool whether it is allowed, by which rule, and what would change that.",
  operation: 'observe',
  input: input({}),
  output: object({
    principal: object({ subject: text, issuer: textOrNull, client_id: textOrNull, method: text }),
    roles: list(text),
    tools: list(object({ name: text, allowed: flag, rule: text, needs: textOrNull })),
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
