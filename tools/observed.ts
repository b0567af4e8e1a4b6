import type { FastifyInstance } from 'fastify'
import { MetadataUnavailable } from '../errors.ts'
import type { Mirror, Topic } from '../kafscale/mirror.ts'

/** @throws {MetadataUnavailable} before the first load */
export function mirrorOf (app: FastifyInstance): Mirror {
  const { mirror, reason = '' } = app.metadata
  if (!mirror) throw new MetadataUnavailable(reason)
  return mirror
}

/** The topics of the snapshot. @throws {MetadataUnavailable} when the snapshot can't be decoded: that is not "no topics" */
export function topicsOf (mirror: Mirror): readonly Topic[] {
  if (!mirror.snapshot) throw new MetadataUnavailable('the stored snapshot can\'t be decoded, so the topics are not known')
  return mirror.topics
}

/** Which state of the cluster an answer shows, and when it was last known to be the current one. */
export function observedAt (app: FastifyInstance, mirror: Mirror): { observed_at: string, revision: number } {
  return { observed_at: app.metadata.observedAt.toISOString(), revision: mirror.revision }
}
