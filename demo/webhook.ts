/** Tells people about changes in the terminal of the demo, in place of a chat. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { json } from 'node:stream/consumers'
import { escapeUnprintable } from '../lib/printable.ts'

/**
 * Serves a webhook on a free loopback port until the process ends.
 * @returns its URL
 */
export async function serveWebhook (): Promise<string> {
  const server = createServer((request, response) => {
    json(request).then(message => {
      const { text } = message as { text: string }
      process.stdout.write(`${new Date().toLocaleTimeString()}  To the approvers: ${escapeUnprintable(text)}\n`)
      response.end()
    }).catch(() => response.writeHead(400).end())
  }).listen(0, '127.0.0.1').unref()
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
}
