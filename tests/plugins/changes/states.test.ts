/** The states of a change, and every way from one to another. */
import fc from 'fast-check'
import t from 'tap'
import { CHANGE_STATES, type ChangeState, isOpen, isTransition, OPEN_STATES } from '../../../plugins/changes/states.ts'
import { holds } from '../../support/property.ts'

/** The life of a change as `docs/changes.md` describes it. */
const LIFE: Record<string, ChangeState[]> = {
  'the first call applies it, or asks for an approval': ['planned', 'applying'],
  'the first call asks for an approval': ['planned', 'pending'],
  'an approver approves it': ['pending', 'approved'],
  'it is applied after the approval': ['approved', 'applying'],
  'it is applied by break-glass': ['pending', 'applying'],
  'it took effect': ['applying', 'applied'],
  'it did not take effect': ['applying', 'failed'],
  'nobody knows yet': ['applying', 'ambiguous'],
  'it took effect after all': ['ambiguous', 'applied'],
  'it did not take effect after all': ['ambiguous', 'failed'],
  'somebody else has undone it': ['applied', 'reverted'],
}
const ENDINGS: ChangeState[] = ['cancelled', 'expired', 'stale']
const ALLOWED = new Set([
  ...Object.values(LIFE),
  ...OPEN_STATES.flatMap(open => ENDINGS.map(end => [open, end])),
  ['pending', 'rejected'],
  ['approved', 'rejected'],
].map(pair => pair.join(' → ')))

const states = fc.constantFrom(...CHANGE_STATES)

t.test('a change goes from one state to another only as described', async t => {
  for (const from of CHANGE_STATES) {
    for (const to of CHANGE_STATES) {
      t.equal(isTransition(from, to), ALLOWED.has(`${from} → ${to}`), `${from} → ${to}`)
    }
  }
})

t.test('whatever path a change takes', async t => {
  const path = fc.array(states, { maxLength: 20 }).map(wishes => {
    const taken: ChangeState[] = ['planned']
    for (const wish of wishes) if (isTransition(taken.at(-1) as ChangeState, wish)) taken.push(wish)
    return taken
  })
  const count = (taken: ChangeState[], state: ChangeState) => taken.filter(each => each === state).length
  holds(t, 'it is applied at most once', path, taken => count(taken, 'applying') <= 1)
  holds(t, 'it never waits again once it has been applied', path, taken =>
    !taken.slice(taken.indexOf('applying')).some(isOpen) || !taken.includes('applying'))
  holds(t, 'no state comes twice', path, taken => new Set(taken).size === taken.length)
  holds(t, 'it takes effect only after it was sent', path, taken =>
    !taken.includes('applied') || taken.indexOf('applying') < taken.indexOf('applied'))
})
