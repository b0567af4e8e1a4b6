/** Runs the recipes of docs/identity-providers.md: tokens with the claims of real ones, through a real service. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from 'jose'
import t, { type Test } from 'tap'
import { type Environment, readConfig } from '../plugins/config/read.ts'
import { clientOf } from './support/authorization.ts'
import { readPage } from './support/pages.ts'
import { temporaryFolder } from './support/run.ts'
import { buildTestApp } from './support/service.ts'

const page = readPage('identity-providers.md')
const RESOURCE = 'https://kafscale-mcp.example/mcp'
const { privateKey, publicKey } = await generateKeyPair('RS256')
const jwks = JSON.stringify({ keys: [{ ...await exportJWK(publicKey), kid: 'a' }] })

/** The header `typ` of a provider's tokens. */
const TYP: Record<string, string | undefined> = {
  keycloak: 'JWT', entra: 'JWT', okta: undefined, cognito: undefined, dex: undefined, gke: undefined, eks: undefined,
}
const NAMES = Object.keys(TYP)

interface Recipe { env: Environment, tokens: JWTPayload[] }

/** The settings, and the claims of each token, issued now: its lifetime is that on the page. */
function recipeOf (name: string, dir: string): Recipe {
  writeFileSync(join(dir, 'policy.yaml'), page.block(`yaml policy ${name}`))
  const nowS = Math.floor(Date.now() / 1_000)
  return {
    env: page.environment(page.block(`sh env ${name}`), dir),
    tokens: page.ofKind(`json token ${name}`).map(text => {
      const claims = JSON.parse(text) as JWTPayload & { iat: number, exp: number }
      const { iat, exp, nbf } = claims
      return { ...claims, iat: nowS, exp: nowS + exp - iat, ...nbf !== undefined && { nbf: nowS } }
    }),
  }
}

/** A service with the settings of a recipe that has the keys of the issuer from a file. */
async function start (t: Test, dir: string, { OIDC_ISSUER: issuer, ...others }: Record<string, string | undefined>) {
  writeFileSync(join(dir, 'jwks.json'), jwks)
  const settings = { ...others, HTTP_ADDR: undefined, AUTH_JWKS_FILE: join(dir, 'jwks.json'), AUTH_JWKS_ISSUER: issuer }
  return await buildTestApp(t, {
    ...prefixed(settings),
    KAFSCALE_MCP_AUDIT_SINKS: `file:${join(dir, 'audit.jsonl')}`,
  })
}

const prefixed = (variables: object): Environment =>
  Object.fromEntries(Object.entries(variables).map(([name, value]) => [`KAFSCALE_MCP_${name}`, value as string]))
const unprefixed = (env: Environment) =>
  Object.fromEntries(Object.entries(env).map(([name, value]) => [name.replace('KAFSCALE_MCP_', ''), value]))

async function sign (name: string, claims: JWTPayload): Promise<string> {
  const typ = TYP[name]
  return await new SignJWT(claims).setProtectedHeader({ alg: 'RS256', kid: 'a', ...typ !== undefined && { typ } })
    .sign(privateKey)
}

t.test('every recipe has settings, a token and a policy', async t => {
  const kinds = NAMES.flatMap(name => [`json token ${name}`, `sh env ${name}`, `yaml policy ${name}`])
  t.strictSame(page.kinds, kinds.sort())
})

for (const name of NAMES) {
  t.test(name, async t => {
    const dir = temporaryFolder(t)
    const { env, tokens } = recipeOf(name, dir)

    t.test('the settings are valid', async t => {
      const { auth, warnings } = readConfig({ KAFSCALE_MCP_ETCD_ENDPOINTS: 'http://etcd:2379', ...env })
      t.ok(auth.mode === 'oidc' && auth.issuers.includes(String(tokens[0]?.iss)))
      t.equal(warnings.filter(warning => !/ID_TOKEN_ISSUERS is set/.test(warning)).join(), '')
    })

    t.test('its tokens are accepted, and the policy matches them', async t => {
      const app = await start(t, dir, unprefixed(env))
      for (const claims of tokens) {
        const answer = await clientOf(app, await sign(name, claims)).ask('explain_access')
        t.match(answer, {
          principal: { subject: claims.sub, issuer: claims.iss },
          roles: ['observer'],
        }, JSON.stringify(answer))
        const denied = (answer['tools'] as { allowed: boolean }[]).filter(({ allowed }) => !allowed)
        t.strictSame(denied, [])
      }
    })

    t.test('a token for another service is refused', async t => {
      const app = await start(t, dir, unprefixed(env))
      const { aud, ...claims } = tokens[0] ?? {}
      t.ok(aud)
      for (const other of [{}, { aud: 'https://other.example' }, { aud: String(claims.iss) }]) {
        const response = await clientOf(app, await sign(name, { ...claims, ...other })).request('tools/list')
        t.equal(response.statusCode, 401)
      }
    })
  })
}

t.test('what a recipe sets is needed', async t => {
  const needed: [name: string, setting: string, refusal: RegExp][] = [
    ['entra', 'OIDC_AUDIENCE', /401.*for another resource/s],
    ['entra', 'OIDC_SCOPE', /403.*The call requires: kafscale:observe/s],
    ['entra', 'OIDC_MAX_TOKEN_LIFETIME', /401.*valid for longer than the accepted 3600 s/s],
    ['cognito', 'OIDC_SCOPE', /403.*The call requires: kafscale:observe/s],
    ['dex', 'OIDC_AUDIENCE', /401.*for another resource/s],
    ['dex', 'OIDC_ID_TOKEN_ISSUERS', /401.*is an ID token/s],
  ]
  for (const [name, setting, refusal] of needed) {
    const dir = temporaryFolder(t)
    const { env, tokens: [claims = {}] } = recipeOf(name, dir)
    const app = await start(t, dir, { ...unprefixed(env), [setting]: undefined })
    const { statusCode, body } = await clientOf(app, await sign(name, claims))
      .request('tools/call', { name: 'list_topics', arguments: {} })
    t.match(`${statusCode} ${body}`, refusal, `${name} without ${setting}`)
  }
})

t.test('clients are told to request the advertised scope', async t => {
  const dir = temporaryFolder(t)
  const { env, tokens: [claims = {}] } = recipeOf('entra', dir)
  const app = await start(t, dir, unprefixed(env))
  const advertised = 'api://22222222-2222-2222-2222-222222222222/observe'
  t.match((await app.inject('/.well-known/oauth-protected-resource/mcp')).json(), {
    resource: RESOURCE,
    scopes_supported: [advertised],
  })
  const challengeOf = async (token?: string) =>
    (await clientOf(app, token).request('tools/call', { name: 'list_topics', arguments: {} }))
      .headers['www-authenticate']
  t.match(await challengeOf(), `scope="${advertised}"`)
  const lacking = await sign('entra', { ...claims, scp: 'openid' })
  t.match(await challengeOf(lacking), 'The call requires: observe.", resource_metadata=')
  t.match(await challengeOf(lacking), `scope="${advertised}"`)
  const { tools } = await clientOf(app, lacking).ask('explain_access') as { tools: { needs: string | null }[] }
  t.equal(tools[0]?.needs, `the scope observe, which clients request as ${advertised}`)
  t.equal(await challengeOf(await sign('entra', claims)), undefined)
})

t.test('several audiences are accepted, and nothing else', async t => {
  const dir = temporaryFolder(t)
  const { env, tokens: [claims = {}] } = recipeOf('okta', dir)
  const app = await start(t, dir, { ...unprefixed(env), OIDC_AUDIENCE: ' api://default , kafscale-mcp ' })
  for (
    const [aud, status] of [
      ['api://default', 200],
      ['kafscale-mcp', 200],
      [['x', 'kafscale-mcp'], 200],
      ['api://default , kafscale-mcp', 401],
      ['api://default/', 401],
      [RESOURCE, 401],
      [[], 401],
    ] as const
  ) {
    const client = clientOf(app, await sign('okta', { ...claims, aud: aud as string }))
    const { statusCode } = await client.request('tools/list')
    t.equal(statusCode, status, JSON.stringify(aud))
  }
})

t.test('the client of each provider is known', async t => {
  const clients: Record<string, string> = {
    keycloak: 'claude-code',
    entra: '33333333-3333-3333-3333-333333333333',
    okta: '0oa1gjh63g214q0Hq0g4',
    cognito: '1example23456789',
    dex: 'claude-code',
  }
  for (const [name, client] of Object.entries(clients)) {
    const dir = temporaryFolder(t)
    const { env, tokens: [claims = {}] } = recipeOf(name, dir)
    const app = await start(t, dir, unprefixed(env))
    t.match(await clientOf(app, await sign(name, claims)).ask('explain_access'), { principal: { client_id: client } })
  }
})

t.test('with ID_TOKEN_ISSUERS, tokens that declare to be something else stay refused', async t => {
  const dir = temporaryFolder(t)
  const { env, tokens: [claims = {}] } = recipeOf('dex', dir)
  const app = await start(t, dir, unprefixed(env))
  for (
    const more of [
      { c_hash: 'x' }, { s_hash: 'x' }, { typ: 'ID' }, { token_use: 'id' }, { typ: 'Refresh' }, { events: {} },
    ]
  ) {
    const { statusCode } = await clientOf(app, await sign('dex', { ...claims, ...more })).request('tools/list')
    t.equal(statusCode, 401, JSON.stringify(more))
  }
})
