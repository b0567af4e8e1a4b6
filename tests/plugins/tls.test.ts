import { copyFileSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import { connect } from 'node:tls'
import t, { type Test } from 'tap'
import type { Principal } from '../../plugins/auth/principal.ts'
import { tlsOptions } from '../../plugins/tls.ts'
import { startAuthApp, staticToken } from '../support/auth.ts'
import { authority } from '../support/authority.ts'
import { waitFor } from '../support/wait-for.ts'

const RELOAD_BOUND_MS = 5_000

function setUp (t: Test) {
  const dir = t.testdir({})
  const ca = authority(dir, 'ca')
  const service = ca.issue('/CN=service-1', 'service')
  return { dir, ca, service, tls: { certFile: service.cert, keyFile: service.key, clientCaFile: undefined } }
}

/** Connects, and returns the common name of the service's certificate. */
function shown (url: string, ca: string): Promise<string> {
  const { hostname, port } = new URL(url)
  return new Promise((resolve, reject) => {
    const socket = connect({ host: hostname, port: Number(port), ca: readFileSync(ca) }, () => {
      resolve(String(socket.getPeerCertificate().subject.CN))
      socket.destroy()
    })
    socket.on('error', reject)
  })
}

function ask (url: string, tls: { ca: string, cert?: string, key?: string }): Promise<Principal> {
  const options = Object.fromEntries(Object.entries(tls).map(([name, file]) => [name, readFileSync(file)]))
  return new Promise((resolve, reject) => {
    const sent = request(
      url,
      { method: 'POST', agent: false, headers: { 'content-length': '0' }, ...options },
      async response => {
        resolve(JSON.parse((await response.toArray()).join('')) as Principal)
      }
    )
    sent.on('error', reject)
    sent.end()
  })
}

t.test('without a certificate the service speaks plain HTTP', async t => {
  t.equal(tlsOptions(undefined), null)
  const { url } = await startAuthApp(t)
  t.match(url, /^http:/)
})

t.test('with a certificate the service speaks TLS, and its resource URL is https', async t => {
  const { ca, tls } = setUp(t)
  const { app, url } = await startAuthApp(t, { config: { tls, auth: staticToken('x'.repeat(32)) } })
  t.match(url, /^https:/)
  t.equal(await shown(url, ca.ca), 'service-1')
  t.equal((await app.inject('/.well-known/oauth-protected-resource')).json<{ resource: string }>().resource, url)
})

t.test('with a client CA clients need a certificate, whose subject is part of the principal', async t => {
  const { dir, ca, tls } = setUp(t)
  const clients = authority(dir, 'clients')
  const agent = clients.issue('/O=Example/OU=Agents/CN=triage', 'agent')
  const stranger = authority(dir, 'strangers').issue('/O=Example/OU=Agents/CN=triage', 'stranger')
  const { url, app } = await startAuthApp(t, { config: { tls: { ...tls, clientCaFile: clients.ca } } })
  t.match(await ask(url, { ca: ca.ca, ...agent }), {
    subject: 'anonymous',
    clientCertificate: 'O=Example, OU=Agents, CN=triage',
  })
  await t.rejects(ask(url, { ca: ca.ca }), 'no certificate')
  await t.rejects(ask(url, { ca: ca.ca, ...stranger }), 'from another CA')
  await t.rejects(
    ask(url, { ca: ca.ca, cert: `${dir}/service.pem`, key: `${dir}/service.key` }),
    "from the CA of the service's certificate"
  )
  t.match((await app.inject({ method: 'POST', url: '/mcp' })).json(), { clientCertificate: null })

  const withoutClientCa = await startAuthApp(t, { config: { tls } })
  t.equal((await ask(withoutClientCa.url, { ca: ca.ca, ...agent })).clientCertificate, null, 'not verified')
})

t.test('the files are reloaded when they change', async t => {
  const { dir, ca, service, tls } = setUp(t)
  const clients = authority(dir, 'clients')
  const caFile = `${dir}/client-ca.pem`
  copyFileSync(clients.ca, caFile)
  const agent = clients.issue('/CN=agent', 'agent')
  const { url, log } = await startAuthApp(t, { config: { tls: { ...tls, clientCaFile: caFile } } })
  t.equal(await shown(url, ca.ca), 'service-1')
  const replace = (file: string, by: string) => {
    copyFileSync(by, `${file}.new`)
    renameSync(`${file}.new`, file)
  }

  const next = ca.issue('/CN=service-2', 'next')
  replace(service.cert, next.cert)
  const refused = () => log().split('the new TLS files are invalid').length - 1
  await waitFor(() => refused() === 1, RELOAD_BOUND_MS, 'a certificate without its key is logged')
  t.equal(await shown(url, ca.ca), 'service-1', 'and changes nothing')
  replace(service.key, next.key)
  await waitFor(async () => await shown(url, ca.ca) === 'service-2', RELOAD_BOUND_MS, 'the new certificate')
  t.match(await ask(url, { ca: ca.ca, ...agent }), { clientCertificate: 'CN=agent' }, 'as before')

  writeFileSync(service.cert, 'garbage')
  await waitFor(() => refused() > 1, RELOAD_BOUND_MS, 'an invalid file is logged')
  t.equal(await shown(url, ca.ca), 'service-2')
  replace(service.cert, next.cert)

  replace(caFile, authority(dir, 'others').ca)
  await waitFor(
    async () => await ask(url, { ca: ca.ca, ...agent }).then(() => 'accepted', () => true),
    RELOAD_BOUND_MS,
    'certificates from the replaced CA are refused'
  )
})
