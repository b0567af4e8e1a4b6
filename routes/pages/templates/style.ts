/** The stylesheet of all pages. Its colors have a contrast of at least 4.5 to 1 (WCAG AA). */
export const STYLE = `
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; font: 1rem/1.5 system-ui, sans-serif; color: #1b1f24; background: #fff; }
header, main, footer { max-width: 60rem; margin: 0 auto; padding: 0.75rem 1rem; }
header { display: flex; flex-wrap: wrap; gap: 0.5rem 1.5rem; align-items: center; border-bottom: 1px solid #8c959f; }
header nav { display: flex; gap: 1rem; flex: 1; }
header form { margin: 0; }
h1 { font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 1.75rem 0 0.5rem; }
a { color: #0550ae; }
a:focus-visible, button:focus-visible, input:focus-visible, textarea:focus-visible, select:focus-visible,
summary:focus-visible, [tabindex]:focus-visible { outline: 3px solid #0550ae; outline-offset: 2px; }
.skip { position: absolute; left: -999rem; }
.skip:focus { position: static; }
code, td, dd, .data { overflow-wrap: anywhere; }
code, .data { font-family: ui-monospace, monospace; font-size: 0.95em; white-space: pre-wrap; }
dl { display: grid; grid-template-columns: minmax(8rem, 14rem) 1fr; gap: 0.25rem 1rem; margin: 0; }
dt { font-weight: 600; }
dd { margin: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.35rem 0.6rem; border: 1px solid #8c959f; }
th { background: #f6f8fa; }
.environment { display: block; padding: 0.5rem 0.75rem; margin: 0.75rem 0; font-weight: 600; color: #fff; }
.environment.production { background: #a40e26; }
.environment.staging { background: #7a4d00; }
.environment.development { background: #116329; }
.environment.other { background: #0a3069; }
.note { padding: 0.5rem 0.75rem; margin: 0.75rem 0; border-left: 0.4rem solid #0550ae; background: #eef4fc; }
.note.bad { border-color: #a40e26; background: #fdeeee; }
.note.good { border-color: #116329; background: #eaf6ec; }
.note p { margin: 0.25rem 0; }
form.decision { border: 1px solid #8c959f; padding: 0.75rem; margin: 0.75rem 0; }
label { display: block; font-weight: 600; margin-top: 0.5rem; }
input[type=text], textarea, select { width: 100%; max-width: 40rem; font: inherit; padding: 0.4rem; color: #1b1f24;
  background: #fff; border: 1px solid #57606a; border-radius: 0.25rem; }
button { font: inherit; padding: 0.5rem 1rem; margin: 0.75rem 0.5rem 0 0; border: 1px solid #1b1f24; cursor: pointer;
  border-radius: 0.25rem; background: #f6f8fa; color: #1b1f24; min-height: 2.75rem; }
button.go { background: #116329; border-color: #116329; color: #fff; }
button.stop { background: #a40e26; border-color: #a40e26; color: #fff; }
header button { margin: 0; }
footer { color: #57606a; font-size: 0.9rem; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: 0.5rem; } button { width: 100%; } }
`
