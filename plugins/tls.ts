import { readFileSync } from 'node:fs'
import type { ServerOptions } from 'node:https'
import type { Socket } from 'node:net'
import { type SecureContextOptions, Server, TLSSocket } from 'node:tls'
import fp from 'fastify-plugin'
import { watchFile } from '../lib/watched-file.ts'
import type { TlsFiles } from './config/read.ts'

/** Fastify's `https` option, null without TLS. With a client CA, a client needs a certificate from it to connect. */
export function tlsOptions (files: TlsFiles | undefined): ServerOptions | null {
  if (!files) return null
  const requestCert = files.clientCaFile !== undefined
  return { ...secureContext(files), requestCert, rejectUnauthorized: requestCert }
}

/** Reloads the TLS files when one changes, for new connections. If they do not fit together, the old ones stay. */
export default fp(async function tls (app) {
  const { config: { tls: files }, server } = app
  if (!files || !(server instanceof Server)) return
  const closing = new AbortController()
  app.addHook('onClose', async () => closing.abort())
  const reload = () => {
    try {
      server.setSecureContext(secureContext(files))
      app.log.info('the TLS files have been reloaded')
    } catch (error) {
      app.log.error({ reason: (error as Error).message }, 'the new TLS files are invalid: the old ones stay in use')
    }
  }
  for (const file of Object.values(files)) {
    if (file !== undefined) void watchFile(file, readFileSync(file), reload, closing.signal)
  }
}, { name: 'tls', dependencies: ['config'] })

/** The subject of the client's certificate, such as `O=Example, CN=agent`; null without one. */
export function clientCertificate (socket: Socket): string | null {
  const known = subjects.get(socket)
  if (known !== undefined) return known
  const subject = socket instanceof TLSSocket
    ? socket.getPeerX509Certificate()?.subject.replaceAll('\n', ', ') ?? null
    : null
  subjects.set(socket, subject)
  return subject
}

const subjects = new WeakMap<Socket, string | null>()

function secureContext ({ certFile, keyFile, clientCaFile }: TlsFiles): SecureContextOptions {
  return {
    cert: readFileSync(certFile),
    key: readFileSync(keyFile),
    ...clientCaFile !== undefined && { ca: readFileSync(clientCaFile) },
  }
}
