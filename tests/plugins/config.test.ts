import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import t from 'tap'
import { ConfigError, ConfigSchema, readConfig, type Config, type Environment } from '../../plugins/config.ts'

const PREFIX = 'KAFSCALE_MCP_'
const REQUIRED = { ETCD_ENDPOINTS: 'http://etcd:2379' }

/** Reads a configuration of variables without their prefix. */
function read (variables: Environment = {}): Config {
  return readConfig(prefixed({ ...REQUIRED, ...variables }))
}

function prefixed (variables: Environment): Environment {
  return Object.fromEntries(Object.entries(variables).map(([name, value]) => [PREFIX + name, value]))
}

/** The sentences that stop a start. */
function refusal (variables: Environment): string[] {
  try {
    read(variables)
  } catch (error) {
    if (error instanceof ConfigError) return error.message.split('\n')
    throw error
  }
  return []
}

/** A directory with a CA, and with a certificate and key that belong together. */
function pemFiles (dir: string): { ca: string, cert: string, key: string, otherKey: string } {
  const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: 'ignore' })
  const make = (name: string) => openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes',
    '-keyout', `${dir}/${name}.key`, '-out', `${dir}/${name}.pem`, '-subj', `/CN=${name}`)
  make('ca')
  make('client')
  return { ca: `${dir}/ca.pem`, cert: `${dir}/client.pem`, key: `${dir}/client.key`, otherKey: `${dir}/ca.key` }
}

t.test('nothing but the etcd endpoints is required; the rest has its default', async t => {
  t.strictSame(read(), {
    httpAddr: { host: '127.0.0.1', port: 8090 },
    etcdEndpoints: ['http://etcd:2379'],
    etcdUsername: undefined,
    etcdPassword: undefined,
    etcdCaFile: undefined,
    etcdCertFile: undefined,
    etcdKeyFile: undefined,
    brokerMetricsUrl: undefined,
    metricsMaxAge: 2_000,
    maxStaleness: 300_000,
    verifyInterval: 600_000,
    allowedHosts: undefined,
    allowedOrigins: undefined,
    logLevel: 'info',
    sessionTimeout: undefined,
    warnings: [],
  })
  t.ok(Object.isFrozen(read()))
})

t.test('a variable that is empty is unset', async t => {
  const empty = Object.fromEntries(Object.values(ConfigSchema).map(({ name }) => [name, '']))
  t.strictSame(read({ ...empty, ...REQUIRED, ETCD_PASSWORD_FILE: '' }), read())
  t.strictSame(refusal({ ETCD_ENDPOINTS: '' }),
    ['KAFSCALE_MCP_ETCD_ENDPOINTS is not set: expected etcd endpoints, comma separated; http or https, http when no scheme is given'])
})

t.test('what each variable takes', async t => {
  const dir = t.testdir({ password: 'secret\n' })
  const { ca, cert, key } = pemFiles(dir)
  const https = { ETCD_ENDPOINTS: 'https://etcd:2379' }
  const taken: [variables: Environment, property: keyof Config, value: unknown][] = [
    [{ HTTP_ADDR: '127.0.0.1:0' }, 'httpAddr', { host: '127.0.0.1', port: 0 }],
    [{ HTTP_ADDR: '127.8.9.10:65535' }, 'httpAddr', { host: '127.8.9.10', port: 65535 }],
    [{ HTTP_ADDR: 'localhost:8090' }, 'httpAddr', { host: 'localhost', port: 8090 }],
    [{ HTTP_ADDR: '[::1]:0' }, 'httpAddr', { host: '::1', port: 0 }],
    [{ ETCD_ENDPOINTS: ' http://a:2379 ,,b:2379, https://c ,' }, 'etcdEndpoints', ['http://a:2379', 'http://b:2379', 'https://c:2379']],
    [{ ETCD_ENDPOINTS: 'etcd' }, 'etcdEndpoints', ['http://etcd:2379']],
    [{ ETCD_ENDPOINTS: '[::1]:2379' }, 'etcdEndpoints', ['http://[::1]:2379']],
    [{ ETCD_ENDPOINTS: 'https://etcd:2379/' }, 'etcdEndpoints', ['https://etcd:2379']],
    [{ ETCD_USERNAME: 'reader', ETCD_PASSWORD: 'a,b @:/?#\u0085' }, 'etcdPassword', 'a,b @:/?#\u0085'],
    [{ ETCD_USERNAME: 'reader', ETCD_PASSWORD_FILE: `${dir}/password` }, 'etcdPassword', 'secret'],
    [{ ETCD_USERNAME: 'reader', ETCD_PASSWORD: 'x' }, 'etcdUsername', 'reader'],
    [{ ...https, ETCD_CA_FILE: ca }, 'etcdCaFile', ca],
    [{ ...https, ETCD_CERT_FILE: cert, ETCD_KEY_FILE: key }, 'etcdCertFile', cert],
    [{ ...https, ETCD_CERT_FILE: cert, ETCD_KEY_FILE: key }, 'etcdKeyFile', key],
    [{ ETCD_ENDPOINTS: 'http://a:2379,https://b:2379', ETCD_CA_FILE: ca }, 'etcdCaFile', ca],
    [{ BROKER_METRICS_URL: 'http://broker:9093/metrics' }, 'brokerMetricsUrl', ['http://broker:9093/metrics']],
    [{ BROKER_METRICS_URL: 'http://a/m, https://b/m' }, 'brokerMetricsUrl', ['http://a/m', 'https://b/m']],
    [{ BROKER_METRICS_URL: 'auto' }, 'brokerMetricsUrl', ['http://{host}:9093/metrics']],
    [{ BROKER_METRICS_URL: 'http://broker-{node_id}.{host}/' }, 'brokerMetricsUrl', ['http://broker-{node_id}.{host}/']],
    [{ METRICS_MAX_AGE: '500ms' }, 'metricsMaxAge', 500],
    [{ METRICS_MAX_AGE: '0' }, 'metricsMaxAge', 0],
    [{ MAX_STALENESS: '1h30m' }, 'maxStaleness', 5_400_000],
    [{ MAX_STALENESS: '0' }, 'maxStaleness', 0],
    [{ VERIFY_INTERVAL: '1.5m' }, 'verifyInterval', 90_000],
    [{ VERIFY_INTERVAL: '596h' }, 'verifyInterval', 2_145_600_000],
    [{ ALLOWED_HOSTS: 'MCP.example, [::1] ,127.0.0.1' }, 'allowedHosts', ['mcp.example', '[::1]', '127.0.0.1']],
    [{ ALLOWED_ORIGINS: 'https://App.example, http://localhost:3000/' }, 'allowedOrigins', ['https://app.example', 'http://localhost:3000']],
    ...['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'].map((level): [Environment, keyof Config, unknown] =>
      [{ LOG_LEVEL: level }, 'logLevel', level]),
    [{ SESSION_TIMEOUT: '10m' }, 'sessionTimeout', 600_000],
  ]
  for (const [variables, property, value] of taken) {
    t.strictSame(read(variables)[property], value, `${JSON.stringify(variables)} → ${property}`)
  }
  t.strictSame([...new Set(taken.map(([, property]) => property))].sort(), Object.keys(ConfigSchema).sort(), 'no variable is left out')
})

t.test('what each variable refuses, in one sentence that names it, its value and what was expected', async t => {
  const dir = t.testdir({ garbage: 'not a PEM file\n' })
  const { ca, cert, key, otherKey } = pemFiles(dir)
  const https = { ETCD_ENDPOINTS: 'https://etcd:2379' }
  const missing = `${dir}/missing`
  const garbage = `${dir}/garbage`
  const address = 'expected host:port, :port or [v6]:port, with a port from 0 to 65535'
  const loopback = 'expected a loopback address such as 127.0.0.1:8090: this service has no authentication yet and listens on loopback only'
  const duration = 'expected a duration such as 10m, 1h30m or 500ms'
  const endpoint = 'expected endpoints such as http://etcd:2379 or https://etcd:2379'
  const metricsUrl = 'expected URLs such as http://{host}:9093/metrics, or auto'
  const hosts = 'expected host names without scheme and port, IPv6 addresses in brackets'
  const origins = 'expected origins such as https://app.example or http://localhost:3000'
  const refused: [variables: Environment, sentence: string][] = [
    [{ HTTP_ADDR: '127.0.0.1' }, `KAFSCALE_MCP_HTTP_ADDR is "127.0.0.1": ${address}`],
    [{ HTTP_ADDR: '127.0.0.1:65536' }, `KAFSCALE_MCP_HTTP_ADDR is "127.0.0.1:65536": ${address}`],
    [{ HTTP_ADDR: '127.0.0.1:http' }, `KAFSCALE_MCP_HTTP_ADDR is "127.0.0.1:http": ${address}`],
    [{ HTTP_ADDR: '::1:8090' }, `KAFSCALE_MCP_HTTP_ADDR is "::1:8090": ${address}`],
    [{ HTTP_ADDR: 'http://127.0.0.1:8090' }, `KAFSCALE_MCP_HTTP_ADDR is "http://127.0.0.1:8090": ${address}`],
    [{ HTTP_ADDR: ':8090' }, `KAFSCALE_MCP_HTTP_ADDR is ":8090": ${loopback}`],
    [{ HTTP_ADDR: '0.0.0.0:8090' }, `KAFSCALE_MCP_HTTP_ADDR is "0.0.0.0:8090": ${loopback}`],
    [{ HTTP_ADDR: '[::]:8090' }, `KAFSCALE_MCP_HTTP_ADDR is "[::]:8090": ${loopback}`],
    [{ HTTP_ADDR: '127.0.0.1.example:8090' }, `KAFSCALE_MCP_HTTP_ADDR is "127.0.0.1.example:8090": ${loopback}`],
    [{ HTTP_ADDR: '127.0.0.999:8090' }, `KAFSCALE_MCP_HTTP_ADDR is "127.0.0.999:8090": ${loopback}`],
    [{ ETCD_ENDPOINTS: ' , ' }, 'KAFSCALE_MCP_ETCD_ENDPOINTS is " , ": expected at least one item'],
    [{ ETCD_ENDPOINTS: 'ftp://etcd' }, `KAFSCALE_MCP_ETCD_ENDPOINTS is "ftp://etcd": ${endpoint}`],
    [{ ETCD_ENDPOINTS: 'http://a:2379,http://b:x' }, `KAFSCALE_MCP_ETCD_ENDPOINTS is "http://a:2379,http://b:x": ${endpoint}`],
    [{ ETCD_ENDPOINTS: 'http://etcd/v3' }, 'KAFSCALE_MCP_ETCD_ENDPOINTS is "http://etcd/v3": expected endpoints without a path'],
    [{ ETCD_ENDPOINTS: 'http://etcd?a' }, 'KAFSCALE_MCP_ETCD_ENDPOINTS is "http://etcd?…": expected endpoints without a path'],
    [{ ...https, ETCD_CA_FILE: missing }, `KAFSCALE_MCP_ETCD_CA_FILE is "${missing}": expected a file with a certificate in PEM`],
    [{ ...https, ETCD_CA_FILE: dir }, `KAFSCALE_MCP_ETCD_CA_FILE is "${dir}": expected a file with a certificate in PEM`],
    [{ ...https, ETCD_CA_FILE: garbage }, `KAFSCALE_MCP_ETCD_CA_FILE is "${garbage}": expected a file with a certificate in PEM`],
    [{ ...https, ETCD_CERT_FILE: key, ETCD_KEY_FILE: key }, `KAFSCALE_MCP_ETCD_CERT_FILE is "${key}": expected a file with a certificate in PEM`],
    [{ ...https, ETCD_CERT_FILE: cert, ETCD_KEY_FILE: cert }, `KAFSCALE_MCP_ETCD_KEY_FILE is "${cert}": expected a file with an unencrypted private key in PEM`],
    [{ BROKER_METRICS_URL: ',' }, 'KAFSCALE_MCP_BROKER_METRICS_URL is ",": expected at least one item'],
    [{ BROKER_METRICS_URL: 'Auto' }, `KAFSCALE_MCP_BROKER_METRICS_URL is "Auto": ${metricsUrl}`],
    [{ BROKER_METRICS_URL: 'broker:9093/metrics' }, `KAFSCALE_MCP_BROKER_METRICS_URL is "broker:9093/metrics": ${metricsUrl}`],
    [{ BROKER_METRICS_URL: 'http://{hots}:9093/' }, 'KAFSCALE_MCP_BROKER_METRICS_URL is "http://{hots}:9093/": expected no placeholder but {host} and {node_id}'],
    ...['METRICS_MAX_AGE', 'MAX_STALENESS', 'VERIFY_INTERVAL', 'SESSION_TIMEOUT'].flatMap((name): [Environment, string][] => [
      ...['5', '-5m', '5 m', '1d', 'm', '1h-5m', 'Infinity', '.s', '5M'].map((text): [Environment, string] =>
        [{ [name]: text }, `KAFSCALE_MCP_${name} is "${text}": ${duration}`]),
      [{ [name]: '597h' }, `KAFSCALE_MCP_${name} is "597h": expected a duration of at most 596h`],
    ]),
    ...['mcp.example:8090', 'https://mcp.example', 'mcp.example/mcp', '::1', '*', 'a b', 'user@mcp.example'].map((text): [Environment, string] =>
      [{ ALLOWED_HOSTS: text }, `KAFSCALE_MCP_ALLOWED_HOSTS is "${text.replace('user', '…')}": ${hosts}`]),
    [{ ALLOWED_HOSTS: ',' }, 'KAFSCALE_MCP_ALLOWED_HOSTS is ",": expected at least one item'],
    ...['app.example', 'null', '*', 'ftp://app.example'].map((text): [Environment, string] =>
      [{ ALLOWED_ORIGINS: text }, `KAFSCALE_MCP_ALLOWED_ORIGINS is "${text}": ${origins}`]),
    [{ ALLOWED_ORIGINS: 'https://app.example/page' },
      'KAFSCALE_MCP_ALLOWED_ORIGINS is "https://app.example/page": expected origins: scheme, host and port, and nothing after them'],
    [{ LOG_LEVEL: 'verbose' }, 'KAFSCALE_MCP_LOG_LEVEL is "verbose": expected one of fatal, error, warn, info, debug, trace, silent'],
    [{ LOG_LEVEL: 'INFO' }, 'KAFSCALE_MCP_LOG_LEVEL is "INFO": expected one of fatal, error, warn, info, debug, trace, silent'],
    // Contradictions.
    [{ ETCD_USERNAME: 'reader' }, 'KAFSCALE_MCP_ETCD_USERNAME is set and KAFSCALE_MCP_ETCD_PASSWORD is not: expected both or neither'],
    [{ ETCD_PASSWORD: 'x' }, 'KAFSCALE_MCP_ETCD_PASSWORD is set and KAFSCALE_MCP_ETCD_USERNAME is not: expected both or neither'],
    [{ ...https, ETCD_CERT_FILE: cert }, 'KAFSCALE_MCP_ETCD_CERT_FILE is set and KAFSCALE_MCP_ETCD_KEY_FILE is not: expected both or neither'],
    [{ ...https, ETCD_KEY_FILE: key }, 'KAFSCALE_MCP_ETCD_KEY_FILE is set and KAFSCALE_MCP_ETCD_CERT_FILE is not: expected both or neither'],
    [{ ...https, ETCD_CERT_FILE: cert, ETCD_KEY_FILE: otherKey },
      `KAFSCALE_MCP_ETCD_KEY_FILE is "${otherKey}": expected the key of the certificate in KAFSCALE_MCP_ETCD_CERT_FILE`],
    [{ ETCD_ENDPOINTS: 'a:1,http://b:2', ETCD_CA_FILE: ca },
      'KAFSCALE_MCP_ETCD_ENDPOINTS is "http://a:1,http://b:2": expected an https endpoint, since TLS files are set'],
  ]
  for (const [variables, sentence] of refused) t.strictSame(refusal(variables), [sentence], JSON.stringify(variables))
})

t.test('every wrong variable is named at once', async t => {
  const sentences = refusal({ HTTP_ADDR: 'x', ETCD_ENDPOINTS: '', ETCD_USERNAME: 'reader', LOG_LEVEL: 'x', MAX_STALENESS: '1', METRICS_MAX_AGE: '2', VERIFY_INTERVAL: '3' })
  t.strictSame(sentences.map(sentence => /^KAFSCALE_MCP_(\w+)/.exec(sentence)?.[1]),
    ['HTTP_ADDR', 'ETCD_ENDPOINTS', 'METRICS_MAX_AGE', 'MAX_STALENESS', 'VERIFY_INTERVAL', 'LOG_LEVEL', 'ETCD_USERNAME'])
})

t.test('what is wrong by itself is no contradiction besides', async t => {
  const { cert } = pemFiles(t.testdir())
  const https = { ETCD_ENDPOINTS: 'https://etcd:2379' }
  t.equal(refusal({ ETCD_USERNAME: 'reader', ETCD_PASSWORD_FILE: '/missing' }).length, 1)
  t.equal(refusal({ ...https, ETCD_CERT_FILE: cert, ETCD_KEY_FILE: '/missing' }).length, 1)
  t.equal(refusal({ ETCD_ENDPOINTS: 'ftp://etcd', ETCD_CA_FILE: cert }).length, 1)
})

t.test('a secret can come from a file', async t => {
  const secretOf = (content: string) => {
    const file = `${t.testdirName}/secret`
    writeFileSync(file, content)
    return read({ ETCD_USERNAME: 'reader', ETCD_PASSWORD_FILE: file }).etcdPassword
  }
  t.testdir({})
  t.equal(secretOf('pass'), 'pass')
  t.equal(secretOf('pass\n'), 'pass', 'one trailing newline is dropped')
  t.equal(secretOf('pass\r\n'), 'pass')
  t.equal(secretOf('pass\n\n'), 'pass\n', 'only one')
  t.equal(secretOf(' pass '), ' pass ')

  t.strictSame(refusal({ ETCD_USERNAME: 'reader', ETCD_PASSWORD: 'pass', ETCD_PASSWORD_FILE: `${t.testdirName}/secret` }),
    ['KAFSCALE_MCP_ETCD_PASSWORD and KAFSCALE_MCP_ETCD_PASSWORD_FILE are both set: expected only one of them'])
  t.strictSame(refusal({ ETCD_USERNAME: 'reader', ETCD_PASSWORD_FILE: '/missing' }),
    ['KAFSCALE_MCP_ETCD_PASSWORD_FILE is "/missing": expected a file that can be read'])
  writeFileSync(`${t.testdirName}/empty`, '\n')
  t.strictSame(refusal({ ETCD_USERNAME: 'reader', ETCD_PASSWORD_FILE: `${t.testdirName}/empty` }),
    ['KAFSCALE_MCP_ETCD_USERNAME is set and KAFSCALE_MCP_ETCD_PASSWORD is not: expected both or neither'], 'empty means unset')
  t.strictSame(Object.values(ConfigSchema).filter(setting => 'secret' in setting).map(({ name }) => name), ['ETCD_PASSWORD'],
    'another secret needs tests of its own here')
})

t.test('no secret is ever shown', async t => {
  const secret = 'hunter2'
  const refused: Environment[] = [
    { ETCD_PASSWORD: secret },
    { ETCD_USERNAME: 'reader', ETCD_PASSWORD: secret, ETCD_PASSWORD_FILE: '/missing' },
    ...[`http://reader:${secret}@etcd:2379`, `reader:${secret}@etcd:2379`, `http://reader:p@${secret}@etcd`, `http://reader:${secret}/x@etcd`,
      `http://a,https://reader:x,${secret}@etcd`, `http:/reader:${secret}@etcd`].map(ETCD_ENDPOINTS => ({ ETCD_ENDPOINTS })),
    { BROKER_METRICS_URL: `http://reader:${secret}@broker/metrics` },
    { ALLOWED_ORIGINS: `https://reader:${secret}@app.example` },
  ]
  for (const variables of refused) {
    const sentences = refusal(variables)
    t.not(sentences.length, 0, `${JSON.stringify(variables)} is refused`)
    t.notMatch(sentences.join('\n'), secret)
  }
  t.strictSame(refusal({ ETCD_ENDPOINTS: `https://reader:${secret}@etcd:2379` }),
    ['KAFSCALE_MCP_ETCD_ENDPOINTS is "…@etcd:2379": expected endpoints such as http://etcd:2379 or https://etcd:2379, without credentials in it'])
})

t.test('a value can not pass for another line', async t => {
  t.strictSame(refusal({ LOG_LEVEL: 'x\nKAFSCALE_MCP_HTTP_ADDR is fine\u2028\u202e' }).map(sentence => sentence.split(': ')[0]),
    ['KAFSCALE_MCP_LOG_LEVEL is "x\\nKAFSCALE_MCP_HTTP_ADDR is fine\\u2028\\u202e"'])
})

t.test('a variable without meaning or effect is warned about by name, and refuses nothing', async t => {
  t.strictSame(read({ ZZZ: 'hunter2', AUTH_TOKEN: 'hunter2', LOG_LEVEL_FILE: '/x', SESSION_TIMEOUT: '10m' }).warnings, [
    'KAFSCALE_MCP_AUTH_TOKEN is not a variable of this service: it has no effect',
    'KAFSCALE_MCP_LOG_LEVEL_FILE is not a variable of this service: it has no effect',
    'KAFSCALE_MCP_ZZZ is not a variable of this service: it has no effect',
    'KAFSCALE_MCP_SESSION_TIMEOUT has no effect: sessions no longer exist',
  ])
  t.strictSame(readConfig({ ...prefixed(REQUIRED), KAFSCALE_ETCD_ENDPOINTS: 'x', PATH: 'x' }).warnings, [], 'other programs\' variables are theirs')
})
