import { readFileSync } from 'node:fs'
import * as grpc from '@grpc/grpc-js'
import fp from 'fastify-plugin'
import { reveal } from '../config/secret.ts'
import { EtcdConnection } from './connection.ts'

declare module 'fastify' {
  interface FastifyInstance { etcd: EtcdReader }
}

/** The way to etcd. It reads: no method of it, or of what it opens, writes. */
export interface EtcdReader {
  /**
   * Opens a connection to one endpoint, the next of the list at each call, so that who gives up on one gets another. It
   * returns at once: whether the endpoint answers shows at the first call. The caller closes it.
   */
  connect (): EtcdConnection
}

export default fp(async function etcd (app) {
  const { etcdEndpoints, etcdUsername, etcdPassword, etcdCaFile, etcdCertFile, etcdKeyFile } = app.config
  const read = (path: string | undefined) => path === undefined ? null : readFileSync(path)
  const tls = grpc.credentials.createSsl(read(etcdCaFile), read(etcdKeyFile), read(etcdCertFile))
  const plain = grpc.credentials.createInsecure()
  const credentials = etcdUsername === undefined || !etcdPassword
    ? undefined
    : { username: etcdUsername, password: reveal(etcdPassword) }

  let next = 0
  app.decorate('etcd', {
    connect () {
      const endpoint = etcdEndpoints[next++ % etcdEndpoints.length] as string
      return new EtcdConnection(endpoint, endpoint.startsWith('https:') ? tls : plain, credentials)
    }
  })
}, { name: 'etcd', dependencies: ['config'] })
