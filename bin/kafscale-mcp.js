#!/usr/bin/env node
// What `npx kafscale-mcp` starts: the service, or one of its tools. Plain JavaScript, which an older Node.js can read too
// and then say what it is missing.
import { existsSync } from 'node:fs'

const [major, minor] = process.versions.node.split('.').map(Number)
if (major < 22 || (major === 22 && minor < 22)) {
  process.stderr.write(`kafscale-mcp needs Node.js 22.22 or newer, and this is ${process.versions.node}.\n`)
  process.exit(2)
}

const USAGE = `Usage:
  kafscale-mcp             runs the service, as the variables of its environment say
  kafscale-mcp token …     makes keys and short-lived tokens
  kafscale-mcp audit …     verifies and shows audit files
token and audit have a --help of their own.
`

const [command, ...options] = process.argv.slice(2)
switch (command) {
  case undefined: await load('server'); break
  case 'token': process.exitCode = await (await load('cli/token')).token(options); break
  case 'audit': process.exitCode = await (await load('cli/audit')).audit(options); break
  case '--help': case '-h': process.stdout.write(USAGE); break
  default:
    process.stderr.write(`kafscale-mcp: there is no command ${JSON.stringify(command)}\n${USAGE}`)
    process.exitCode = 2
}

/** A module of the service: as it was built where it was, else its source. */
function load (name) {
  const built = new URL(`../dist/${name}.js`, import.meta.url)
  return import(existsSync(built) ? built : new URL(`../${name}.ts`, import.meta.url))
}
