/** What a page gets when it calls another origin: as a browser decides it by the Fetch standard, and in Chromium. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { exists } from './programs.ts'
import { type Teardown, temporaryFolder } from './run.ts'
import { waitFor } from './wait-for.ts'

const PAGE_BOUND_MS = 20_000
const SAFE_METHODS = ['GET', 'HEAD', 'POST']
const SAFE_HEADERS = ['accept', 'accept-language', 'content-language']
const SAFE_RESPONSE_HEADERS = ['cache-control', 'content-language', 'content-length', 'content-type', 'expires']

export interface PageRequest { method?: string, headers?: Record<string, string>, body?: string }
/** What the page can read; `blocked` is what `fetch` rejects for. */
export type PageAnswer = { status: number, headers: Record<string, string>, body: string } | { blocked: string }

/** Sends a request as a page of `origin` would, with its preflight request. */
export async function fetchFrom (origin: string, url: string, request: PageRequest = {}): Promise<PageAnswer> {
  const { method = 'GET', headers = {}, body } = request
  const names = Object.keys(headers).map(name => name.toLowerCase()).sort()
  const unsafe = names.filter(name => !SAFE_HEADERS.includes(name))
  if (!SAFE_METHODS.includes(method) || unsafe.length > 0) {
    const preflight = await fetch(url, {
      method: 'OPTIONS',
      headers: {
        origin,
        'access-control-request-method': method,
        ...unsafe.length > 0 && { 'access-control-request-headers': unsafe.join(',') },
      },
    })
    const listed = (name: string) => (preflight.headers.get(name) ?? '').toLowerCase().split(/ *, */)
    const allowed = preflight.headers.get('access-control-allow-origin')
    if (allowed !== origin) return { blocked: `preflight: origin ${origin}` }
    if (!preflight.ok) return { blocked: `preflight: status ${preflight.status}` }
    if (!SAFE_METHODS.includes(method) && !listed('access-control-allow-methods').includes(method.toLowerCase())) {
      return { blocked: `preflight: method ${method}` }
    }
    const refused = unsafe.find(name => !listed('access-control-allow-headers').includes(name))
    if (refused !== undefined) return { blocked: `preflight: header ${refused}` }
  }
  const response = await fetch(url, { method, headers: { ...headers, origin }, ...body !== undefined && { body } })
  if (response.headers.get('access-control-allow-origin') !== origin) return { blocked: `origin ${origin}` }
  const exposed = (response.headers.get('access-control-expose-headers') ?? '').toLowerCase().split(/ *, */)
  const readable = [...response.headers].filter(([name]) => [...SAFE_RESPONSE_HEADERS, ...exposed].includes(name))
  return { status: response.status, headers: Object.fromEntries(readable), body: await response.text() }
}

export const needsChromium = () => ({ skip: exists('chromium') ? false : 'there is no Chromium' })

/** Runs requests one after another in a page of Chromium, whose origin is a free port of loopback. */
export async function fetchInChromium (
  t: Teardown,
  requests: (PageRequest & { url: string })[]
): Promise<{ origin: string, answers: PageAnswer[] }> {
  let reported: string | undefined
  const server = createServer(async (request, response) => {
    if (request.method === 'POST') reported = await text(request)
    response.setHeader('content-type', 'text/html')
    response.end(`<script>(${page})(${JSON.stringify(requests)})</script>`)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const options = [
    '--headless',
    '--no-sandbox', // which root cannot have
    '--disable-gpu',
    '--disable-dev-shm-usage',
    '--no-first-run',
    `--user-data-dir=${temporaryFolder(t)}`,
  ]
  const chromium = spawn('chromium', [...options, origin], { stdio: 'ignore', detached: true })
  const exit = once(chromium, 'exit')
  t.teardown(async () => {
    // Its whole group: Chromium has many processes.
    process.kill(-Number(chromium.pid), 'SIGKILL')
    await exit
    server.closeAllConnections()
    server.close()
  })
  await waitFor(() => reported !== undefined || reported, PAGE_BOUND_MS, 'the page has reported')
  return { origin, answers: JSON.parse(String(reported)) }
}

/** Runs in the page, so it must not refer to anything else. */
async function page (requests: (PageRequest & { url: string })[]): Promise<void> {
  const answers: PageAnswer[] = []
  for (const { url, ...request } of requests) {
    try {
      const response = await fetch(url, request)
      const { status, headers } = response
      answers.push({ status, headers: Object.fromEntries(headers), body: await response.text() })
    } catch (error) {
      answers.push({ blocked: String(error) })
    }
  }
  await fetch('/', { method: 'POST', body: JSON.stringify(answers) })
}
