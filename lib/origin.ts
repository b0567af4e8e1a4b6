import { withoutDot } from './address.ts'

/** Schemes of URLs, other than http and https, that have a host but no pages. */
const WITHOUT_PAGES = ['file:', 'ftp:', 'ws:', 'wss:']

/**
 * A web origin, or that of an app, such as `tauri://localhost`, in one spelling: in lower case, without the default port
 * and without a dot at the end of the host. Undefined for what is not an origin, such as `null` or a URL with a path.
 */
export function originOf (text: string): string | undefined {
  const url = URL.parse(text)
  if (!url || url.hostname === '' || WITHOUT_PAGES.includes(url.protocol)) return undefined
  if (url.username !== '' || url.password !== '') return undefined
  if (`${url.pathname}${url.search}${url.hash}`.length > 1) return undefined
  const port = url.port === '' ? '' : `:${url.port}`
  return `${url.protocol}//${withoutDot(url.hostname.toLowerCase())}${port}`
}

/** Every origin of an app's scheme, such as `vscode-webview://*`; undefined for other wildcards, which match nothing. */
export function originsOfApp (text: string): string | undefined {
  const [, scheme = ''] = /^([a-z][a-z0-9+.-]*:)\/\/\*$/.exec(text.toLowerCase()) ?? []
  return ['', 'http:', 'https:', ...WITHOUT_PAGES].includes(scheme) ? undefined : `${scheme}//*`
}

/** Whether a list of origins in the spelling of {@link originOf} and {@link originsOfApp} has an origin. */
export function includesOrigin (origins: readonly string[], origin: string): boolean {
  const spelled = originOf(origin)
  return spelled !== undefined &&
    (origins.includes(spelled) || origins.includes(spelled.replace(/\/\/.*/, '//*')))
}
