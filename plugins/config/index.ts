import fp from 'fastify-plugin'
import type { Config } from './read.ts'

declare module 'fastify' {
  interface FastifyInstance { config: Config }
}

/** Decorates `app.config` and logs the configuration's warnings. */
export default fp(async function config (app, { config }: { config: Config }) {
  app.decorate('config', config)
  for (const warning of config.warnings) app.log.warn(warning)
}, { name: 'config' })
