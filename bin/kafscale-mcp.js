#!/usr/bin/env node
// What `npx kafscale-mcp` starts: the service, or one of its tools. Plain JavaScript, which an older Node.js can read too
// and then say what it is missing.
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const [major, minor] = process.versions.node.split('.').map(Number)
if (major < 22 || (major === 22 && minor < 22)) {
  process.stderr.write(`kafscale-mcp needs Node.js 22.22 or newer, and this is ${process.versions.node}.\n`)
  process.exit(2)
}

// As `npm start` and the image have them: they keep the heap small, and are only heeded when a process begins.
const V8_OPTIONS = ['--max-semi-space-size=8', '--heap-growing-percent=40']

const USAGE = `Usage:
  kafscale-mcp             runs the service, as the variables of its environment say
  kafscale-mcp token …     makes keys and short-lived tokens
  kafscale-mcp audit …     verifies and shows audit files
token and audit have a --help of their own.
`

const [command, ...options] = process.argv.slice(2)
switch (command) {
  case undefined: await serve(); break
  case 'token': process.exitCode = await (await import(locate('cli/token'))).token(options); break
  case 'audit': process.exitCode = await (await import(locate('cli/audit'))).audit(options); break
  case '--help': case '-h': process.stdout.write(USAGE); break
  default:
    process.stderr.write(`kafscale-mcp: there is no command ${JSON.stringify(command)}\n${USAGE}`)
    process.exitCode = 2
}

/** Goes on as the service: the same process, begun anew with its options. Windows has no such thing, and goes without. */
async function serve () {
  const server = locate('server')
  if (process.platform !== 'win32') {
    process.execve(process.execPath, [process.execPath, ...V8_OPTIONS, ...process.execArgv, fileURLToPath(server)])
  }
  await import(server)
}

/** A module of the service: as it was built where it was, else its source. */
function locate (name) {
  const built = new URL(`../dist/${name}.js`, import.meta.url)
  return existsSync(built) ? built : new URL(`../${name}.ts`, import.meta.url)
}
