import { readFileSync, readlinkSync } from 'node:fs'
import { createConnection, createServer, type Server } from 'node:net'

/**
 * Where processes can see each other's beacons: the boot of the machine and the network namespace. `null` where there
 * are no abstract sockets: they exist on Linux only.
 */
export function reach (): string | null {
  try {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
    return `${boot} ${readlinkSync('/proc/self/ns/net')}`
  } catch {
    return null
  }
}

/**
 * Shows other processes within reach that this one is running. An abstract socket disappears with its process, however
 * that ends. A process ID would not do: in a container, it is 1 before and after a restart.
 */
export class Beacon {
  #server: Server | undefined

  /** Resolves to whether others can now see it. */
  async light (id: string): Promise<boolean> {
    if (this.#server) return true
    if (reach() === null) return false
    const server = createServer(socket => socket.destroy()).unref()
    const { promise, resolve } = Promise.withResolvers<boolean>()
    server.once('error', () => resolve(false))
    server.listen(pathOf(id), () => resolve(true))
    const lit = await promise
    if (lit) this.#server = server
    return lit
  }

  extinguish (): void {
    this.#server?.close()
    this.#server = undefined
  }
}

/** Whether the process that lit a beacon within reach still runs. */
export async function isLit (id: string): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>()
  const socket = createConnection(pathOf(id))
  socket.once('connect', () => resolve(true))
  // Any other error, such as a full queue, is one of a socket that exists.
  socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED'))
  const lit = await promise
  socket.destroy()
  return lit
}

function pathOf (id: string): string {
  return `\0kafscale-mcp-audit-${id}`
}
