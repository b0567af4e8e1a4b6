import { parseArgs } from 'node:util'

/**
 * Reads the arguments of a command that has no options but `--help`. Returns the exit code when nothing is left to do:
 * it has printed the usage, or a mistake with the usage.
 */
export function onlyHelp (command: string, args: string[], usage: string): number | undefined {
  try {
    const { values: { help } } = parseArgs({ args, options: { help: { type: 'boolean', short: 'h' } } })
    if (!help) return undefined
    process.stdout.write(usage)
    return 0
  } catch (error) {
    process.stderr.write(`kafscale-mcp ${command}: ${(error as Error).message}\n${usage}`)
    return 2
  }
}
