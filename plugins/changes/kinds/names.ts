import { ChangeImpossible } from '../../../errors.ts'
import type { MirrorView } from '../../../kafscale/mirror.ts'
import { quote } from '../../../lib/printable.ts'
import type { PlanContext } from './kind.ts'

const NAME = /^[a-zA-Z0-9._-]{1,249}$/

/** Whether Kafka accepts the name of a topic. KafScale accepts any. */
export function isTopicName (name: string): boolean {
  return NAME.test(name) && name !== '.' && name !== '..'
}

/** @throws {ChangeImpossible} if a topic cannot have this name */
export function checkTopicName (name: string, { cluster, visible }: PlanContext): void {
  if (!isTopicName(name)) {
    throw new ChangeImpossible(
      `${quote(name)} is not a name for a topic: Kafka allows 1 to 249 of the characters a-z, A-Z, 0-9, ".", "_" and ` +
      '"-", and neither "." nor ".."'
    )
  }
  const other = collision(name, cluster)
  if (other === undefined) return
  const named = visible.topic(other) ? quote(other) : 'another topic'
  throw new ChangeImpossible(
    `the name ${quote(name)} collides with ${named}: names that differ only in "." and "_" share their metrics, so ` +
    'Kafka refuses the second'
  )
}

/** Another topic whose name differs only in `.` and `_`. */
export function collision (name: string, { topics }: MirrorView): string | undefined {
  const plain = plainName(name)
  return topics.find(topic => topic.name !== name && plainName(topic.name) === plain)?.name
}

function plainName (name: string): string {
  return name.replaceAll('.', '_')
}
