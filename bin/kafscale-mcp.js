#!/usr/bin/env node
// Starts the service, or one of its commands, for `npx kafscale-mcp`, `npm start` and the image. Plain JavaScript, so
// that an older Node.js can run it and report what it lacks.
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const [major, minor] = process.versions.node.split('.').map(Number)
if (major < 22 || (major === 22 && minor < 22)) {
  process.stderr.write(`kafscale-mcp needs Node.js 22.22 or newer, and this is ${process.versions.node}.\n`)
  process.exit(2)
}

// They keep the heap small. V8 accepts them only when a process starts.
const V8_OPTIONS = ['--max-semi-space-size=8', '--heap-growing-percent=40']

const USAGE = `Usage:
  kafscale-mcp             runs the service, configured by environment variables
  kafscale-mcp stdio       serves the tools over standard input and output, to a client on this machine
  kafscale-mcp check       reports whether the service, or stdio, can start and work with its environment variables
  kafscale-mcp token …     makes keys and short-lived tokens
  kafscale-mcp audit …     verifies and shows audit files

Options of the service:
  --exit-with PID          shuts down when the process with this ID ends

stdio, check, token and audit have a --help of their own. Every command takes --version.
`

const [command, ...options] = process.argv.slice(2)
if (['check', 'token', 'audit'].includes(command)) process.stdout.on('error', onOutputError)
const isKnown = [undefined, '--exit-with', '--version', 'stdio', 'check', 'token', 'audit'].includes(command)
switch (isKnown && process.argv.includes('--version') ? '--version' : command) {
  case undefined: case '--exit-with': await serve(); break
  case '--version': process.stdout.write(`${version()}\n`); break
  case 'stdio': process.exitCode = await (await import(locate('cli/stdio'))).stdio(options); break
  case 'check': process.exitCode = await (await import(locate('cli/check'))).check(options); break
  case 'token': process.exitCode = await (await import(locate('cli/token'))).token(options); break
  case 'audit': await audit(); break
  case '--help': case '-h': process.stdout.write(USAGE); break
  default:
    process.stderr.write(`kafscale-mcp: unknown command ${JSON.stringify(command)}\n${USAGE}`)
    process.exitCode = 2
}

/** Replaces this process by the service, with V8's options. Windows cannot, so there the service runs without them. */
async function serve () {
  const server = locate('server')
  if (process.platform !== 'win32') {
    process.execve(process.execPath, [
      process.execPath, ...V8_OPTIONS, ...process.execArgv, fileURLToPath(server), ...process.argv.slice(2),
    ])
  }
  await import(server)
}

/** A reader that has seen enough, as in `check | head -1`, changes neither what a command does nor its exit code. */
function onOutputError ({ code, message }) {
  if (code === 'EPIPE') return
  process.stderr.write(`kafscale-mcp: cannot write to standard output: ${message}\n`)
  process.exit(2)
}

function version () {
  return JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')).version
}

/** Reads large logs with V8's options too, which a process only gets when it starts. */
async function audit () {
  if (process.platform !== 'win32' && !process.execArgv.includes(V8_OPTIONS[0])) {
    process.execve(process.execPath, [process.execPath, ...V8_OPTIONS, ...process.execArgv, ...process.argv.slice(1)])
  }
  process.exitCode = await (await import(locate('cli/audit'))).audit(options)
}

/** A module of the service: its source in a checkout, which may also have an outdated build, else the build. */
function locate (name) {
  const source = new URL(`../${name}.ts`, import.meta.url)
  return existsSync(source) ? source : new URL(`../dist/${name}.js`, import.meta.url)
}
