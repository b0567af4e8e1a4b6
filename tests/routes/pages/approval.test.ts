/** A change from the request of an agent to its outcome, decided by a person in a browser. */
import t from 'tap'
import { startApprovals } from '../../support/approvals.ts'
import { needsChromium } from '../../support/browser.ts'
import { needsEtcd } from '../../support/etcd.ts'
import { openAs, startBrowser, violations } from '../../support/person.ts'

const needs = () => ({ skip: needsEtcd().skip || needsChromium().skip })

t.test('an agent asks, another person approves, the agent applies', needs(), async t => {
  const { url, request, call, records, broker } = await startApprovals(t)
  const id = await request('orders')
  const browser = await startBrowser(t)
  const page = await openAs(browser, 'bob', `${url}/changes/${id}`)

  t.equal(page.url(), `${url}/changes/${id}`, 'the sign-in returns to the page')
  const text = await page.locator('main').innerText()
  for (const seen of [
    'Create the topic orders', 'Environment: staging', 'State: pending', 'alice', 'agent', 'partitions',
    'The cluster is as the plan expects', 'delete_topic', 'The policy requires 1',
  ]) t.match(text, seen)
  t.strictSame(await violations(browser, page), [])

  await page.setViewportSize({ width: 360, height: 640 })
  const width = await page.locator('html').evaluate(({ scrollWidth }) => scrollWidth)
  t.ok(width <= 360, 'a phone shows all of it without scrolling sideways')

  await page.getByLabel('Comment (optional)').fill('fine with me')
  await page.getByRole('button', { name: 'Approve', exact: true }).click()
  t.match(await page.getByRole('status').innerText(), 'You have approved it.')
  t.match(await page.locator('main').innerText(), /State: approved[^]*bob[^]*fine with me/)
  t.strictSame(await violations(browser, page), [])
  t.strictSame(broker.mutations, [], 'an approval applies nothing')

  const { structuredContent } = await call('alice', 'apply_change', { change_id: id })
  t.match(structuredContent, { state: 'applied' })
  await page.reload()
  t.match(await page.locator('main').innerText(), /State: applied/)
  t.strictSame(await violations(browser, page), [])
  t.strictSame(
    records(id).map(({ event, who }) => `${event} ${who?.subject}`),
    ['plan alice', 'approval_request alice', 'approval bob', 'intent alice', 'outcome alice']
  )
  t.equal(broker.mutations.length, 1)
})

t.test('approve and apply runs in the name of the requester, and records both', needs(), async t => {
  const { url, request, records, broker, app, etcd } = await startApprovals(t)
  const id = await request('orders')
  const browser = await startBrowser(t)
  const page = await openAs(browser, 'bob', `${url}/changes/${id}`)
  await page.getByRole('button', { name: /Approve and apply/ }).click()
  t.match(await page.getByRole('status').innerText(), /approved it, and it was applied in the name of the requester/)
  t.match(await page.locator('main').innerText(), /in the name of alice[^]*applied on this page by bob/)
  t.equal(broker.mutations.length, 1)
  t.match(records(id).slice(2), [
    { event: 'approval', who: { subject: 'bob' } },
    { event: 'intent', who: { subject: 'alice', roles: ['operator', 'approver'] }, warning: /requester by "bob"/ },
    { event: 'outcome', who: { subject: 'alice' }, warning: /requester by "bob"/ },
  ])
  t.ok(app && etcd)
})
