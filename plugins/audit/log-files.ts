/** The names of the rotated files of a log, among those in its folder, the newest first. */
export function rotatedFiles (log: string, names: readonly string[]): string[] {
  return names
    .map(name => ({ name, number: name.startsWith(`${log}.`) ? numberIn(name.slice(log.length + 1)) : 0 }))
    .filter(({ number }) => number > 0)
    .sort((a, b) => b.number - a.number)
    .map(({ name }) => name)
}

function numberIn (suffix: string): number {
  return Number(/^\d{4}-\d\d-\d\d\.(\d{6,})$/.exec(suffix)?.[1] ?? 0)
}
