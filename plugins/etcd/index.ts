import fp from 'fastify-plugin'
import { channelCredentials } from '../../lib/grpc-channel.ts'
import { reveal } from '../config/secret.ts'
import { EtcdConnection } from './connection.ts'

declare module 'fastify' {
  interface FastifyInstance { etcd: EtcdReader }
}

/** Access to etcd. It is read-only: nothing reachable from here writes. */
export interface EtcdReader {
  /**
   * Opens a connection to an endpoint; by default to the next one of the list, so that after a failure another one is
   * tried. Returns at once: an unreachable endpoint shows at the first call. The caller closes the connection.
   */
  connect (endpoint?: string): EtcdConnection
}

export default fp(async function etcd (app) {
  const { etcdEndpoints, etcdUsername, etcdPassword, etcdCaFile, etcdCertFile, etcdKeyFile } = app.config
  const tls = channelCredentials({ caFile: etcdCaFile, certFile: etcdCertFile, keyFile: etcdKeyFile })
  const plain = channelCredentials(undefined)
  const credentials = etcdUsername === undefined || !etcdPassword
    ? undefined
    : { username: etcdUsername, password: reveal(etcdPassword) }

  let next = 0
  app.decorate('etcd', {
    connect (endpoint = etcdEndpoints[next++ % etcdEndpoints.length] as string) {
      return new EtcdConnection(endpoint, endpoint.startsWith('https:') ? tls : plain, credentials)
    }
  })
}, { name: 'etcd', dependencies: ['config'] })
