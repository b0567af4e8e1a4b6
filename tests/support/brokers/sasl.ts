/** The server's side of SASL PLAIN and SCRAM (RFC 4616, RFC 5802), for one user. */
import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto'

export interface SaslUser { username: string, password: string }

const ITERATIONS = 4_096

export class SaslSession {
  readonly mechanisms = ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512']
  /** Whether the client has signed in. */
  done = false

  readonly #user: SaslUser
  #mechanism = ''
  #scram: { clientFirst: string, serverFirst: string, salt: Buffer } | undefined

  constructor (user: SaslUser) {
    this.#user = user
  }

  /** @returns whether there is such a mechanism */
  start (mechanism: string): boolean {
    this.#mechanism = mechanism
    return this.mechanisms.includes(mechanism)
  }

  /** @returns the answer; `undefined` if the client is not who it says */
  next (message: Buffer): Buffer | undefined {
    const { username, password } = this.#user
    const text = message.toString()
    if (this.#mechanism === 'PLAIN') {
      this.done = text === `\0${username}\0${password}`
      return this.done ? Buffer.alloc(0) : undefined
    }
    if (!this.#scram) {
      const [, user, nonce] = /^n,,n=([^,]*),r=([^,]*)$/.exec(text) ?? []
      if (user !== username) return undefined
      const salt = randomBytes(16)
      const ownNonce = randomBytes(9).toString('base64url')
      const serverFirst = `r=${nonce}${ownNonce},s=${salt.toString('base64')},i=${ITERATIONS}`
      this.#scram = { clientFirst: text.slice('n,,'.length), serverFirst, salt }
      return Buffer.from(serverFirst)
    }
    const [, withoutProof = '', proof = ''] = /^(.*),p=([^,]*)$/.exec(text) ?? []
    const hash = this.#mechanism === 'SCRAM-SHA-256' ? 'sha256' : 'sha512'
    const hmac = (key: Buffer, data: string) => createHmac(hash, key).update(data).digest()
    const salted = pbkdf2Sync(password, this.#scram.salt, ITERATIONS, hash === 'sha256' ? 32 : 64, hash)
    const exchange = [this.#scram.clientFirst, this.#scram.serverFirst, withoutProof].join()
    const clientKey = hmac(salted, 'Client Key')
    const signature = hmac(createHash(hash).update(clientKey).digest(), exchange)
    this.done = Buffer.from(proof, 'base64').equals(clientKey.map((byte, index) => byte ^ signature[index]!))
    return this.done ? Buffer.from(`v=${hmac(hmac(salted, 'Server Key'), exchange).toString('base64')}`) : undefined
  }
}
