// `helm test` runs this script in the service's own image. The service must be healthy, refuse a call without a token,
// and answer one with the token, if the release has one.
import { readFileSync } from 'node:fs'
import * as http from 'node:http'
import * as https from 'node:https'

const { URL: base, HOST: host, TOKEN_FILE: tokenFile, CERTIFICATE_FILE: certificateFile } = process.env
const token = tokenFile && readFileSync(tokenFile, 'utf8').trim()
// Pins the service's own certificate, regardless of its issuer and host name.
const tls = certificateFile &&
  { ca: readFileSync(certificateFile), allowPartialTrustChain: true, checkServerIdentity: () => undefined }

const health = await ask('GET', '/healthz')
expect(health.status === 200, 'GET /healthz', health)

const stranger = await callTool()
expect(stranger.status === 401, 'a call without a token', stranger)

if (token) {
  const answer = await callTool({ authorization: `Bearer ${token}` })
  expect(answer.status === 200 && JSON.parse(answer.body).result?.isError !== true, 'cluster_status', answer)
}

function callTool (headers) {
  const message = { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'cluster_status', arguments: {} } }
  const usual = {
    'content-type': 'application/json',
    accept: 'application/json, text/event-stream',
    'mcp-protocol-version': '2025-11-25',
  }
  return ask('POST', '/mcp', { ...usual, ...headers }, JSON.stringify(message))
}

function ask (method, path, headers, body) {
  const { promise, resolve, reject } = Promise.withResolvers()
  const request = (certificateFile ? https : http).request(`${base}${path}`, {
    method,
    headers: { ...headers, ...host && { host } },
    timeout: 10_000,
    ...tls,
  })
  request.on('error', reject).on(
    'timeout',
    () => request.destroy(new Error(`${method} ${path}: no response within 10 s`))
  )
  request.on('response', async response => {
    const chunks = await response.toArray()
    resolve({ status: response.statusCode, body: Buffer.concat(chunks).toString() })
  }).end(body)
  return promise
}

function expect (holds, what, { status, body }) {
  console.log(`${holds ? 'ok' : 'not ok'}: ${what}: ${status}`)
  if (holds) return
  console.log(body)
  process.exit(1)
}
