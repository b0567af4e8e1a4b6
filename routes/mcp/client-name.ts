/** Name and version of a client, from what it sends; `null` without a name. */
export function clientName (info: unknown): string | null {
  const { name, version } = (info ?? {}) as { name?: unknown, version?: unknown }
  if (typeof name !== 'string') return null
  return typeof version === 'string' ? `${name} ${version}` : name
}
