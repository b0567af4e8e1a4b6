/**
 * Appends where each socket of this process connects to, as `host:port`, to the file in `RECORDED_CONNECTIONS`, and the
 * URL of each module that it loads to the file in `RECORDED_MODULES`. Loaded with `--import` before a program.
 */
import { appendFileSync } from 'node:fs'
import { registerHooks } from 'node:module'
import { type NetConnectOpts, Socket } from 'node:net'

const file = process.env['RECORDED_CONNECTIONS'] as string
const modules = process.env['RECORDED_MODULES'] as string

registerHooks({
  load (url, context, nextLoad) {
    appendFileSync(modules, `${url}\n`)
    return nextLoad(url, context)
  },
})

const connect = Reflect.get(Socket.prototype, 'connect') as (this: Socket, ...args: unknown[]) => Socket

Socket.prototype.connect = function (this: Socket, ...args: unknown[]): Socket {
  // Node.js passes its own calls on as an array of options and a listener.
  const [first, second] = args.flat() as [NetConnectOpts | number | string, unknown]
  const { host, port, path } = typeof first === 'object'
    ? first as { host?: string, port?: number | string, path?: string }
    : { port: first, host: typeof second === 'string' ? second : undefined, path: undefined }
  appendFileSync(file, `${path ?? `${host ?? 'localhost'}:${port}`}\n`)
  return Reflect.apply(connect, this, args)
}
