import { hostname } from 'node:os'

/** The instance of the service that writes, as `where.replica` names it. */
export const REPLICA = hostname()
