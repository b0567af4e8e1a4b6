import type { FastifyInstance, FastifyReply } from 'fastify'
import fp from 'fastify-plugin'

/**
 * Answers requests for paths that do not exist, before anything of their body is read: nobody has to authenticate to
 * send them.
 */
export default fp(async function notFound (app: FastifyInstance) {
  app.addHook('onRequest', async (request, reply) => {
    if (request.is404) return refuse(reply.header('connection', 'close'))
  })
  app.setNotFoundHandler(async (_, reply) => refuse(reply))
})

function refuse (reply: FastifyReply): FastifyReply {
  return reply.code(404).send({ statusCode: 404, error: 'Not Found' })
}
