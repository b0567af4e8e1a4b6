import type { Candidate } from './keyspace.ts'
import type { Commit, GroupView, Mirror, MirrorView, Partition, Topic } from './mirror.ts'
import type { ConsumerGroup } from './records.ts'

/** Which topics and groups may be shown. */
export interface Visibility {
  /** Whether nothing is hidden, so that names need not be checked one by one. */
  everything: boolean
  topic: (name: string) => boolean
  group: (id: string) => boolean
  /** Which topics may be shown together with a group. One rule must allow both. */
  topicsOf: (group: string) => (topic: string) => boolean
}

export const EVERYTHING: Visibility = {
  everything: true,
  topic: () => true,
  group: () => true,
  topicsOf: () => () => true,
}

/**
 * A filtered view of a mirror. Hidden names are missing from every list, count and sum, as if they did not exist. A
 * committed offset is visible if its group and topic are visible together. A group that consists of hidden offsets
 * is hidden itself.
 */
export class VisibleMirror implements MirrorView {
  readonly #mirror: Mirror
  readonly #visibility: Visibility

  constructor (mirror: Mirror, visibility: Visibility) {
    this.#mirror = mirror
    this.#visibility = visibility
  }

  get revision (): number { return this.#mirror.revision }

  get snapshot (): MirrorView['snapshot'] { return this.#mirror.snapshot }

  get topics (): readonly Topic[] {
    return this.#mirror.topics.filter(({ name }) => this.#visibility.topic(name))
  }

  get unlisted (): readonly Topic[] {
    return this.#mirror.unlisted.filter(({ name }) => this.#visibility.topic(name))
  }

  get unlistedBrokers (): readonly number[] {
    return this.#mirror.unlistedBrokers.filter(nodeId => {
      const leases = this.#mirror.leasesOf(nodeId)
      return leases?.partitions.values().some(({ topic }) => this.#visibility.topic(topic.name)) ||
        leases?.groups.values().some(group => this.#visibility.group(group))
    })
  }

  topic (name: string): Topic | undefined {
    // Decisions are cached, so only existing names are checked. Otherwise a caller could fill the cache.
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

  get unattributed (): MirrorView['unattributed'] {
    const sees = ({ group, topic }: Candidate) =>
      this.#visibility.group(group) && this.#visibility.topicsOf(group)(topic)
    return this.#mirror.unattributed.filter(({ candidates }) => candidates.length > 0 && candidates.every(sees))
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
