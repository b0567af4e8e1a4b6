/** How a caller proved who it is. */
export type AuthMethod = 'oidc' | 'jwks' | 'token' | 'none'

/** Who is asking. It is all that the rest of the service learns of a token: the token itself goes no further. */
export interface Principal {
  /** `sub` of the token; `static-token` or `anonymous` where there is none. */
  subject: string
  /** `iss` of the token. */
  issuer: string | null
  /** `client_id`, or `azp`, of the token. */
  clientId: string | null
  method: AuthMethod
  /** `undefined` when the token has no scope claim, so that only a binding of the policy lets it do anything. */
  scopes: ReadonlySet<string> | undefined
  /** `jti` of the token, else a digest that tells one token from another and nothing else. */
  tokenId: string | null
  /** When the token ends; `null` where nothing ends. */
  expiresAt: Date | null
  /** The verified claims, for the policy's bindings. */
  claims: Readonly<Record<string, unknown>>
  /** Subject of the client's TLS certificate, where one was asked for. */
  clientCertificate: string | null
}
