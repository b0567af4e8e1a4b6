/** The sessions of people: encrypted cookies, so that any replica serves any page. */
import { createHash } from 'node:crypto'
import secureSession from '@fastify/secure-session'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { isLoopback } from '../../lib/address.ts'
import { type Principal, visitorPrincipal } from '../../plugins/auth/principal.ts'
import { reveal } from '../../plugins/config/secret.ts'
import { DECIDING_MAX_AGE_S, type PageSettings, type SignedIn, type SignInAttempt } from '../../plugins/sign-in.ts'
import type { Caller } from '../../tools/tool.ts'
import { sourceOf } from '../request-source.ts'

declare module 'fastify' {
  interface FastifyRequest { signIns: FastifyRequest['session'] }
}

declare module '@fastify/secure-session' {
  interface SessionData {
    visitor: StoredVisitor
    attempts: StoredSignIn[]
  }
}

/** How long somebody may look at pages after a sign-in. */
const SESSION_MAX_AGE_S = 3_600
/** How long somebody may take to sign in. */
const SIGN_IN_MAX_AGE_S = 600
/** Sign-ins in other tabs go on, up to this many. */
const MAX_SIGN_INS = 4
/** Browsers drop larger cookies, with their names and attributes. */
const MAX_COOKIE_BYTES = 3_800

/** What a session stores: never a token. */
interface StoredVisitor {
  sub: string
  iss: string | null
  id: string | null
  claims: Principal['claims']
  authTime: number | null
  /** When the session began, in milliseconds since the epoch: a stream outlives its cookie. */
  at: number
}

interface StoredSignIn extends SignInAttempt {
  /** The path of the page to return to. */
  to: string
}

/** Somebody who is signed in. */
export interface Visitor extends SignedIn {
  /** Whether the sign-in is recent enough to decide on a change. */
  mayDecide: boolean
}

export async function registerSessions (app: FastifyInstance, settings: PageSettings): Promise<void> {
  const url = new URL(settings.publicUrl)
  // The demo: a browser accepts neither Secure nor __Host- over plain HTTP.
  const isPlainLoopback = url.protocol === 'http:' && isLoopback(url.hostname)
  const prefix = isPlainLoopback ? '' : '__Host-'
  const cookie = { path: '/', httpOnly: true, secure: !isPlainLoopback, sameSite: 'lax' as const }
  const keys = settings.sessionKeys.map(key => Buffer.from(reveal(key), 'base64'))
  await app.register(secureSession, [
    {
      sessionName: 'session',
      cookieName: `${prefix}kafscale-mcp-session`,
      expiry: SESSION_MAX_AGE_S,
      key: keys.map(key => derive(key, 'session')),
      cookie,
    },
    {
      sessionName: 'signIns',
      cookieName: `${prefix}kafscale-mcp-sign-in`,
      expiry: SIGN_IN_MAX_AGE_S,
      key: keys.map(key => derive(key, 'sign-in')),
      cookie,
    },
  ])
}

/** A cookie of one purpose is of no use for another. */
function derive (key: Buffer, purpose: string): Buffer {
  return createHash('sha256').update(`kafscale-mcp ${purpose}\0`).update(key).digest()
}

/** Remembers a sign-in until the browser comes back from the issuer. */
export function rememberSignIn ({ signIns }: FastifyRequest, attempt: StoredSignIn): void {
  const others = signInsOf(signIns).filter(({ state }) => state !== attempt.state)
  signIns.set('attempts', [...others, attempt].slice(-MAX_SIGN_INS))
}

/** Forgets and returns the sign-in that an answer of the issuer belongs to: each is good for one answer. */
export function takeSignIn ({ signIns }: FastifyRequest, state: unknown): StoredSignIn | undefined {
  const attempts = signInsOf(signIns)
  const found = attempts.find(attempt => attempt.state === state)
  if (found) signIns.set('attempts', attempts.filter(attempt => attempt !== found))
  return found
}

function signInsOf (signIns: FastifyRequest['session']): StoredSignIn[] {
  return signIns.get('attempts') ?? []
}

/**
 * Begins a session, with nothing of the one before. Of the claims, it keeps those that give roles.
 * @returns whether it fits into a cookie
 */
export function beginSession (app: FastifyInstance, { session }: FastifyRequest, { principal, authTime }: SignedIn) {
  const visitor: StoredVisitor = {
    sub: principal.subject,
    iss: principal.issuer,
    id: principal.tokenId,
    claims: app.authorize.boundClaims(principal),
    authTime,
    at: Date.now(),
  }
  session.regenerate()
  if (Buffer.byteLength(JSON.stringify(visitor)) * 4 / 3 > MAX_COOKIE_BYTES) return false
  session.set('visitor', visitor)
  return true
}

/** Undefined if nobody is signed in. */
export function visitorOf ({ session }: FastifyRequest, clientId: string): Visitor | undefined {
  const stored = session.get('visitor')
  if (!stored || Date.now() - stored.at > SESSION_MAX_AGE_S * 1_000) return undefined
  const { sub, iss, id, claims, authTime } = stored
  const ageS = authTime === null ? Infinity : Date.now() / 1_000 - authTime
  return {
    principal: visitorPrincipal({ subject: sub, issuer: iss, clientId, tokenId: id, claims }),
    authTime,
    mayDecide: ageS <= DECIDING_MAX_AGE_S,
  }
}

/** The same person as a caller. */
export function callerOf (request: FastifyRequest, { principal }: Visitor): Caller {
  return {
    principal,
    receivedAt: new Date(),
    ...sourceOf(request),
  }
}
