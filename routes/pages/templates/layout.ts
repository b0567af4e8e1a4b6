import { html } from 'ghtml'
import type { Visitor } from '../session.ts'
import { shown } from './text.ts'

/** What every page needs to know. */
export interface Frame {
  /** The path of `PUBLIC_URL`, without a slash at the end. */
  prefix: string
  visitor: Visitor | undefined
  isAuditor: boolean
  /** The token of forms. */
  csrf: string
  /** The paths of scripts. Only pages that follow something live have any. */
  scripts?: readonly string[]
}

/** A whole page. `body` is HTML. */
export function layout (
  { prefix, visitor, isAuditor, csrf, scripts = [] }: Frame,
  title: string,
  body: string
): string {
  return html`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title} – kafscale-mcp</title>
<link rel="stylesheet" href="${prefix}/changes/style.css">
!${scripts.map(path => html`<script src="${prefix}${path}" defer></script>`)}
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header>
<nav aria-label="Pages">
<a href="${prefix}/changes">Changes</a>
!${isAuditor ? html`<a href="${prefix}/audit">Audit</a>` : ''}
</nav>
!${visitor ? signedIn(prefix, visitor, csrf) : ''}
</header>
<main id="main" tabindex="-1">
!${body}
</main>
<footer>kafscale-mcp. Text from the cluster and from agents is shown as data: \\uXXXX stands for a character that
cannot be seen.</footer>
</body>
</html>
`
}

function signedIn (prefix: string, { principal }: Visitor, csrf: string): string {
  return html`<span>Signed in as <code>${shown(principal.subject, 128)}</code></span>
<form method="post" action="${prefix}/sign-out">
<input type="hidden" name="_csrf" value="${csrf}">
<button>Sign out</button>
</form>`
}
