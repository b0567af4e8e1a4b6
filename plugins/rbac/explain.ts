/** What the policy means for the changes of one principal, in the words of the policy. */
import { CHANGE_TOOLS, type ChangeTool, RESOURCE_KINDS } from '../changes/change.ts'
import { concerns, type Decision, denyClosed, namesIn, type Question, rulesOf } from './decide.ts'
import { type Policy, type PolicyOperation, type Requirement, requirementOf } from './policy.ts'

const STEPS = ['propose', 'apply', 'approve', 'break-glass'] as const satisfies PolicyOperation[]

/** What a principal may do with the changes that a tool proposes. */
export interface ChangeAccess extends Requirement {
  tool: ChangeTool
  steps: {
    operation: typeof STEPS[number]
    decision: Decision
    /** The patterns of the resources for which the step is allowed; empty if it is denied. */
    on: readonly string[]
    /** The patterns of those among them for which it is denied. */
    except: readonly string[]
  }[]
}

/** What a principal may do with changes, and what nobody may. */
export interface ChangesAccess {
  /** Whether the emergency stop is in effect. */
  stopped: boolean
  environment: string
  tools: readonly ChangeAccess[]
  protected: Policy['protected']
}

/** @param decideStep decides by the principal and its roles, without a resource */
export function explainChanges (
  policy: Policy,
  roles: readonly string[],
  environment: string,
  decideStep: (question: Question) => Decision
): ChangeAccess[] {
  return CHANGE_TOOLS.map(tool => ({
    tool,
    ...requirementOf(policy, tool, environment),
    steps: STEPS.map(operation => {
      const question = { tool: { name: tool, operation }, environment }
      const byRole = decideStep(question)
      const decision = byRole.kind === 'denied'
        ? byRole
        : denyClosed(policy, operation, tool, environment) ?? byRole
      const kind = RESOURCE_KINDS[tool]
      const names = (of: 'allow' | 'deny') =>
        rulesOf(policy, roles, of).filter(({ rule }) => concerns(rule, question, of)).flatMap(({ rule }) =>
          of === 'allow' ? namesIn(rule, kind, operation) : rule[`${kind}s`] ?? [])
      const isAllowed = decision.kind === 'allowed'
      return {
        operation,
        decision,
        on: isAllowed ? [...new Set(names('allow'))] : [],
        except: isAllowed ? [...new Set(names('deny'))] : [],
      }
    }),
  }))
}
