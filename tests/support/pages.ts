/** Reads documentation pages and runs their code blocks. A block's info string, such as `sh env token`, is its kind. */
import { execFile } from 'node:child_process'
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'
import type { Environment } from '../../plugins/config/read.ts'
import { PATH } from './packaging.ts'
import { ROOT } from './paths.ts'

export interface Page {
  text: string
  /** The info strings of all blocks, sorted and without duplicates. */
  kinds: string[]
  /** The text of each block of a kind. */
  ofKind: (kind: string) => string[]
  /** The only block of a kind. Throws when there is none, or more than one. */
  block: (kind: string) => string
  /** The cells of each row in the table whose first column has this title. */
  rows: (title: string) => string[][]
  /** The variables that a block sets. Files in `/etc/kafscale-mcp` and `/var/log/kafscale-mcp` move to `dir`. */
  environment: (text: string, dir: string) => Environment
  /**
   * Runs the commands of a text in a folder, with `npx kafscale-mcp` from this checkout and the service at `url`.
   * Resolves with the standard output of each command; rejects when one fails.
   */
  run: (text: string, options: { cwd: string, url?: string, env?: Environment }) => Promise<string[]>
  /** Runs the commands of all blocks of a kind, as `run` does. */
  runEach: (kind: string, options: { cwd: string, url?: string, env?: Environment }) => Promise<string[]>
  /** The targets of its links, except links to other sites. */
  links: { path: string, anchor: string | undefined }[]
  /** The anchors that GitHub gives to its headings. */
  anchors: string[]
}

const DEFAULT_ORIGIN = 'http://127.0.0.1:8090'

/** Reads a page by its path relative to `docs/`. */
export function readPage (name: string): Page {
  const text = readFileSync(join(ROOT, 'docs', name), 'utf8')
  const blocks = [...text.matchAll(/^```(.*)\n([^]*?)^```$/gm)].map(([, kind = '', text = '']) => ({ kind, text }))
  const ofKind = (kind: string) => blocks.filter(block => block.kind === kind).map(({ text }) => text)
  const run: Page['run'] = async (text, { cwd, url = DEFAULT_ORIGIN, env = {} }) => {
    const path = [npx(cwd), PATH].join(delimiter)
    const commands = text.replaceAll(DEFAULT_ORIGIN, new URL(url).origin).replaceAll(/ *\\\n */g, ' ').trim().split(
      '\n'
    )
    const printed = []
    for (const command of commands) {
      const { stdout } = await promisify(execFile)('sh', ['-ec', command], {
        cwd,
        env: { ...env, PATH: path, HOME: cwd },
      })
      printed.push(stdout)
    }
    return printed
  }
  return {
    text,
    kinds: [...new Set(blocks.map(({ kind }) => kind))].sort(),
    ofKind,
    block: kind => {
      const [block, ...more] = ofKind(kind)
      if (block === undefined || more.length > 0) {
        throw new Error(
          `${name}: expected one block ${kind}, and there are ${more.length + (block === undefined ? 0 : 1)}`
        )
      }
      return block
    },
    rows: title => {
      const [, , ...rows] = text.slice(text.indexOf(`\n| ${title} |`) + 1).split('\n\n')[0]?.trim().split('\n') ?? []
      return rows.map(row => row.slice(1, -1).split('|').map(cell => cell.trim()))
    },
    environment: (text, dir) =>
      Object.fromEntries(
        text.trim().split('\n').map(line => /^([A-Z_]+)=(.*)$/.exec(line) ?? [])
          .map(([, name = '', value = '']) => [name, value.replaceAll(/\/(?:etc|var\/log)\/kafscale-mcp(?=\/)/g, dir)])
      ),
    run,
    runEach: async (kind, options) => await run(ofKind(kind).join(''), options),
    links: [...text.matchAll(/\]\(((?!https?:)[^)#]*)(?:#([^)]*))?\)/g)].map(([, path = '', anchor]) => ({
      path,
      anchor,
    })),
    anchors: [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) =>
      heading.toLowerCase().replace(/[^\w -]/g, '').replaceAll(' ', '-')
    ),
  }
}

/** Creates an `npx` that runs `kafscale-mcp` from this checkout, as if it were installed. Returns its folder. */
function npx (cwd: string): string {
  const bin = join(cwd, '.bin')
  mkdirSync(bin, { recursive: true })
  writeFileSync(
    join(bin, 'npx'),
    `#!/bin/sh\n[ "$1" = kafscale-mcp ] && shift && exec '${process.execPath}' '${ROOT}/bin/kafscale-mcp.js' "$@"\n`
  )
  chmodSync(join(bin, 'npx'), 0o755)
  return bin
}
