/** A browser without a screen: keeps cookies, follows redirects, and sends forms as browsers do. */
const MAX_REDIRECTS = 10

export interface Seen { status: number, url: string, text: string, headers: Headers }

export class Visitor {
  /** By host and name. */
  readonly cookies = new Map<string, string>()
  /** Every address that was visited. */
  readonly visited: string[] = []

  async get (url: string, { follow = true }: { follow?: boolean } = {}): Promise<Seen> {
    return await this.#send(url, {}, follow)
  }

  /** Sends a form from a page of `origin`. */
  async post (
    url: string,
    fields: Record<string, string>,
    { origin = new URL(url).origin, follow = true }: { origin?: string, follow?: boolean } = {}
  ): Promise<Seen> {
    return await this.#send(url, {
      method: 'POST',
      headers: { origin, 'sec-fetch-site': origin === new URL(url).origin ? 'same-origin' : 'cross-site' },
      body: new URLSearchParams(fields),
    }, follow)
  }

  /** Opens a page, and signs in at the provider where that is asked for. */
  async signIn (url: string, who: string): Promise<Seen> {
    const seen = await this.get(url)
    return seen.text.includes('name="login"') ? await this.post(seen.url, { login: who }) : seen
  }

  cookie (name: string): string | undefined {
    return [...this.cookies].find(([key]) => key.endsWith(` ${name}`))?.[1]
  }

  async #send (url: string, init: RequestInit, follow: boolean, redirects = 0): Promise<Seen> {
    this.visited.push(url)
    const { host } = new URL(url)
    const cookie = [...this.cookies].filter(([key]) => key.startsWith(`${host} `))
      .map(([key, value]) => `${key.slice(host.length + 1)}=${value}`).join('; ')
    const response = await fetch(url, {
      ...init, redirect: 'manual', headers: { ...init.headers, ...cookie !== '' && { cookie } },
    })
    for (const set of response.headers.getSetCookie()) {
      const [pair = ''] = set.split(';')
      const name = `${host} ${pair.slice(0, pair.indexOf('='))}`
      const value = pair.slice(pair.indexOf('=') + 1)
      if (value === '' || /expires=Thu, 01 Jan 1970/i.test(set)) this.cookies.delete(name)
      else this.cookies.set(name, value)
    }
    const location = response.headers.get('location')
    if (follow && location !== null && response.status >= 300 && response.status < 400) {
      if (redirects === MAX_REDIRECTS) throw new Error(`more than ${MAX_REDIRECTS} redirects`)
      return await this.#send(new URL(location, url).href, {}, true, redirects + 1)
    }
    return { status: response.status, url, text: await response.text(), headers: response.headers }
  }
}

/** The hidden fields of the forms on a page. */
export function fieldsOf ({ text }: Seen): Record<string, string> {
  return Object.fromEntries([...text.matchAll(/<input type="hidden" name="(\w+)" value="([^"]*)"/g)]
    .map(([, name = '', value = '']) => [name, value.replaceAll('&#61;', '=')]))
}

/** The text of a page, without tags. */
export function textOf ({ text }: Seen): string {
  return text.replaceAll(/<[^>]*>/g, '').replaceAll(/&#(\d+);/g, (_, code: string) => String.fromCharCode(Number(code)))
}
