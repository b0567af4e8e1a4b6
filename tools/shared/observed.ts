import { MetadataUnavailable } from '../../errors.ts'
import type { MirrorView, Topic } from '../../kafscale/mirror.ts'
import type { Host } from '../tool.ts'

/**
 * The topics of the snapshot. @throws {MetadataUnavailable} when it can't be decoded: that does not mean "no topics"
 */
export function topicsOf (mirror: MirrorView): readonly Topic[] {
  if (!mirror.snapshot) {
    throw new MetadataUnavailable("the stored snapshot can't be decoded, so the topics are not known")
  }
  return mirror.topics
}

/** Which state of the cluster an answer shows, and when that was last known to be current. */
export function observedAt (host: Host, mirror: MirrorView): { observed_at: string, revision: number } {
  return { observed_at: host.metadata.observedAt.toISOString(), revision: mirror.revision }
}
