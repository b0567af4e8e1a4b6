import { Type } from '@sinclair/typebox'
import { InvalidArgument } from '../errors.ts'
import type { Decision } from '../plugins/rbac/decide.ts'
import type { ChangesAccess } from '../plugins/rbac/explain.ts'
import { flag, input, integer, list, means, nameOf, object, text, textOrNull } from './shared/schema.ts'
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
        'The deciding rule, such as `observer.allow[0]`; `no-scope`, `no-identity`, `no-role` or `no-rule` if ' +
          'nothing allows the call; `signed-in` if this is enough'
      ),
      needs: means(textOrNull, 'What the call requires; `null` if it is allowed'),
    })),
    changes: Type.Optional(means(object({
      stopped: means(flag, 'Whether the policy stops all changes'),
      environment: text,
      tools: list(object({
        name: text,
        mode: means(text, 'What a change needs here: `direct` (nothing), `approval`, or `closed` (impossible)'),
        approvals_needed: integer,
        rule: means(text, 'The entry of `changes` that says so; `changes.default` if none matches'),
        steps: list(object({
          operation: means(text, '`propose`, `apply`, `approve` or `break-glass`'),
          allowed: flag,
          rule: text,
          needs: textOrNull,
          on: means(list(text), 'Patterns of the names for which the caller may take the step'),
          except: means(list(text), 'Patterns of those among them for which it may not'),
        })),
      })),
      protected: means(object({ topics: list(text), groups: list(text) }), 'Patterns of what nobody may change'),
    }), 'What the caller may do with changes; absent if no tool proposes any')),
  }),
  answer (host, query, { principal }) {
    const tools = host.access.tools(principal)
    const shown = tools.filter(({ name }) => query.tool === undefined || name === query.tool)
    if (shown.length === 0) {
      throw new InvalidArgument(`"tool" must be one of ${tools.map(({ name }) => name).join(', ')}`)
    }
    const changes = host.access.changes(principal)
    const { subject, issuer, clientId, method } = principal
    return {
      principal: { subject, issuer, client_id: clientId, method },
      roles: [...host.access.roles(principal)],
      tools: shown.map(({ name, decision }) => ({ name, ...resultOf(decision) })),
      ...changes && { changes: changesOf(changes, query.tool) },
    }
  },
})

function resultOf (decision: Decision) {
  const { kind, rule } = decision
  return { allowed: kind === 'allowed', rule, needs: kind === 'denied' ? decision.needs : null }
}

/** @param only the tool of which changes are shown; all, if it proposes none */
function changesOf ({ tools, protected: { topics, groups }, ...rest }: ChangesAccess, only: string | undefined) {
  const [named] = tools.filter(({ tool }) => tool === only)
  return {
    ...rest,
    tools: (named ? [named] : tools).map(({ tool: name, mode, approvals, rule, steps }) => ({
      name,
      mode,
      approvals_needed: approvals,
      rule,
      steps: steps.map(({ operation, decision, on, except }) => ({
        operation, ...resultOf(decision), on: [...on], except: [...except],
      })),
    })),
    protected: { topics: [...topics], groups: [...groups] },
  }
}
