import type { Commit, GroupView, MirrorView, Partition, Topic } from '../../kafscale/mirror.ts'
import type { ConsumerGroup } from '../../kafscale/records.ts'
import { concerns, type Operation } from './decide.ts'
import type { Policy } from './policy.ts'

/** What a principal sees of the cluster through a tool. */
export interface Visibility {
  /** No topic or group can be hidden, so nothing need be asked one by one. */
  everything: boolean
  topic: (name: string) => boolean
  group: (id: string) => boolean
  /** Tells which topics of a group are seen: a row with both needs a rule that allows both. */
  topicsOf: (group: string) => (topic: string) => boolean
}

export const EVERYTHING: Visibility = {
  everything: true,
  topic: () => true,
  group: () => true,
  topicsOf: () => () => true,
}

/** Whether no rule of these roles hides a topic or group from a tool that they allow. Pure; `false` when in doubt. */
export function seesEverything (
  policy: Policy,
  roles: readonly string[],
  tool: { name: string, operation: Operation },
  environment: string
): boolean {
  const rules = (kind: 'allow' | 'deny') =>
    roles.flatMap(role => policy.roles.get(role)?.[kind] ?? []).filter(rule => concerns(rule, { tool, environment }))
  const isAll = (globs: readonly string[] | undefined) => globs === undefined || globs.includes('*')
  return rules('deny').length === 0 && rules('allow').some(({ topics, groups }) => isAll(topics) && isAll(groups))
}

/**
 * The mirror as somebody sees it who may not see everything: what is hidden is not there, in no list, count or sum. A
 * committed offset is there for who may see its group and its topic together, and a group that is nothing but hidden
 * offsets is not there.
 */
export class VisibleMirror implements MirrorView {
  readonly #mirror: MirrorView
  readonly #visibility: Visibility

  constructor (mirror: MirrorView, visibility: Visibility) {
    this.#mirror = mirror
    this.#visibility = visibility
  }

  get revision (): number { return this.#mirror.revision }

  get snapshot (): MirrorView['snapshot'] { return this.#mirror.snapshot }

  get topics (): readonly Topic[] {
    return this.#mirror.topics.filter(({ name }) => this.#visibility.topic(name))
  }

  * topicsWithConfig (): Generator<Topic> {
    for (const topic of this.#mirror.topicsWithConfig()) if (this.#visibility.topic(topic.name)) yield topic
  }

  topic (name: string): Topic | undefined {
    // Only what exists is asked about, so that nobody fills the memory with names that nobody has.
    const topic = this.#mirror.topic(name)
    return topic && this.#visibility.topic(name) ? topic : undefined
  }

  get groups (): readonly GroupView[] {
    return this.#mirror.groups.flatMap(group => this.#visible(group) ?? [])
  }

  group (id: string): GroupView | undefined {
    const group = this.#mirror.group(id)
    return group && this.#visible(group)
  }

  coordinatorId (group: string): number | null {
    return this.#visibility.group(group) ? this.#mirror.coordinatorId(group) : null
  }

  #visible (group: GroupView): GroupView | undefined {
    if (!this.#visibility.group(group.id)) return undefined
    const visible = new VisibleGroup(group, this.#visibility.topicsOf(group.id))
    return group.metadata === undefined && visible.commits.length === 0 ? undefined : visible
  }
}

class VisibleGroup implements GroupView {
  readonly #group: GroupView
  readonly #sees: (topic: string) => boolean
  #metadata: ConsumerGroup | undefined
  #commits: readonly Commit[] | undefined

  constructor (group: GroupView, sees: (topic: string) => boolean) {
    this.#group = group
    this.#sees = sees
  }

  get id (): string { return this.#group.id }

  get metadata (): ConsumerGroup | null | undefined {
    const { metadata } = this.#group
    if (!metadata) return metadata
    this.#metadata ??= {
      ...metadata,
      members: new Map([...metadata.members].map(([id, member]) => [id, {
        ...member,
        assignments: new Map([...member.assignments].filter(([topic]) => this.#sees(topic))),
        subscriptions: member.subscriptions.filter(this.#sees),
      }])),
    }
    return this.#metadata
  }

  get commits (): readonly Commit[] {
    this.#commits ??= this.#group.commits.filter(({ partition }) => this.#sees(partition.topic.name))
    return this.#commits
  }

  commitOn (partition: Partition | undefined): Commit | undefined {
    return partition && this.#sees(partition.topic.name) ? this.#group.commitOn(partition) : undefined
  }
}
