/** What a user of etcd may do. Asks etcd for the user's permissions: nothing is written. */
import { quote } from '../../lib/printable.ts'
import type { EtcdConnection } from '../../plugins/etcd/connection.ts'
import type { Permission } from '../../plugins/etcd/messages.ts'
import type { Finding } from './finding.ts'

/** How many permissions are listed. */
const MAX_LISTED = 10
/** As a range end, the end of all keys. */
const NO_END = Buffer.of(0)

/** What a user should be allowed, and nothing more. */
export interface Right {
  prefix: string
  writes: boolean
}

/** Whether the user of a connection has a right and nothing more. `explain` describes a failed call. */
export async function checkAccess (
  item: string,
  connection: EtcdConnection,
  right: Right,
  explain: (error: Error) => string
): Promise<Finding> {
  const { prefix, writes } = right
  const warning = (detail: string): Finding => ({ level: 'warning', item, detail })
  const advice = `a user with ${writes ? 'readwrite' : 'read'} on ${prefix} is enough`
  try {
    const user = await connection.permissions()
    const everything = await connection.readsEverything()
    if (!user) {
      return everything
        ? warning(`whoever reaches etcd can read every key, and probably write: enable authentication; ${advice}`)
        : { level: 'ok', item, detail: 'the user can read the prefix and not every key; etcd does not tell more' }
    }
    if (user.roles.includes('root')) return warning(`the user has the role root: ${advice}`)
    const lacks = [
      ...user.permissions.some(permission => permission.reads && covers(permission, prefix)) ? [] : ['read'],
      ...!writes || user.permissions.some(permission => permission.writes && covers(permission, prefix))
        ? []
        : ['write'],
    ]
    if (lacks.length > 0) {
      return { level: 'failed', item, detail: `the user may not ${lacks.join(' or ')} ${prefix}: ${advice}` }
    }
    const excessive = user.permissions.filter(permission => !isWithin(permission, right))
    if (excessive.length > 0) {
      const listed = excessive.map(({ writes, key, rangeEnd }) =>
        `${writes ? 'write' : 'read'} on ${quote(key.toString())}${rangeEnd.length > 0 ? ' and further keys' : ''}`
      )
      return warning(`the user has more than it needs, ${listed.slice(0, MAX_LISTED).join(', ')}: ${advice}`)
    }
    const allowed = writes ? 'read and write' : 'read'
    return { level: 'ok', item, detail: `the user can ${allowed} ${prefix} and nothing else` }
  } catch (error) {
    return warning(`could not be found out: ${explain(error as Error)}`)
  }
}

/** Whether a permission allows no more than the right. */
function isWithin ({ writes, key, rangeEnd }: Permission, right: Right): boolean {
  const end = rangeEnd.length === 0 ? Buffer.concat([key, Buffer.of(0)]) : rangeEnd
  return (!writes || right.writes) && !rangeEnd.equals(NO_END) &&
    Buffer.compare(key, Buffer.from(right.prefix)) >= 0 && Buffer.compare(end, endOf(right.prefix)) <= 0
}

/** Whether a permission is about every key with a prefix. */
function covers ({ key, rangeEnd }: Permission, prefix: string): boolean {
  return Buffer.compare(key, Buffer.from(prefix)) <= 0 &&
    (rangeEnd.equals(NO_END) || Buffer.compare(rangeEnd, endOf(prefix)) >= 0)
}

/** The first key after those with a prefix. */
function endOf (prefix: string): Buffer {
  return Buffer.from(prefix.replace(/\/$/, '0')) // '0' follows '/'
}
