import { readFileSync } from 'node:fs'
import type { ServerOptions } from 'node:https'
import type { Socket } from 'node:net'
import { type SecureContextOptions, Server, TLSSocket } from 'node:tls'
import fp from 'fastify-plugin'
import { watchFile } from '../lib/watched-file.ts'

/** PEM files of the service's certificate and key, and of the CA whose clients may connect. */
export interface TlsFiles {
  readonly tlsCertFile?: string | undefined
  readonly tlsKeyFile?: string | undefined
  readonly tlsClientCaFile?: string | undefined
}

/** What Fastify takes as `https`; `null` without a certificate. With a client CA, who has no certificate of it does not connect. */
export function tlsOptions (files: TlsFiles): ServerOptions | null {
  if (files.tlsCertFile === undefined) return null
  const asked = files.tlsClientCaFile !== undefined
  return { ...secureContext(files), requestCert: asked, rejectUnauthorized: asked }
}

/** Serves new connections with the files' new content when they change. One that doesn't fit together is not taken. */
export default fp(async function tls (app) {
  const { tlsCertFile, tlsKeyFile, tlsClientCaFile } = app.config
  const { server } = app
  if (!(server instanceof Server)) return
  const closing = new AbortController()
  app.addHook('onClose', async () => closing.abort())
  for (const file of [tlsCertFile, tlsKeyFile, tlsClientCaFile]) {
    if (file !== undefined) void watchFile(file, readFileSync(file), reload, closing.signal)
  }

  function reload (): void {
    try {
      (server as unknown as Server).setSecureContext(secureContext(app.config))
      app.log.info('the TLS files have been read anew')
    } catch (error) {
      app.log.error({ reason: (error as Error).message }, 'the new TLS files are not taken: the old ones stay')
    }
  }
}, { name: 'tls', dependencies: ['config'] })

/** The subject of the certificate that a client has shown, such as `O=Example, CN=agent`. */
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

function secureContext ({ tlsCertFile, tlsKeyFile, tlsClientCaFile }: TlsFiles): SecureContextOptions {
  const cert = readFileSync(tlsCertFile as string)
  const key = readFileSync(tlsKeyFile as string)
  return { cert, key, ...tlsClientCaFile !== undefined && { ca: readFileSync(tlsClientCaFile) } }
}
