import { MetadataUnavailable } from '../../errors.ts'
import type { MirrorView, Topic } from '../../kafscale/mirror.ts'
import type { Host } from '../tool.ts'

/** The topics of the snapshot. @throws {MetadataUnavailable} if it can't be decoded, so that they are not known */
export function topicsOf (mirror: MirrorView): readonly Topic[] {
  if (!mirror.snapshot) {
    throw new MetadataUnavailable("the stored snapshot can't be decoded, so the topics are not known")
  }
  return mirror.topics
}

/** Which revision of the cluster an answer shows, and when that was last known to be current. */
export function observedAt (host: Host, mirror: MirrorView): { observed_at: string, revision: number } {
  return { observed_at: host.metadata.observedAt.toISOString(), revision: mirror.revision }
}
