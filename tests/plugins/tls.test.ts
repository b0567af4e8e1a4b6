import { execFileSync } from 'node:child_process'
import { copyFileSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import { connect } from 'node:tls'
import t, { type Test } from 'tap'
import type { Principal } from '../../plugins/auth/principal.ts'
import { tlsOptions } from '../../plugins/tls.ts'
import { startAuthApp, staticToken } from '../support/auth.ts'
import { waitFor } from '../support/wait-for.ts'

const RELOAD_BOUND_MS = 5_000

/** A CA, and certificates that it has signed. */
function authority (dir: string, name: string) {
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: dir, stdio: 'pipe' })
  openssl(
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-keyout',
    `${name}.key`,
    '-out',
    `${name}.pem`,
    '-days',
    '1',
    '-subj',
    `/CN=${name}`
  )
  return {
    ca: `${dir}/${name}.pem`,
    issue (subject: string, file: string) {
      openssl(
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:P-256',
        '-nodes',
        '-keyout',
        `${file}.key`,
        '-out',
        `${file}.pem`,
        '-days',
        '1',
        '-subj',
        subject,
        '-CA',
        `${name}.pem`,
        '-CAkey',
        `${name}.key`,
        '-addext',
        'subjectAltName=IP:127.0.0.1',
        '-addext',
        'basicConstraints=critical,CA:FALSE'
      )
      return { cert: `${dir}/${file}.pem`, key: `${dir}/${file}.key` }
    },
  }
}

function setUp (t: Test) {
  const dir = t.testdir({})
  const ca = authority(dir, 'ca')
  const service = ca.issue('/CN=service-1', 'service')
  return { dir, ca, service, tls: { certFile: service.cert, keyFile: service.key, clientCaFile: undefined } }
}

/** Common name of the certificate that a new connection is shown. */
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

t.test('without a certificate there is no TLS', async t => {
  t.equal(tlsOptions(undefined), null)
  const { url } = await startAuthApp(t)
  t.match(url, /^http:/)
})

t.test('with a certificate the service speaks TLS, and its resource is https', async t => {
  const { ca, tls } = setUp(t)
  const { app, url } = await startAuthApp(t, { config: { tls, auth: staticToken('x'.repeat(32)) } })
  t.match(url, /^https:/)
  t.equal(await shown(url, ca.ca), 'service-1')
  t.equal((await app.inject('/.well-known/oauth-protected-resource')).json<{ resource: string }>().resource, url)
})

t.test("a client's certificate is asked for where there is a CA for it, and its subject stands with the principal", async t => {
  const { dir, ca, tls } = setUp(t)
  const clients = authority(dir, 'clients')
  const agent = clients.issue('/O=Example/OU=Agents/CN=triage', 'agent')
  const stranger = authority(dir, 'strangers').issue('/O=Example/OU=Agents/CN=triage', 'stranger')
  const { url, app } = await startAuthApp(t, { config: { tls: { ...tls, clientCaFile: clients.ca } } })
  t.match(await ask(url, { ca: ca.ca, ...agent }), {
    subject: 'anonymous',
    clientCertificate: 'O=Example, OU=Agents, CN=triage',
  })
  await t.rejects(ask(url, { ca: ca.ca }), 'none')
  await t.rejects(ask(url, { ca: ca.ca, ...stranger }), 'of another CA')
  await t.rejects(
    ask(url, { ca: ca.ca, cert: `${dir}/service.pem`, key: `${dir}/service.key` }),
    "of the service's own CA"
  )
  t.match((await app.inject({ method: 'POST', url: '/mcp' })).json(), { clientCertificate: null })

  const unasked = await startAuthApp(t, { config: { tls } })
  t.equal((await ask(unasked.url, { ca: ca.ca, ...agent })).clientCertificate, null, 'nobody has checked it')
})

t.test('the files are read anew when they change', async t => {
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
  await waitFor(() => log().includes('the new TLS files are invalid'), RELOAD_BOUND_MS, 'a certificate without its key is told of')
  t.equal(await shown(url, ca.ca), 'service-1', 'and changes nothing')
  replace(service.key, next.key)
  await waitFor(async () => await shown(url, ca.ca) === 'service-2', RELOAD_BOUND_MS, 'the new certificate')
  t.match(await ask(url, { ca: ca.ca, ...agent }), { clientCertificate: 'CN=agent' }, 'clients are still asked')

  writeFileSync(service.cert, 'garbage')
  await waitFor(() => log().split('the new TLS files are invalid').length > 2, RELOAD_BOUND_MS, 'garbage is told of')
  t.equal(await shown(url, ca.ca), 'service-2')
  replace(service.cert, next.cert)

  replace(caFile, authority(dir, 'others').ca)
  await waitFor(
    async () => await ask(url, { ca: ca.ca, ...agent }).then(() => 'accepted', () => true),
    RELOAD_BOUND_MS,
    'clients of a CA that is gone'
  )
})
