declare module 'oidc-provider' {
  import type { IncomingMessage, ServerResponse } from 'node:http'

  interface Grant {
    addOIDCScope (scope: string): void
    addResourceScope (resource: string, scope: string): void
    save (): Promise<string>
  }
  interface AccessToken {
    resourceServer: object
    save (): Promise<string>
  }

  export default class Provider {
    constructor (issuer: string, configuration: object)
    readonly Client: { find (id: string): Promise<object> }
    readonly Grant: new (properties: { accountId: string, clientId: string }) => Grant
    readonly ResourceServer: new (identifier: string, properties: object) => object
    readonly AccessToken: new (
      properties: { accountId: string, client: object, scope: string, gty: string }
    ) => AccessToken
    callback (): (request: IncomingMessage, response: ServerResponse) => Promise<void>
    interactionDetails (
      request: IncomingMessage,
      response: ServerResponse
    ): Promise<{
      prompt: { name: string }
      params: { client_id: string, resource: string }
      session?: { accountId: string }
    }>
    interactionFinished (request: IncomingMessage, response: ServerResponse, result: object): Promise<void>
  }
}

declare module 'oidc-provider/lib/adapters/memory_adapter.js' {
  export default class MemoryAdapter {}
}
