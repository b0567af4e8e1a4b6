/** The page on which auditors follow the audit log. */
import t from 'tap'
import { startApprovals } from '../../support/approvals.ts'
import { needsChromium } from '../../support/browser.ts'
import { needsEtcd } from '../../support/etcd.ts'
import { openAs, startBrowser, violations } from '../../support/person.ts'
import { textOf, Visitor } from '../../support/visitor.ts'

const needs = () => ({ skip: needsEtcd().skip || needsChromium().skip })

t.test('an auditor follows the records, and reads the story of a change', needs(), async t => {
  const { url, request, call } = await startApprovals(t)
  const id = await request('orders')
  const browser = await startBrowser(t)
  const page = await openAs(browser, 'erin', `${url}/audit`, { javaScriptEnabled: true })
  await page.getByText('Live: new records appear at the top.').waitFor()
  const rows = page.locator('#records tr')
  const [live, opened, before] = await rows.locator('th').allInnerTexts()
  t.strictSame([live, opened, before], ['audit_stream', 'audit_stream', 'tool_call'], 'newest first')
  t.strictSame(await violations(browser, page), [])

  await call('alice', 'cancel_change', { change_id: id })
  await rows.filter({ hasText: 'cancellation' }).waitFor()

  await rows.filter({ hasText: 'cancellation' }).getByRole('link').click()
  await page.getByText('Live: new records appear at the top.').waitFor()
  const story = (await rows.locator('th').allInnerTexts()).reverse()
  t.strictSame(story.filter(event => event !== 'tool_call'), ['plan', 'approval_request', 'cancellation'])

  await page.getByLabel('Event').fill('plan')
  await page.getByRole('button', { name: 'Show' }).click()
  t.strictSame(await rows.locator('th').allInnerTexts(), ['plan'])
})

t.test('nobody else reads the records, and attempts are recorded', needsEtcd(), async t => {
  const { url, app } = await startApprovals(t)
  const bob = new Visitor()
  const seen = await bob.signIn(`${url}/audit`, 'bob')
  t.equal(seen.status, 403)
  t.match(textOf(seen), /NOT_AUDITOR/)
  t.match((await bob.get(`${url}/audit/live`)).status, 403)
  t.equal((await fetch(`${url}/audit/live`)).status, 403)
  const { lines } = app.audit.live.latest()
  t.match(lines.map(line => JSON.parse(line)).filter(({ event }) => event === 'audit_stream'), [
    { who: null, decision: 'denied' }, { who: { subject: 'bob' }, decision: 'denied' }, { who: { subject: 'bob' } },
  ])
})
