/** What `partitions_unknown` means, next to the total lag of a group. */
export const UNKNOWN = 'Partitions that the sum leaves out because their lag is unknown: assigned but not committed, ' +
  'without a log end offset, or with a commit that cannot be decoded; `null` if the metadata of the group cannot be'
