/** The alerts fire when they should. Alerts, dashboards and the runbook refer to metrics and sections that exist. */
import { existsSync, globSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { parse } from 'yaml'
import { ERRORS } from '../../../errors.ts'
import { needsEtcd } from '../../support/etcd.ts'
import { ROOT } from '../../support/paths.ts'
import { experienced, needsPromtool, promtool, samples } from '../../support/telemetry.ts'

interface Rule {
  alert: string
  expr: string
  annotations: Record<string, string>
  labels: Record<string, string>
}
interface Panel {
  type: string
  title: string
  datasource?: { uid: string }
  gridPos: { x: number, y: number, w: number, h: number }
  targets?: { expr: string, datasource: { uid: string } }[]
}
interface Dashboard {
  uid: string
  title: string
  templating: { list: { name: string, type: string, definition?: string }[] }
  panels: Panel[]
}

const alertsFile = join(ROOT, 'chart/files/alerts.yaml')
const rules: Rule[] = parse(readFileSync(alertsFile, 'utf8')).groups.flatMap(({ rules }: { rules: Rule[] }) => rules)
const runbook = readFileSync(join(ROOT, 'docs/runbook.md'), 'utf8')
const dashboards = globSync('chart/files/dashboards/*.json', { cwd: ROOT }).map(path =>
  JSON.parse(readFileSync(join(ROOT, path), 'utf8')) as Dashboard
)
const expressions = dashboards.flatMap(({ panels }) =>
  panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr))
)

// --- References between alerts, dashboards, metrics and the runbook

t.test('alerts and dashboards use exported metrics', needsEtcd(), async t => {
  const app = await experienced(t)
  const names = new Set([...samples((await app.telemetry.page()).text).keys()].map(sample => sample.split('{')[0]))
  const asked = (text: string) => [...new Set(text.match(/kafscale_mcp_\w+/g))]
  t.ok(rules.length >= 6)
  t.ok(expressions.length >= 20)
  for (const { alert, expr } of rules) for (const name of asked(expr)) t.ok(names.has(name), `${alert}: ${name}`)
  const variables = dashboards.flatMap(({ templating }) => templating.list.map(({ definition = '' }) => definition))
  for (const name of [...expressions, ...variables].flatMap(asked)) t.ok(names.has(name), name)
  t.strictSame(
    [...names].filter(name => !expressions.join().includes(name ?? '') && !/_(?:sum|count)$/.test(name ?? '')),
    [],
    'every metric is on a dashboard'
  )
})

t.test('alerts use existing error codes', async t => {
  const codes = rules.flatMap(({ expr }) =>
    [...expr.matchAll(/code=~"([^"]+)"/g)].flatMap(([, list = '']) => list.split('|'))
  )
  t.not(codes.length, 0)
  for (const code of codes) t.ok(Object.hasOwn(ERRORS, code), code)
})

t.test('every alert has a section in the runbook, and the other way around', async t => {
  const sections = [...runbook.matchAll(/^### (KafscaleMcp\w+)\n([^]*?)(?=^#|$(?![^]))/gm)].map((
    [, name = '', text = '']
  ) => ({ name, text }))
  t.strictSame(sections.map(({ name }) => name), rules.map(({ alert }) => alert))
  for (const { text, name } of sections) {
    for (const part of ['**Meaning.**', '**Look.**', '**Do.**']) t.match(text, part, name)
  }
  for (const { alert, labels, annotations } of rules) {
    t.equal(annotations['runbook_url'], `docs/runbook.md#${alert.toLowerCase()}`)
    t.match(labels['severity'], /^(?:warning|critical)$/)
    t.ok(annotations['summary'] && annotations['description'])
  }
})

t.test('the links of the runbook exist', async t => {
  const links = [...runbook.matchAll(/\]\(((?!https?:)[^)#]*)(?:#([^)]*))?\)/g)]
  t.ok(links.length > 10)
  for (const [, path = '', anchor] of links) {
    const file = join(ROOT, 'docs', path === '' ? 'runbook.md' : path)
    t.ok(existsSync(file), path)
    if (anchor === undefined) continue
    const headings = [...readFileSync(file, 'utf8').matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) =>
      heading.toLowerCase().replace(/[^\w -]/g, '').replaceAll(' ', '-')
    )
    t.ok(headings.includes(anchor), anchor)
  }
})

t.test('dashboards are portable, and their panels do not overlap', async t => {
  t.not(dashboards.length, 0)
  for (const { templating, panels, uid, title } of dashboards) {
    t.ok(uid && title)
    t.match(templating.list[0], { name: 'datasource', type: 'datasource' })
    for (const panel of panels.filter(({ type }) => type !== 'row')) {
      t.not(panel.targets?.length ?? 0, 0, panel.title)
      for (
        const { uid } of [
          panel.datasource ?? { uid: '' },
          ...panel.targets?.map(({ datasource }) => datasource) ?? [],
        ]
      ) t.match(uid, /^\$\{datasource\}$/, panel.title)
    }
    const taken = panels.flatMap(({ gridPos: { x, y, w, h } }) =>
      Array.from({ length: w * h }, (_, cell) => `${x + cell % w},${y + Math.floor(cell / w)}`)
    )
    t.equal(new Set(taken).size, taken.length)
    t.ok(panels.every(({ gridPos: { x, w } }) => x + w <= 24))
  }
})

t.test('rules and expressions are valid', needsPromtool(), async t => {
  t.doesNotThrow(() => promtool(['check', 'rules', alertsFile]))
  const file = join(t.testdir(), 'expressions.yaml')
  const write = (list: string[]) =>
    writeFileSync(
      file,
      JSON.stringify({
        groups: [{
          name: 'dashboards',
          rules: list.map((expr, index) => ({
            record: `test:panel:${index}`,
            expr: expr.replaceAll('$__rate_interval', '5m'),
          })),
        }],
      })
    )
  write(expressions)
  t.doesNotThrow(() => promtool(['check', 'rules', file]))
  write([...expressions, 'sum by ('])
  t.throws(() => promtool(['check', 'rules', file]))
})

// --- Firing

/** The series of a service, one value per minute, in promtool's notation. */
type Series = Record<string, string>

const LABELS = 'namespace="kafscale",job="mcp",instance="a:9090"'
/** Two hours of a healthy service: 10 calls per second, some of which fail because of the caller. */
const HEALTHY: Series = {
  'mirror_state{state="synced"}': '1x120',
  'mirror_state{state="stale"}': '0x120',
  'mirror_state{state="unavailable"}': '0x120',
  mirror_resyncs_total: '0x60 1x60',
  'audit_sink_up{sink="file"}': '1x120',
  'audit_records_total{sink="file",state="written"}': '0+600x120',
  'audit_records_total{sink="file",state="missed"}': '0x120',
  audit_records_lost_total: '0x120',
  'audit_head_file{state="ok"}': '1x120',
  'audit_head_file{state="failed"}': '0x120',
  'audit_head_file{state="contradiction"}': '0x120',
  'authentication_failures_total{reason="no_token"}': '0+600x120',
  'authentication_failures_total{reason="expired_token"}': '0+60x120',
  'authentication_failures_total{reason="invalid_token"}': '0+6x120',
  'authentication_failures_total{reason="unverifiable"}': '0x120',
  'tool_calls_total{tool="list_topics",outcome="ok"}': '0+300x120',
  'tool_calls_total{tool="list_topics",outcome="error"}': '0+300x120',
  'tool_errors_total{tool="list_topics",code="INVALID_ARGUMENT"}': '0+290x120',
  'tool_errors_total{tool="list_topics",code="INTERNAL"}': '0+10x120',
  'http_responses_total{route="/mcp",status="200"}': '0+600x120',
  'http_responses_total{route="/mcp",status="401"}': '0+600x120',
  'http_responses_total{route="/mcp",status="503"}': '0+10x120',
  'http_responses_total{route="/readyz",status="503"}': '0+600x120',
  'tool_call_duration_seconds_bucket{tool="list_topics",le="0.005"}': '0+599x120',
  'tool_call_duration_seconds_bucket{tool="list_topics",le="1"}': '0+600x120',
  'tool_call_duration_seconds_bucket{tool="list_topics",le="5"}': '0+600x120',
  'tool_call_duration_seconds_bucket{tool="list_topics",le="+Inf"}': '0+600x120',
  'tool_call_duration_seconds_count{tool="list_topics"}': '0+600x120',
  // A change an hour: one waits for its approval for half of it, and the webhook tells approvers.
  'changes_total{tool="create_topic",state="applied"}': '0x29 1x60 2x29',
  'changes_total{tool="create_topic",state="failed"}': '0x59 1x60',
  'changes_total{tool="create_topic",state="ambiguous"}': '0x120',
  'changes_total{tool="create_topic",state="reverted"}': '0x120',
  changes_pending: '1x30 0x30 1x30 0x29',
  changes_oldest_pending_seconds: '0+60x30 0x29 0+60x30 0x29',
  changes_ambiguous: '0x120',
  change_lock_held: '0x30 1 0x89',
  break_glass_total: '0x120',
  break_glass_unreviewed: '0x120',
  'webhook_messages_total{result="delivered"}': '0x29 1x60 2x29',
  'webhook_messages_total{result="undelivered"}': '0x120',
  ledger_up: '1x120',
}

/** Asserts which alerts fire at a minute. */
function firing (t: Test, series: Series, minute: number, expected: string[]): void {
  const labelled = (name: string) => name.endsWith('}') ? name.replace(/\}$/, `,${LABELS}}`) : `${name}{${LABELS}}`
  const test = {
    rule_files: [alertsFile],
    evaluation_interval: '1m',
    tests: [{
      interval: '1m',
      input_series: Object.entries(series).map(([name, values]) => ({
        series: `kafscale_mcp_${labelled(name)}`,
        values,
      })),
      promql_expr_test: [{
        expr: 'count by (alertname) (ALERTS{alertstate="firing"})',
        eval_time: `${minute}m`,
        exp_samples: expected.map(alert => ({ labels: `{alertname="${alert}"}`, value: 1 })),
      }],
    }],
  }
  const file = join(t.testdir(), 'test.yaml')
  writeFileSync(file, JSON.stringify(test))
  t.doesNotThrow(() => promtool(['test', 'rules', file]), `at minute ${minute}: ${expected.join(', ') || 'nothing'}`)
}

/** Failures at minute 60, the alert, a minute before it fires and one by which it does. */
const failures: { what: string, series: Series, alert: string, by: number, notYet: number }[] = [
  {
    what: 'etcd is down',
    series: { 'mirror_state{state="synced"}': '1x59 0x60', 'mirror_state{state="stale"}': '0x59 1x60' },
    alert: 'KafscaleMcpMirrorStale',
    by: 63,
    notYet: 61,
  },
  {
    what: 'etcd was never reachable',
    series: { 'mirror_state{state="synced"}': '0x120', 'mirror_state{state="unavailable"}': '1x120' },
    alert: 'KafscaleMcpMirrorStale',
    by: 3,
    notYet: 1,
  },
  {
    what: 'a sink fails while there are no calls',
    series: { 'audit_sink_up{sink="file"}': '1x59 0x60' },
    alert: 'KafscaleMcpAuditFailing',
    by: 62,
    notYet: 60,
  },
  {
    what: 'a sink misses some records and recovers',
    series: { 'audit_records_total{sink="file",state="missed"}': '0x59 3x60' },
    alert: 'KafscaleMcpAuditFailing',
    by: 62,
    notYet: 60,
  },
  {
    what: 'records are lost',
    series: { audit_records_lost_total: '0x59 1+1x60' },
    alert: 'KafscaleMcpAuditFailing',
    by: 62,
    notYet: 60,
  },
  {
    what: 'the head file cannot be written',
    series: { 'audit_head_file{state="failed"}': '0x59 1x60' },
    alert: 'KafscaleMcpAuditFailing',
    by: 62,
    notYet: 60,
  },
  {
    what: 'the audit log contradicts its head file',
    series: { 'audit_head_file{state="contradiction"}': '0x59 1x60' },
    alert: 'KafscaleMcpAuditContradiction',
    by: 60,
    notYet: 59,
  },
  {
    what: 'someone guesses tokens',
    series: { 'authentication_failures_total{reason="invalid_token"}': '0+6x59 400+120x60' },
    alert: 'KafscaleMcpAuthFailuresRising',
    by: 70,
    notYet: 62,
  },
  {
    what: 'an issuer is down',
    series: { 'authentication_failures_total{reason="unverifiable"}': '0x59 0+120x60' },
    alert: 'KafscaleMcpAuthFailuresRising',
    by: 70,
    notYet: 62,
  },
  {
    what: 'calls are slow',
    series: {
      'tool_call_duration_seconds_bucket{tool="list_topics",le="0.005"}': '0+599x59 35341+300x60',
      'tool_call_duration_seconds_bucket{tool="list_topics",le="1"}': '0+600x59 35400+550x60',
    },
    alert: 'KafscaleMcpSlowCalls',
    by: 75,
    notYet: 65
  },
  {
    what: 'calls fail',
    series: { 'tool_errors_total{tool="list_topics",code="INTERNAL"}': '0+10x59 590+100x60' },
    alert: 'KafscaleMcpErrorRate',
    by: 70,
    notYet: 62,
  },
  {
    what: 'the service is overloaded',
    series: { 'http_responses_total{route="/mcp",status="503"}': '0+10x59 590+300x60' },
    alert: 'KafscaleMcpErrorRate',
    by: 70,
    notYet: 62,
  },
  {
    what: 'the connection to etcd fails again and again',
    series: { mirror_resyncs_total: '0x59 0+1x60' },
    alert: 'KafscaleMcpResyncs',
    by: 66,
    notYet: 60,
  },
  {
    what: 'nobody knows what a change did',
    series: { changes_ambiguous: '0x59 1x60' },
    alert: 'KafscaleMcpChangeAmbiguous',
    by: 61,
    notYet: 60,
  },
  {
    what: 'another writer undoes a change',
    series: { 'changes_total{tool="create_topic",state="reverted"}': '0x59 1x60' },
    alert: 'KafscaleMcpChangeReverted',
    by: 60,
    notYet: 59,
  },
  {
    what: 'somebody breaks the glass',
    series: { break_glass_unreviewed: '0x59 1x60' },
    alert: 'KafscaleMcpBreakGlass',
    by: 60,
    notYet: 59,
  },
  {
    what: 'nobody approves a change',
    series: { changes_oldest_pending_seconds: '0x29 0+60x90' },
    alert: 'KafscaleMcpApprovalWaiting',
    by: 91,
    notYet: 90,
  },
  {
    what: 'the ledger of changes is down',
    series: { ledger_up: '1x59 0x60' },
    alert: 'KafscaleMcpLedgerDown',
    by: 62,
    notYet: 61,
  },
  {
    what: 'the webhook does not accept a message',
    series: { 'webhook_messages_total{result="undelivered"}': '0x59 1x60' },
    alert: 'KafscaleMcpWebhookFailing',
    by: 60,
    notYet: 59,
  },
]

t.test('alerts', needsPromtool(), async t => {
  t.test('do not fire while the service is healthy', async t => {
    for (const minute of [1, 20, 65, 119]) firing(t, HEALTHY, minute, [])
  })
  for (const { what, series, alert, by, notYet } of failures) {
    t.test(`include ${alert} when ${what}`, async t => {
      const changed = { ...HEALTHY, ...series }
      t.strictSame(Object.keys(changed).length, Object.keys(HEALTHY).length)
      firing(t, changed, notYet, [])
      firing(t, changed, by, [alert])
    })
  }
  t.strictSame(
    [...new Set(failures.map(({ alert }) => alert))].sort(),
    rules.map(({ alert }) => alert).sort(),
    'every alert is tested'
  )
})

t.test('a steady rate of failed authentications does not fire an alert', needsPromtool(), async t => {
  const day = 24 * 60
  const steady = { 'authentication_failures_total{reason="invalid_token"}': `0+60x${day + 60}` }
  firing(t, steady, day + 30, [])
})

t.test('the service exports every series of these tests', needsEtcd(), async t => {
  const app = await experienced(t)
  const page = [...samples((await app.telemetry.page()).text).keys()]
  const shape = (name: string) =>
    `${name.split('{')[0]}{${[...name.matchAll(/(\w+)="/g)].map(([, label]) => label).sort().join()}}`
  const known = new Set(page.map(shape))
  for (const name of Object.keys(HEALTHY)) t.ok(known.has(shape(`kafscale_mcp_${name}`)), name)
})
