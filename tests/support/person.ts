/** Somebody in front of a browser: headless Chromium, as Debian has it. */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { type Browser, chromium, type Page } from 'playwright-core'
import type { Teardown } from './run.ts'

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

export async function startBrowser (t: Teardown): Promise<Browser> {
  const browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    // Root cannot have a sandbox.
    args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
  })
  t.teardown(() => browser.close())
  return browser
}

/** Opens a page in a window without cookies, and signs in where that is asked for. JavaScript is off. */
export async function openAs (
  browser: Browser,
  who: string,
  url: string,
  { javaScriptEnabled = false } = {}
): Promise<Page> {
  const context = await browser.newContext({ javaScriptEnabled })
  const page = await context.newPage()
  await page.goto(url)
  await signInAs(page, who)
  return page
}

/** Fills in the form of the provider. */
export async function signInAs (page: Page, who: string): Promise<void> {
  await page.locator('input[name=login]').fill(who)
  await page.getByRole('button', { name: 'Go' }).click()
}

/** What axe-core finds wrong with a page, by the rules for WCAG 2.2 AA and its best practices. */
export async function violations (browser: Browser, page: Page): Promise<string[]> {
  // The page itself forbids scripts, so its document is copied into a window that allows them.
  const context = await browser.newContext({ bypassCSP: true })
  try {
    const copy = await context.newPage()
    await context.addCookies(await page.context().cookies())
    await copy.goto(page.url())
    await copy.evaluate(AXE)
    const found = await copy.evaluate(async () => {
      const { axe } = globalThis as unknown as { axe: { run: () => Promise<{ violations: AxeViolation[] }> } }
      return (await axe.run()).violations
    })
    return found.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`)
  } finally {
    await context.close()
  }
}

interface AxeViolation { id: string, nodes: { html: string }[] }
