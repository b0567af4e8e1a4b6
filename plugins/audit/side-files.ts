/** Files that the service puts next to a log and that a glob such as `audit.jsonl*` also matches. */
const SIDE_FILES: readonly [name: RegExp, what: string][] = [
  [/\.torn-[^/]*$/, 'a torn line left by a crash'],
  [/\.lock(?:\.\w+)?$/, 'the lock of the process that writes the log'],
]

/** What a file is that belongs to a log but not to its chain; `undefined` for all others. */
export function sideFile (path: string): string | undefined {
  return SIDE_FILES.find(([name]) => name.test(path))?.[1]
}
