import { type Address, formatAddress } from './address.ts'

/** What a failed attempt to listen was doing. */
const LISTEN_CALLS = ['listen', 'bind', 'getaddrinfo']

/** A port below this one may need privileges. */
const FIRST_FREE_PORT = 1_024

/**
 * Listens on an address. `::` stands for every address of the machine, so where there is no IPv6 it is `0.0.0.0`. What
 * the system answers then depends on what is missing: the kernel's support, the addresses, or a permission.
 * @param listen called with the host, and again with another one if the first does not exist
 */
export async function listenOn<T> ({ host, port }: Address, listen: (address: Address) => Promise<T>): Promise<T> {
  try {
    return await listen({ host, port })
  } catch (error) {
    if (host !== '::' || (error as NodeJS.ErrnoException).code === 'EADDRINUSE') throw error
    return await listen({ host: '0.0.0.0', port })
  }
}

/** Why an address cannot be listened on, in a sentence; undefined for an error that is about something else. */
export function listenProblem (setting: string, configured: Address, error: unknown): string | undefined {
  const { code = '', syscall = '', message, address, port } = error as NodeJS.ErrnoException & Partial<Address> & {
    address?: string
  }
  if (!LISTEN_CALLS.includes(syscall)) return undefined
  const where = `${setting} (${formatAddress({ host: address ?? configured.host, port: port ?? configured.port })})`
  switch (code) {
    case 'EADDRINUSE':
      return `${where} is in use: stop the process that listens there, or choose another port.`
    case 'EADDRNOTAVAIL':
      return `${where} is not an address of this machine: choose one that is, such as 127.0.0.1:${configured.port}.`
    case 'EACCES':
    case 'EPERM':
      if (configured.port >= FIRST_FREE_PORT || configured.port === 0) {
        return `${where} is not permitted (${code}) by a security policy of this machine, such as seccomp: ` +
          'choose another address or port, or change the policy.'
      }
      return `${where} needs privileges that this user does not have: choose a port of 1024 or higher.`
    case 'EAFNOSUPPORT':
    case 'EPROTONOSUPPORT':
      return `${where} is an IPv6 address, and this machine has no IPv6: choose an IPv4 address, ` +
        `such as 127.0.0.1:${configured.port}.`
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return `${where} has a host name that cannot be resolved (${code}): choose an address of this machine, ` +
        `such as 127.0.0.1:${configured.port}.`
    case 'EINVAL':
      return `${where} is not an address to listen on: a link-local address needs its interface, as in ` +
        `[fe80::1%eth0]:${configured.port}.`
    case 'EMFILE':
    case 'ENFILE':
      return `${where} cannot be listened on, because too many files are open: raise the limit of open files.`
    default:
      return `${where} cannot be listened on: ${message}. Choose another address.`
  }
}
