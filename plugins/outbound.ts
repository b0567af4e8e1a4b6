/** Requests to services that the operator names: token issuers and audit collectors. Neither etcd nor brokers. */
import { once } from 'node:events'
import { Agent, type AgentOptions, type IncomingMessage, request as httpRequest } from 'node:http'
import { Agent as TlsAgent, request as httpsRequest } from 'node:https'
import { buffer } from 'node:stream/consumers'
import type { Proxies } from './config/proxies.ts'
import type { Config } from './config/read.ts'
import { reveal } from './config/secret.ts'

/** Statuses of answers without a body. */
const WITHOUT_BODY = [204, 205, 304]

/** Options of an agent with which requests to a URL go through the proxy that is configured for it, if any. */
export function proxyOptions ({ proxies }: Pick<Config, 'proxies'>, url: string | URL): AgentOptions {
  const { protocol } = new URL(url)
  const proxy = proxies && proxyFor(proxies, new URL(url))
  if (!proxy) return {}
  return { proxyEnv: protocol === 'https:' ? { HTTPS_PROXY: proxy } : { HTTP_PROXY: proxy } }
}

/** `fetch`, through the proxies. It follows no redirects where it uses one. */
export function fetchOutbound (config: Pick<Config, 'proxies'>): typeof fetch {
  const { proxies } = config
  if (!proxies) return fetch
  const agents: Record<string, Agent> = {}
  return async (input, init) => {
    const url = new URL(input instanceof Request ? input.url : input)
    if (!proxyFor(proxies, url)) return await fetch(input, init)
    const options = { keepAlive: true, ...proxyOptions(config, url) }
    agents[url.protocol] ??= url.protocol === 'https:' ? new TlsAgent(options) : new Agent(options)
    return await fetchWith(agents[url.protocol] as Agent, new Request(input, init))
  }
}

function proxyFor ({ http, https, bypasses }: Proxies, url: URL): string | undefined {
  const proxy = url.protocol === 'https:' ? https : http
  return proxy && !bypasses(url) ? reveal(proxy) : undefined
}

/** Node.js gives its own `fetch` a proxy for the whole process only. Fails as `fetch` does. */
async function fetchWith (agent: Agent, request: Request): Promise<Response> {
  const { url, method, headers, signal } = request
  try {
    const outgoing = (url.startsWith('https:') ? httpsRequest : httpRequest)(url, {
      agent,
      method,
      headers: Object.fromEntries(headers),
      signal,
    })
    outgoing.end(Buffer.from(await request.arrayBuffer()))
    const [incoming] = await once(outgoing, 'response') as [IncomingMessage]
    const { statusCode: status = 0, headersDistinct } = incoming
    const answered = new Headers()
    for (const [name, values = []] of Object.entries(headersDistinct)) {
      for (const value of values) answered.append(name, value)
    }
    // Read here, so that an answer that breaks off fails like one that does not come.
    const body = new Uint8Array(await buffer(incoming))
    return new Response(WITHOUT_BODY.includes(status) ? null : body, { status, headers: answered })
  } catch (error) {
    throw signal.aborted ? signal.reason : new TypeError('fetch failed', { cause: error })
  }
}
