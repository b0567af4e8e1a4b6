import { Type } from '@sinclair/typebox'
import { InvalidArgument } from '../errors.ts'
import { flag, input, list, means, nameOf, object, text, textOrNull } from './shared/schema.ts'
import { defineTool } from './tool.ts'

export default defineTool({
  name: 'explain_access',
  title: 'Explain my access',
  description: 'Who you are to this service, your roles, and for each tool whether you may call it, ' +
    'which rule decides that, and what the call requires. Answers everyone who is signed in.',
  operation: 'observe',
  input: input({ tool: Type.Optional(nameOf('Only this tool')) }),
  output: object({
    principal: object({
      subject: means(text, '`anonymous` without authentication, `static-token` with a shared secret'),
      issuer: textOrNull,
      client_id: textOrNull,
      method: means(text, 'How the caller authenticated: `oidc`, `jwks`, `token` or `none`'),
    }),
    roles: means(list(text), 'Roles of the caller'),
    tools: list(object({
      name: text,
      allowed: flag,
      rule: means(
        text,
        'The deciding rule, such as `observer.allow[0]`; `no-scope`, `no-role` or `no-rule` if nothing allows the ' +
          'call; `signed-in` if this is enough'
      ),
      needs: means(textOrNull, 'What the call requires; `null` if it is allowed'),
    })),
  }),
  answer (host, query, { principal }) {
    const tools = host.access.tools(principal)
    const shown = tools.filter(({ name }) => query.tool === undefined || name === query.tool)
    if (shown.length === 0) {
      throw new InvalidArgument(`"tool" must be one of ${tools.map(({ name }) => name).join(', ')}`)
    }
    const { subject, issuer, clientId, method } = principal
    return {
      principal: { subject, issuer, client_id: clientId, method },
      roles: [...host.access.roles(principal)],
      tools: shown.map(({ name, decision }) => ({
        name,
        allowed: decision.kind === 'allowed',
        rule: decision.rule,
        needs: decision.kind === 'denied' ? decision.needs : null,
      })),
    }
  },
})
