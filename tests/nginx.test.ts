/** The service behind nginx, below a path, as docs/install.md configures it. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'
import t, { type Test } from 'tap'
import { fetchFrom } from './support/browser.ts'
import { readPage } from './support/pages.ts'
import { exists } from './support/programs.ts'
import { temporaryFolder } from './support/run.ts'
import { buildTestApp, legacy, modern } from './support/service.ts'
import { waitFor } from './support/wait-for.ts'

const START_BOUND_MS = 5_000
const TOKEN = 'hunter2'.repeat(5)
const documented = readPage('install.md').block('nginx prefix')

const needsNginx = () => ({ skip: exists('nginx') ? false : 'there is no nginx' })

/** The service on one free port, and nginx with a configuration of a server on another. Returns the public URL. */
async function startBehindNginx (t: Test, configuration: string): Promise<string> {
  const port = await freePort()
  const publicUrl = `http://127.0.0.1:${port}/kafscale`
  const dir = temporaryFolder(t)
  const app = await buildTestApp(t, {
    KAFSCALE_MCP_PUBLIC_URL: publicUrl,
    KAFSCALE_MCP_ALLOWED_ORIGINS: 'https://app.example',
    KAFSCALE_MCP_TRUSTED_PROXIES: '127.0.0.1',
    KAFSCALE_MCP_AUTH_TOKEN: TOKEN,
    KAFSCALE_MCP_AUDIT_SINKS: `file:${dir}/audit.jsonl`,
  })
  await app.listen({ port: 0, host: '127.0.0.1' })
  const location = configuration.replaceAll('http://127.0.0.1:8090', app.listeningOrigin)
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  writeFileSync(`${dir}/nginx.conf`, `
    daemon off;
    master_process off;
    pid ${dir}/nginx.pid;
    error_log ${dir}/error.log;
    events {}
    http {
      access_log off;
      ${temporary.map(name => `${name}_temp_path ${dir}/${name};`).join(' ')}
      server { listen 127.0.0.1:${port}; ${location} }
    }
  `)
  const nginx = spawn('nginx', ['-p', dir, '-e', `${dir}/error.log`, '-c', `${dir}/nginx.conf`], { stdio: 'ignore' })
  const exit = once(nginx, 'exit')
  t.teardown(async () => {
    nginx.kill('SIGKILL')
    await exit
  })
  await waitFor(() => accepts(port), START_BOUND_MS, 'nginx listens')
  return publicUrl
}

async function freePort (): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

async function accepts (port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  return await Promise.race([once(socket, 'connect').then(() => true), once(socket, 'error').then(() => false)])
    .catch(() => false).finally(() => socket.destroy())
}

const configurations = {
  'leaves the path in place': documented,
  'strips the path': documented.replace(/(proxy_pass [^;]+);/, '$1/;'),
}

for (const [does, configuration] of Object.entries(configurations)) {
  t.test(`a client needs one rule of a proxy that ${does}`, needsNginx(), async t => {
    const url = await startBehindNginx(t, configuration)
    for (const form of [modern, legacy]) {
      const { headers, payload } = form('tools/list')
      const refused = await fetch(`${url}/mcp`, { method: 'POST', headers, body: JSON.stringify(payload) })
      t.equal(refused.status, 401)
      const [, metadata = ''] = /resource_metadata="([^"]+)"/.exec(refused.headers.get('www-authenticate') ?? '') ?? []
      t.equal(metadata, `${url}/.well-known/oauth-protected-resource/mcp`)
      t.match(await (await fetch(metadata)).json(), { resource: `${url}/mcp` })
    }

    const requestInit = { headers: { authorization: `Bearer ${TOKEN}` } }
    const client = new Client({ name: 'test', version: '1' })
    await client.connect(new StreamableHTTPClientTransport(new URL(`${url}/mcp`), { requestInit }))
    t.match((await client.listTools()).tools, [{ name: String }])
    await client.close()

    const { headers, payload } = modern('tools/list')
    t.match(await fetchFrom('https://app.example', `${url}/mcp`, {
      method: 'POST',
      headers: { ...headers, ...requestInit.headers },
      body: JSON.stringify(payload),
    }), { status: 200 }, 'a page in a browser')
    const accept = 'text/event-stream'
    const stream = await fetch(`${url}/audit/stream`, { headers: { accept, ...requestInit.headers } })
    t.match(await stream.text(), /requires the role auditor/)
    t.equal((await fetch(new URL('/mcp', url), { method: 'POST' })).status, 404, 'nothing else is routed')
  })
}

t.test('the path is optional in front of the service itself, and no other path is', async t => {
  const app = await buildTestApp(t, { KAFSCALE_MCP_PUBLIC_URL: 'https://example.com/a/b' })
  const statusOf = async (url: string) => (await app.inject({ ...modern('tools/list'), url })).statusCode
  for (const url of ['/mcp', '/a/b/mcp', '/a/b/mcp/', '/a/b/mcp?x=/a/b/']) t.equal(await statusOf(url), 200, url)
  for (const url of ['/a/mcp', '/a/b', '/a/bmcp', '/a/b/a/b/mcp', '/b/mcp', '/A/b/mcp']) {
    t.equal(await statusOf(url), 404, url)
  }
})
