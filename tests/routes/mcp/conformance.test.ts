/**
 * The official MCP conformance suite: every server scenario of every supported revision, against the running service.
 */
import { execFile } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { ROOT } from '../../support/paths.ts'
import { startService } from '../../support/service.ts'

const REVISIONS = ['2025-06-18', '2025-11-25', '2026-07-28']
const SUITE = join(ROOT, 'node_modules/@modelcontextprotocol/conformance/dist/index.js')

/** The checks that are expected to fail, by reason and scenario. A check that starts to pass must be removed. */
const NOT_PASSING: Record<string, Record<string, string[]>> = {
  'it calls a tool that only the suite\'s own server has': {
    'tools-call-simple-text': ['tools-call-simple-text'],
    'tools-call-image': ['tools-call-image'],
    'tools-call-audio': ['tools-call-audio'],
    'tools-call-embedded-resource': ['tools-call-embedded-resource'],
    'tools-call-mixed-content': ['tools-call-mixed-content'],
    'tools-call-error': ['tools-call-error'],
    'tools-call-with-progress': ['tools-call-with-progress'],
    'json-schema-2020-12': ['json-schema-2020-12-tool-found'],
    'server-stateless': [
      'sep-2575-server-rejects-undeclared-capability', 'sep-2575-missing-capability-http-400',
      'sep-2575-http-server-no-independent-requests-on-stream', 'sep-2575-server-no-log-without-loglevel',
    ],
    'http-custom-header-server-validation': [
      'sep-2243-server-no-xmcp-tool', 'sep-2243-server-decode-base64', 'sep-2243-server-validate-param-match',
      'sep-2243-server-reject-invalid-param-chars', 'sep-2243-server-reject-param-mismatch',
    ],
  },
  'it calls a tool that requests input from the client (elicitation, sampling, roots), which no tool here does': {
    'tools-call-sampling': ['tools-call-sampling'],
    'tools-call-elicitation': ['tools-call-elicitation'],
    'elicitation-sep1034-defaults': ['elicitation-sep1034-general'],
    'elicitation-sep1330-enums': ['elicitation-sep1330-general'],
    'input-required-result-basic-elicitation': ['sep-2322-elicitation-incomplete'],
    'input-required-result-basic-sampling': ['sep-2322-sampling-incomplete'],
    'input-required-result-basic-list-roots': ['sep-2322-list-roots-incomplete'],
    'input-required-result-request-state': ['sep-2322-request-state-incomplete'],
    'input-required-result-multiple-input-requests': ['sep-2322-multiple-inputs-incomplete'],
    'input-required-result-multi-round': ['sep-2322-multi-round-r1'],
    'input-required-result-missing-input-response': ['sep-2322-missing-response-rerequests'],
    'input-required-result-result-type': ['sep-2322-result-type-included'],
    'input-required-result-tampered-state': ['sep-2322-reject-tampered-state'],
    'input-required-result-capability-check': ['sep-2322-respect-client-capabilities'],
    'input-required-result-ignore-extra-params': ['sep-2322-ignore-unexpected-params'],
  },
  'the service has no prompts': {
    'prompts-list': ['prompts-list'],
    'prompts-get-simple': ['prompts-get-simple'],
    'prompts-get-with-args': ['prompts-get-with-args'],
    'prompts-get-embedded-resource': ['prompts-get-embedded-resource'],
    'prompts-get-with-image': ['prompts-get-with-image'],
    'input-required-result-non-tool-request': ['sep-2322-non-tool-incomplete'],
    caching: ['sep-2549-prompts-list-caching-hints'],
    'server-stateless': ['sep-2575-server-sends-prompts-list-changed-on-subscription'],
  },
  'the service has no resources': {
    'resources-list': ['resources-list'],
    'resources-read-text': ['resources-read-text'],
    'resources-read-binary': ['resources-read-binary'],
    'resources-templates-read': ['resources-templates-read'],
    'resources-subscribe': ['resources-subscribe'],
    'resources-unsubscribe': ['resources-unsubscribe'],
    'sep-2164-resource-not-found': ['sep-2164-error-code', 'sep-2164-data-uri'],
    caching: [
      'sep-2549-resources-list-caching-hints',
      'sep-2549-resources-templates-list-caching-hints',
      'sep-2549-resources-read-caching-hints',
    ],
  },
  'the service has no completions': { 'completion-complete': ['completion-complete'] },
  'the service sends no log messages to clients': {
    'logging-set-level': ['logging-set-level'],
    'tools-call-with-logging': ['tools-call-with-logging'],
  },
  'the set of tools does not change while the service runs': {
    'server-stateless': ['sep-2575-server-sends-tools-list-changed-on-subscription'],
  },
  'the service has no sessions': {
    'server-sse-multiple-streams': ['server-sse-multiple-streams-session'],
    'server-sse-polling': ['server-sse-polling-session'],
  },
}

interface Check { id: string, status: 'SUCCESS' | 'INFO' | 'WARNING' | 'FAILURE' | 'SKIPPED', errorMessage?: string }

async function conformance (...args: string[]): Promise<string> {
  return await new Promise(resolve => execFile(process.execPath, [SUITE, ...args], (_, stdout) => resolve(stdout)))
}

/** The names of the server scenarios of a revision. */
async function scenariosOf (revision: string): Promise<string[]> {
  return [...(await conformance('list', '--server', '--spec-version', revision)).matchAll(/^ +- ([\w-]+)/gm)].map((
    [, scenario = '']
  ) => scenario).sort()
}

/** Runs every server scenario, and resolves with the checks of each. */
async function run (url: string, revision: string, folder: string): Promise<Map<string, Check[]>> {
  await conformance('server', '--url', url, '--suite', 'all', '--spec-version', revision, '--output-dir', folder)
  return new Map(
    readdirSync(folder).sort().map(
      name => [
        name.replace(/^server-(.*)-\d{4}-\d\d-\d\dT.*$/, '$1'),
        JSON.parse(readFileSync(join(folder, name, 'checks.json'), 'utf8')),
      ]
    )
  )
}

t.test('every check passes, except those listed as not passing', async t => {
  const url = await startService(t).url
  const listed = Object.values(NOT_PASSING).flatMap(scenarios =>
    Object.entries(scenarios).flatMap(([scenario, ids]) => ids.map(id => `${scenario}: ${id}`))
  )
  const failed = new Set<string>()
  const ran = new Set<string>()
  for (const revision of REVISIONS) {
    const scenarios = await run(url, revision, t.testdir({}))
    t.strictSame([...scenarios.keys()], await scenariosOf(revision), `every scenario of ${revision} ran`)
    for (const [scenario, checks] of scenarios) {
      ran.add(scenario)
      for (const { id, status, errorMessage } of checks) {
        const name = `${scenario}: ${id}`
        const passes = status === 'SUCCESS' || status === 'INFO'
        if (!passes) failed.add(name)
        t.equal(passes, !listed.includes(name), `${revision} ${name} ${errorMessage ?? status}`)
      }
    }
  }
  t.strictSame(listed.toSorted(), [...failed].sort(), 'every listed check exists and fails')
  for (
    const scenario of [
      'server-initialize',
      'server-stateless',
      'ping',
      'tools-list',
      'dns-rebinding-protection',
      'http-header-validation',
      'caching',
    ]
  ) {
    t.ok(ran.has(scenario), `${scenario} ran`)
  }
})
