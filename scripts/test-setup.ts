/**
 * `npm run test:setup [-- --all]`: gets the programs that the tests need and npm does not bring. `npm test` runs it
 * first.
 *
 * openssl and curl are required; as root on Debian, this installs them. etcd is optional. On Debian, this takes it from
 * its package into `.cache`, so that nothing is installed and no service starts. With `--all`, and in CI, it also gets
 * what only a few tests need: promtool, etcdctl and nginx from Debian's packages, etcd 3.6 and Helm, built with Go, the
 * SDKs of model hosts from npm and PyPI, one for Go, and Chromium and jq, which root installs. In CI, all of these are
 * required.
 */
import { execFile, execFileSync, spawnSync } from 'node:child_process'
import {
  chmodSync, copyFileSync, existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync
} from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { ROOT } from '../tests/support/paths.ts'
import { BIN, etcd36, exists, goSdk, helm, nodeSdks, pythonSdks } from '../tests/support/programs.ts'

/** What pins the SDKs of model hosts. */
const CONVERTERS = join(ROOT, 'tests/support/converters')
const MANIFEST = ['.npmrc', 'package.json', 'package-lock.json']

const inCi = Boolean(process.env['CI'])
const all = inCi || process.argv.includes('--all')
const isRoot = process.getuid?.() === 0

mkdirSync(BIN, { recursive: true })
const required = ['openssl', 'curl'].filter(program => !exists(program))
if (required.length > 0 && isRoot && exists('apt-get')) {
  announce(`Installing ${required.join(' and ')}, which the tests need.`)
  aptGet('update')
  aptGet('install', '-y', '--no-install-recommends', ...required)
}
const failures = [
  ...extract('etcd', 'etcd-server'),
  ...all
    ? [
        ...extract('promtool', 'prometheus'),
        ...extract('etcdctl', 'etcd-client'),
        ...extract('nginx', 'nginx', 'usr/sbin'),
        ...installPackage('jq'),
        ...installPackage('chromium'),
        // Together they take as long as the machine's cores need, and one alone does not keep them busy.
        ...(await Promise.all([
          build('etcd 3.6', etcd36, 'etcd-3.6', '.'),
          build('Helm', helm, 'helm-3', 'helm.sh/helm/v3/cmd/helm'),
          installNodeSdks(),
          installPythonSdks(),
          downloadGoSdk(),
        ])).flat(),
      ]
    : [],
]
for (const failure of failures) announce(failure)

const missing = required.filter(program => !exists(program))
if (missing.length > 0) {
  announce(`The tests need ${missing.join(' and ')}: ${howToInstall(missing)}`)
  process.exit(1)
}
if (!exists('etcd')) {
  announce(`There is no etcd, so ${testsWithEtcd()} tests are skipped. To run them too: ${howToInstall(['etcd'])}`)
}
if (inCi && failures.length > 0) process.exit(1)

/** A line that is a comment in a stream of TAP. */
function announce (text: string): void {
  console.log(`# ${text}`)
}

/** A command for Debian, Fedora or macOS. */
function howToInstall (programs: string[]): string {
  const names = programs.join(' ')
  if (process.platform === 'darwin') return `brew install ${names}`
  if (exists('dnf')) return `sudo dnf install ${names}`
  if (!exists('apt-get')) return `install ${names}`
  return names === 'etcd' ? 'sudo apt-get update && npm run test:setup' : `sudo apt-get install ${names}`
}

function aptGet (...args: string[]): void {
  spawnSync('apt-get', args, { stdio: 'inherit', env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } })
}

/** Puts a program of a Debian package into `.cache/bin`. Returns why it could not, if so. */
function extract (program: string, name: string, folder = 'usr/bin'): string[] {
  if (exists(program)) return []
  if (!exists('apt-get')) return program === 'etcd' && !inCi ? [] : [`There is no ${program}.`]
  if (isRoot && megabytes(name) === undefined) {
    announce('Updating the lists of packages.')
    aptGet('update')
  }
  announce(`Downloading ${program} from the package ${name} (${megabytes(name) ?? '?'} MB) into .cache.`)
  const dir = mkdtempSync(join(BIN, 'package-'))
  try {
    execFileSync('apt-get', ['download', name], { cwd: dir, stdio: 'pipe' })
    const [file = ''] = globSync('*.deb', { cwd: dir })
    const script = 'dpkg-deb --fsys-tarfile "$1" | tar -xO "./$3/$2" > "$2"'
    execFileSync('sh', ['-ec', script, 'sh', file, program, folder], { cwd: dir, stdio: 'pipe' })
    chmodSync(join(dir, program), 0o755)
    renameSync(join(dir, program), join(BIN, program))
    return []
  } catch (error) {
    return [`${program} could not be downloaded: ${(error as Error).message}`]
  } finally {
    rmSync(dir, { recursive: true })
  }
}

/** Installs a program whose package needs others. Returns why it could not, if so. */
function installPackage (program: string): string[] {
  if (exists(program)) return []
  if (isRoot && exists('apt-get')) {
    announce(`Installing ${program} (${megabytes(program) ?? '?'} MB and what it needs).`)
    aptGet('install', '-y', '--no-install-recommends', program)
  }
  return exists(program) ? [] : [`There is no ${program}.`]
}

/** How large a package is, if it is known. */
function megabytes (name: string): number | undefined {
  const { stdout } = spawnSync('apt-cache', ['show', '--no-all-versions', name], { encoding: 'utf8' })
  const [, bytes] = /^Size: (\d+)$/m.exec(stdout) ?? []
  return bytes === undefined ? undefined : Math.ceil(Number(bytes) / 1e6)
}

/** Builds the module of a folder, whose go.sum pins what goes into it. Resolves to why it could not, if so. */
async function build (name: string, target: string, folder: string, main: string): Promise<string[]> {
  if (existsSync(target)) return []
  if (!exists('go')) return [`There is no Go to build ${name} with.`]
  announce(`Building ${name} with Go into .cache, which takes some minutes.`)
  const unfinished = `${target}.${process.pid}`
  try {
    await promisify(execFile)('go', ['build', '-buildvcs=false', '-ldflags=-s -w', '-o', unfinished, main], {
      cwd: join(ROOT, 'tests/support', folder),
    })
    renameSync(unfinished, target)
    return []
  } catch (error) {
    return [`${name} could not be built: ${(error as Error).message}`]
  }
}

/** Installs the SDKs from npm. Resolves to why it could not, if so. */
async function installNodeSdks (): Promise<string[]> {
  return await install('the SDKs of model hosts from npm (280 MB)', nodeSdks, async dir => {
    for (const name of MANIFEST) copyFileSync(join(CONVERTERS, name), join(dir, name))
    await promisify(execFile)('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: dir })
  })
}

/** Installs the SDKs from PyPI. Resolves to why it could not, if so. Without Python, it only says so, except in CI. */
async function installPythonSdks (): Promise<string[]> {
  // Debian's Python cannot create environments without this package.
  if (inCi && isRoot && exists('apt-get') && !canCreateEnvironments()) {
    aptGet('update')
    aptGet('install', '-y', '--no-install-recommends', 'python3-venv')
  }
  if (!canCreateEnvironments()) return ['There is no Python with venv, so tests with SDKs from PyPI are skipped.']
  return await install('the SDKs of model hosts from PyPI (200 MB)', pythonSdks, async dir => {
    await promisify(execFile)('python3', ['-m', 'venv', dir])
    const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-compile']
    await promisify(execFile)(join(dir, 'bin/python'), [...pip, '-r', join(CONVERTERS, 'requirements.txt')])
  })
}

/** Downloads the SDK for Go. Resolves to why it could not, if so. */
async function downloadGoSdk (): Promise<string[]> {
  if (!exists('go')) return ['There is no Go to download its SDK with.']
  return await install('the SDK for Go', goSdk, async dir => {
    const env = { ...process.env, GOMODCACHE: dir, GOFLAGS: '-modcacherw' }
    await promisify(execFile)('go', ['mod', 'download'], { cwd: join(ROOT, 'tests/support/go-client'), env })
  })
}

function canCreateEnvironments (): boolean {
  return exists('python3') && spawnSync('python3', ['-c', 'import ensurepip, venv']).status === 0
}

/** Fills a folder of `.cache`, which exists only once that is done. Resolves to why it could not, if so. */
async function install (what: string, target: string, fill: (dir: string) => Promise<void>): Promise<string[]> {
  if (existsSync(target)) return []
  announce(`Installing ${what} into .cache.`)
  const unfinished = `${target}.${process.pid}`
  mkdirSync(unfinished)
  try {
    await fill(unfinished)
    renameSync(unfinished, target)
    return []
  } catch (error) {
    return [`Installing ${what} failed: ${(error as Error).message}`]
  } finally {
    rmSync(unfinished, { recursive: true, force: true })
  }
}

function testsWithEtcd (): number {
  return globSync('tests/**/*.test.ts', { cwd: ROOT })
    .map(path => readFileSync(join(ROOT, path), 'utf8').match(/needsEtcd\(\)/g)?.length ?? 0)
    .reduce((sum, count) => sum + count, 0)
}
