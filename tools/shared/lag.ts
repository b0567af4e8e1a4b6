import type { Lag } from '../../kafscale/lag.ts'
import { int64OrNull, int64OrNullJson, integer, integerOrNull, means } from './schema.ts'

/** What is known of a group's lag, as fields of an answer. */
export const lagTotals = {
  total_lag: means(
    int64OrNull,
    'Sum of the known lags, in records; partitions past the end count as 0; `null` if no lag is known'
  ),
  partitions_unknown: means(
    integerOrNull,
    'Partitions that the sum leaves out because their lag is unknown: assigned but not committed, without a log end ' +
      'offset, or with a commit that cannot be decoded; `null` if the metadata of the group cannot be'
  ),
  partitions_past_end: means(
    integer,
    'Partitions whose committed offset is past the log end offset: records were lost, or the topic was created again'
  ),
}

export function lagTotalsJson ({ total, unknown, pastEnd }: Lag) {
  return { total_lag: int64OrNullJson(total), partitions_unknown: unknown, partitions_past_end: pastEnd }
}
