/** A parser under test. Each file in `targets/` exports one by default. */
import { globSync } from 'node:fs'
import { join } from 'node:path'

export interface Target {
  name: string
  /**
   * Tries some hundred inputs, the same ones for the same seed. Throws, or rejects, when the parser does what it must
   * not do.
   */
  run: (seed: number) => void | Promise<void>
}

/** Every target, in the order of their names. */
export async function loadTargets (): Promise<Target[]> {
  const folder = join(import.meta.dirname, 'targets')
  const modules = globSync('*.ts', { cwd: folder }).sort().map(async file =>
    await import(join(folder, file)) as { default: Target }
  )
  return (await Promise.all(modules)).map(({ default: target }) => target)
}
