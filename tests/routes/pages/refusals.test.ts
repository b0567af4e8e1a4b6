/** What a page refuses, and what it says then. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { alive } from '../../../plugins/changes/ledger/keys.ts'
import { startApprovals } from '../../support/approvals.ts'
import { needsChromium } from '../../support/browser.ts'
import { needsEtcd } from '../../support/etcd.ts'
import { openAs, signInAs, startBrowser, violations } from '../../support/person.ts'
import { waitFor } from '../../support/wait-for.ts'

const needs = () => ({ skip: needsEtcd().skip || needsChromium().skip })
const LATER_MS = 301_000

const approve = (page: Page) => page.getByRole('button', { name: 'Approve', exact: true })
const main = (page: Page) => page.locator('main').innerText()
const status = (page: Page) => page.getByRole('status').innerText()

/** Runs something while it is later. */
async function later (run: () => Promise<unknown>): Promise<void> {
  const { now } = Date
  Date.now = () => now() + LATER_MS
  try {
    await run()
  } finally {
    Date.now = now
  }
}

t.test('a page refuses', needs(), async t => {
  const { url, request, call, records, broker, app, etcd, replica, provider } = await startApprovals(t)
  const browser = await startBrowser(t)
  const stateOf = async (id: string) => {
    const { structuredContent } = await call('alice', 'get_change', { change_id: id })
    return structuredContent?.['state']
  }
  /** How many approvals the records know: one that could not be stored is recorded again, as an error. */
  const approvals = (id: string) => records(id).filter(({ event }) => event === 'approval')
    .reduce((count, { outcome }) => count + (outcome === 'ok' ? 1 : -1), 0)
  const open = async (id: string, who = 'bob') => await openAs(browser, who, `${url}/changes/${id}`)
  const isPending = async (t: Test, id: string) => {
    t.equal(await stateOf(id), 'pending')
    t.strictSame(records(id).filter(({ event, outcome }) => event === 'approval' && outcome === 'ok'), [])
  }
  /** Sends the form of a page although the page does not offer it. */
  const force = async (page: Page, id: string, action = 'approve') => {
    const token = await page.locator('input[name=_csrf]').first().inputValue()
    return await page.request.post(`${url}/changes/${id}`, {
      headers: { origin: url }, form: { _csrf: token, action, digest: 'x', comment: 'x' },
    })
  }

  await t.test('the approval of an own change', async t => {
    const id = await request('own')
    const page = await open(id, 'alice')
    t.match(await main(page), /You cannot decide on this change: that requires somebody other than the requester/)
    t.equal(await page.locator('form.decision').count(), 0)
    t.equal((await force(page, id)).status(), 403)
    await isPending(t, id)
    t.match(records(id).at(-1), {
      event: 'approval',
      who: { subject: 'alice' },
      decision: 'denied',
      outcome: 'denied',
      error_code: 'PERMISSION_DENIED',
      warning: 'it requires somebody other than the requester',
    })
    t.strictSame(await violations(browser, page), [])
  })

  await t.test('a decision without the role', async t => {
    const id = await request('role')
    const page = await open(id, 'dave')
    t.match(await main(page), /You cannot decide on this change: that requires .*approve/)
    for (const action of ['approve', 'reject', 'apply', 'approve-and-apply']) {
      t.equal((await force(page, id, action)).status(), 403, action)
    }
    await isPending(t, id)
    const nobody = await open(id, 'mallory')
    t.match(await main(nobody), /There is no change .* that you may see[^]*CHANGE_NOT_FOUND/)
  })

  await t.test('a decision long after the sign-in, and takes it after another one', async t => {
    const id = await request('old')
    const page = await open(id)
    await later(async () => {
      await approve(page).click()
      t.match(await status(page), /You signed in more than 5 minutes ago.*SIGN_IN_TOO_OLD/)
      t.equal(await approve(page).count(), 0)
      t.strictSame(await violations(browser, page), [])
    })
    await isPending(t, id)
    const { searchParams } = new URL(await page.getByRole('link', { name: 'Sign in again' }).getAttribute('href') ?? '',
      url)
    t.equal(searchParams.get('to'), `/changes/${id}`)
    await page.getByRole('link', { name: 'Sign in again' }).click()
    await signInAs(page, 'bob')
    await approve(page).click()
    t.match(await status(page), 'You have approved it.')
  })

  await t.test('a plan that is stale, when the page opens and when the form is sent', async t => {
    const id = await request('stale')
    const early = await open(id)
    const first = await request('stale', { who: 'alice' })
    const page = await open(first)
    await page.getByRole('button', { name: /Approve and apply/ }).click()
    t.match(await status(page), 'applied')
    await approve(early).click()
    t.match(await status(early), /The cluster is no longer as the plan expects.*PLAN_STALE/)
    await isPending(t, id)
    await early.goto(`${url}/changes/${id}`)
    t.match(await main(early), /The cluster is no longer as the plan expects[^]*must be proposed again/)
    t.equal(await approve(early).count(), 0)
    t.strictSame(await violations(browser, early), [])
  })

  await t.test('the second of two clicks', async t => {
    const id = await request('twice')
    const page = await open(id)
    const other = await page.context().newPage()
    await other.goto(page.url())
    await Promise.all([approve(page).click(), approve(other).click()])
    const said = await Promise.all([status(page), status(other)])
    t.match(said.join(), /You have approved it/)
    t.equal(approvals(id), 1)
    t.equal(await stateOf(id), 'approved')
  })

  await t.test('a form of another origin', async t => {
    const id = await request('forged')
    const page = await open(id)
    const digest = await page.locator('input[name=digest]').first().inputValue()
    const server = createServer((_, response) => {
      response.setHeader('content-type', 'text/html')
      response.end(`<form method="post" action="${url}/changes/${id}"><input name="action" value="approve">
        <input name="digest" value="${digest}"><button>Win</button></form>`)
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    t.teardown(() => server.close())
    const { port } = server.address() as AddressInfo
    for (const [origin, site] of [['localhost', 'another site'], ['127.0.0.1', 'the same site']] as const) {
      await page.goto(`http://${origin}:${port}/`)
      await page.getByRole('button', { name: 'Win' }).click()
      await page.waitForURL(`${url}/**`)
      t.match(await page.content(), /does not come from a page of your current sign-in[^]*FORM_NOT_YOURS/, site)
    }
    await isPending(t, id)
  })

  await t.test('a form of this site with the token of somebody else', async t => {
    const id = await request('token')
    const bob = await open(id)
    const carol = await open(id, 'carol')
    const token = await carol.locator('input[name=_csrf]').first().inputValue()
    const digest = await bob.locator('input[name=digest]').first().inputValue()
    const answer = await bob.request.post(`${url}/changes/${id}`, {
      headers: { origin: url }, form: { _csrf: token, action: 'approve', digest },
    })
    t.equal(answer.status(), 403)
    t.match(await answer.text(), 'FORM_NOT_YOURS')
    await isPending(t, id)
  })

  await t.test('the form of another change, or of another plan', async t => {
    const [id, other] = [await request('one'), await request('other')]
    const page = await open(id)
    const token = await page.locator('input[name=_csrf]').first().inputValue()
    const digest = await page.locator('input[name=digest]').first().inputValue()
    const answer = await page.request.post(`${url}/changes/${other}`, {
      headers: { origin: url }, form: { _csrf: token, action: 'approve', digest },
    })
    t.equal(answer.status(), 409)
    t.match(await answer.text(), 'what you saw is not what this change would do')
    await isPending(t, other)
  })

  await t.test('a change that has expired', async t => {
    const id = await request('expired')
    const page = await open(id)
    await etcd.client.delete().key(alive({ subject: 'alice', issuer: provider.issuer, client_id: 'agent' }, id))
    await approve(page).click()
    t.match(await main(page), /Not done: [^]*has expired/)
    t.equal(await approve(page).count(), 0)
    t.match(await main(page), 'State: expired')
  })

  await t.test('a change that has ended elsewhere while the page was open', async t => {
    const id = await request('ended')
    const page = await open(id)
    await call('alice', 'cancel_change', { change_id: id })
    await approve(page).click()
    t.match(await main(page), /Not done: [^]*is cancelled and cannot be approved[^]*State: cancelled/)
    t.strictSame(await violations(browser, page), [])
  })

  await t.test('a decision after the visitor has signed out elsewhere', async t => {
    const id = await request('out')
    const page = await open(id)
    const other = await page.context().newPage()
    await other.goto(page.url())
    await other.getByRole('button', { name: 'Sign out' }).click()
    t.match(await main(other), 'You are signed out here')
    t.strictSame(await violations(browser, other), [])
    await approve(page).click()
    t.match(await main(page), /FORM_NOT_YOURS|SIGN_IN_REQUIRED/)
    await isPending(t, id)
  })

  await t.test('a destructive change whose name was not typed', async t => {
    const topic = await request('doomed')
    const creating = await open(topic)
    await creating.getByRole('button', { name: /Approve and apply/ }).click()
    t.match(await status(creating), 'applied')
    const id = await request('doomed', { tool: 'delete_topic' })
    const page = await open(id)
    t.match(await main(page), /come back when a topic of this name is created again/)
    t.strictSame(await violations(browser, page), [])
    await page.getByLabel(/Type the name/).fill('domed')
    await approve(page).click()
    t.match(await status(page), /the name that you typed is not the one/)
    await isPending(t, id)
    await page.getByLabel(/Type the name/).fill('doomed')
    await page.getByRole('button', { name: /Approve and apply/ }).click()
    t.match(await status(page), 'applied in the name of the requester')
    await waitFor(() => app.metadata.mirror?.topic('doomed')?.info === undefined, 5_000, 'deleted')
  })

  await t.test('a rejection without a comment, and then the approval of what was rejected', async t => {
    const id = await request('rejected')
    const [page, other] = [await open(id), await open(id, 'carol')]
    t.match(await (await force(page, id, 'review')).text(), /cannot be reviewed/)
    await page.getByLabel('Why you reject it').fill('not on a Friday')
    await page.getByRole('button', { name: 'Reject' }).click()
    t.match(await main(page), /You have rejected it[^]*State: rejected[^]*not on a Friday/)
    await approve(other).click()
    t.match(await main(other), /is rejected and cannot be approved/)
    t.match(await call('alice', 'apply_change', { change_id: id }), { isError: true })
  })

  await t.test('neither of two approvers at once: one approval counts, and the other is told', async t => {
    const id = await request('both')
    const pages = [await open(id), await open(id, 'carol')]
    await Promise.all(pages.map(async page => await approve(page).click()))
    t.equal(await stateOf(id), 'approved')
    const said = await Promise.all(pages.map(status))
    t.ok(said.some(text => text.includes('You have approved it.')))
    t.equal(approvals(id), 1)
  })

  await t.test('nothing that another replica would take, also while the key is replaced', async t => {
    const id = await request('replicas')
    const other = await replica()
    const page = await open(id)
    const token = await page.locator('input[name=_csrf]').first().inputValue()
    const digest = await page.locator('input[name=digest]').first().inputValue()
    const answer = await page.request.post(`${other}/changes/${id}`, {
      headers: { origin: url }, form: { _csrf: token, action: 'approve', digest },
    })
    t.match(await answer.text(), 'You have approved it.')
    t.match(await call('alice', 'apply_change', { change_id: id }), { structuredContent: { state: 'applied' } })
  })

  await t.test('to take text from agents for anything but data', async t => {
    const id = await request('glass')
    const reason = '<a href="https://evil.example">https://evil.example</a>\u202e\u200b' + 'x'.repeat(900)
    await call('alice', 'apply_change', { change_id: id, break_glass: { reason, ticket: '<script>' } })
    const page = await open(id)
    const text = await main(page)
    t.match(text, '<a href="https://evil.example">https://evil.example</a>\\u202e\\u200b')
    t.match(text, 'Ticket: ')
    t.strictSame(await page.locator('main a').evaluateAll(links => links.map(link => link.getAttribute('href'))), [])
    t.strictSame(await page.locator('main script').count(), 0)
    t.strictSame(await violations(browser, page), [])
    await page.getByLabel('What you found').fill('justified')
    await page.getByRole('button', { name: 'Mark as reviewed' }).click()
    t.match(await status(page), 'You have reviewed it.')
  })

  await t.test('nothing of the list of changes', async t => {
    const page = await openAs(browser, 'bob', `${url}/changes`)
    t.match(await main(page), /Create the topic both[^]*approved/)
    t.strictSame(await violations(browser, page), [])
    await page.getByLabel('State').selectOption('rejected')
    await page.getByRole('button', { name: 'Show' }).click()
    t.match(await main(page), 'Create the topic rejected')
    t.notMatch(await main(page), 'Create the topic both')
  })
  t.ok(broker.mutations.length > 0)
})
