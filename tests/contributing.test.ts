/** What contributors and maintainers read is true: paths, links and scripts exist, and the steps work. */
import { cpSync, existsSync, globSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t from 'tap'
import { parse } from 'yaml'
import packageJson from '../package.json' with { type: 'json' }
import { buildContext, run } from './support/packaging.ts'
import { readPage } from './support/pages.ts'
import { ROOT } from './support/paths.ts'

const read = (path: string) => readFileSync(join(ROOT, path), 'utf8')
const PAGES = ['CONTRIBUTING.md', 'SECURITY.md', 'CHANGELOG.md', 'docs/architecture.md', 'docs/releasing.md']
const FOLDERS = 'bin|chart|cli|docs|examples|kafscale|lib|plugins|routes|scripts|tests|tools'
const PATHS = [new RegExp(`(?<![\\w./-])(?:${FOLDERS})/[\\w./-]*`, 'g'), /(?<=`)\.?[\w-]+\.(?:js|json|md|ts)(?=`)/g]
/** The tool that CONTRIBUTING.md has its readers write. */
const TOOL = 'tools/count-topics.ts'
const TOOL_TEST = 'tests/tools/count-topics.test.ts'

t.test('every path exists', async t => {
  for (const page of PAGES) {
    const paths = PATHS.flatMap(pattern => read(page).match(pattern) ?? []).map(path => path.replace(/\.$/, ''))
    for (const path of new Set(paths)) {
      if (path !== TOOL && path !== TOOL_TEST) t.ok(existsSync(join(ROOT, path)), `${page}: ${path}`)
    }
  }
})

t.test('every link leads to a page, and to a heading of it', async t => {
  for (const page of PAGES) {
    const name = join('..', page)
    for (const { path, anchor } of readPage(name).links) {
      const target = path === '' ? name : join('..', dirname(page), path)
      t.ok(existsSync(join(ROOT, 'docs', target)), `${page}: ${path}`)
      if (anchor !== undefined) t.ok(readPage(target).anchors.includes(anchor), `${page}: ${path}#${anchor}`)
    }
  }
})

t.test('every npm script exists', async t => {
  for (const page of [...PAGES, '.github/pull_request_template.md', '.github/ISSUE_TEMPLATE/bug.yaml']) {
    for (const [, script = ''] of read(page).matchAll(/npm run ([\w:-]+)/g)) {
      t.ok(Object.hasOwn(packageJson.scripts, script), `${page}: ${script}`)
    }
  }
})

t.test("the architecture's tree is the project's", async t => {
  const tree = readPage('architecture.md').block('tree').trimEnd().split('\n')
  const parents: string[] = []
  const paths = tree.map(line => {
    const [, indent = '', name = ''] = /^( *)(\S+)/.exec(line) ?? []
    parents.length = indent.length / 2
    const path = join(...parents, name)
    parents.push(name)
    return path
  })
  for (const path of paths) t.ok(existsSync(join(ROOT, path)), path)
  const plugins = globSync('plugins/*', { cwd: ROOT }).map(path => path.endsWith('.ts') ? path : `${path}/`)
  t.strictSame(paths.filter(path => /^plugins\/./.test(path)).sort(), plugins.sort(), 'with every plugin')
  const instances = [...read('docs/architecture.md').matchAll(/^\| `app\.(\w+)` /gm)].map(([, name]) => name)
  const decorated = globSync('plugins/**/*.ts', { cwd: ROOT }).flatMap(path =>
    [...read(path).matchAll(/app\.decorate(?:<\w+>)?\('(\w+)'/g)].map(([, name]) => name)
  )
  t.strictSame(instances.sort(), decorated.sort(), 'with every decorated instance')
})

t.test('a tool is added as CONTRIBUTING.md says', async t => {
  const page = readPage('../CONTRIBUTING.md')
  const dir = buildContext(t)
  for (const path of ['demo', 'tests/support']) cpSync(join(ROOT, path), join(dir, path), { recursive: true })
  symlinkSync(join(ROOT, 'node_modules'), join(dir, 'node_modules'))

  writeFileSync(join(dir, TOOL), page.block('ts tool'))
  const [anImport = '', registration = ''] = page.ofKind('ts register')
  writeFileSync(join(dir, 'app.ts'), anImport + read('app.ts').replace(/(?=^.*register\(listTopics\))/m, registration))
  mkdirSync(join(dir, dirname(TOOL_TEST)), { recursive: true })
  writeFileSync(join(dir, TOOL_TEST), page.block('ts test'))

  await run(join(ROOT, 'node_modules/.bin/tsc'), ['--project', 'tsconfig.build.json', '--noEmit'], { cwd: dir })
  t.match(await run(process.execPath, [TOOL_TEST], { cwd: dir }), /^ok 1 - count_topics/m)
})

t.test('the changelog keeps to its format', async t => {
  const changelog = read('CHANGELOG.md')
  const [unreleased, ...releases] = [...changelog.matchAll(/^## (.*)$/gm)].map(([, heading = '']) => heading)
  t.equal(unreleased, '[Unreleased]')
  const versions = releases.map(heading => /^\[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$/.exec(heading)?.[1])
  if (versions.length > 0) t.equal(versions[0], packageJson.version, 'the newest is the version of the package')
  for (const version of ['Unreleased', ...versions]) t.match(changelog, `\n[${version}]: https://`)
  for (const [, kind] of changelog.matchAll(/^### (.*)$/gm)) {
    t.match(kind, /^(?:Added|Changed|Deprecated|Removed|Fixed|Security)$/)
  }
})

t.test('the package says where it comes from', async t => {
  const { repository, homepage, bugs, keywords } = packageJson
  const url = 'https://github.com/KafScale/kafscale-mcp'
  t.strictSame({ repository, homepage, bugs }, {
    repository: { type: 'git', url: `git+${url}.git` },
    homepage: `${url}#readme`,
    bugs: `${url}/issues`,
  })
  t.strictSame([...new Set(keywords)], keywords)
})

t.test('what GitHub reads is as it expects', async t => {
  interface Form { name: string, description: string, body: { type: string, id?: string, attributes: object }[] }
  interface Update { 'package-ecosystem': string, directory?: string, directories?: string[] }

  for (const path of globSync('.github/ISSUE_TEMPLATE/*.yaml', { cwd: ROOT })) {
    const { name, description, body } = parse(read(path)) as Form
    t.ok(name && description, path)
    for (const { type, id } of body) t.ok(type === 'markdown' ? id === undefined : id, path)
  }
  t.match(parse(read('.github/ISSUE_TEMPLATE/config.yml')), { blank_issues_enabled: false })
  t.match(read('.github/CODEOWNERS'), /^\* @[\w-]+\/[\w-]+$/m, 'a team owns the code, not a person')

  const { version, updates } = parse(read('.github/dependabot.yaml')) as { version: number, updates: Update[] }
  t.equal(version, 2)
  const manifests: Record<string, string> = {
    docker: 'Dockerfile',
    'docker-compose': '*compose.yaml',
    'github-actions': '.github/workflows/*.yaml',
    gomod: 'go.mod',
    npm: 'package.json',
    pip: 'requirements.txt',
  }
  t.strictSame(updates.map(update => update['package-ecosystem']).sort(), Object.keys(manifests))
  for (const { 'package-ecosystem': ecosystem, directory, directories = [directory] } of updates) {
    for (const folder of directories) {
      t.not(globSync(join(ROOT, folder ?? '', manifests[ecosystem] ?? '')).length, 0, `${ecosystem}: ${folder}`)
    }
  }
  const modules = globSync('tests/support/*/go.mod', { cwd: ROOT }).map(path => `/${dirname(path)}`)
  t.strictSame(updates.find(update => update['package-ecosystem'] === 'gomod')?.directories?.sort(), modules.sort())
})

t.test('editors keep to the linter\'s line length', async t => {
  const [, columns] = /max-len.*?(\d+)/.exec(read('eslint.config.js')) ?? []
  t.match(read('.editorconfig'), `max_line_length = ${columns}\n`)
})
