import type { Static, TObject } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import type { Operation } from '../plugins/rbac/decide.ts'
import type { CallContext } from '../plugins/tool-registry/index.ts'

/** What a tool can ask: what is decorated for it, and nothing of requests, secrets or the server. */
export type Host = Readonly<Pick<FastifyInstance, 'authorize' | 'brokerMetrics' | 'metadata' | 'tools'>>

/** What a tool is. The schemas that are published are those that validate; fields are in the field's terms, with units. */
export interface Tool<Input extends TObject = TObject, Output extends TObject = TObject> {
  name: string
  title: string
  /** What it tells, when to prefer another tool, units: what a model chooses by. */
  description: string
  operation: Operation
  input: Input
  output: Output
  /** Asks decorated instances and returns the answer; failing is throwing one of `errors.ts`. */
  answer: (app: Host, input: Static<Input>, context: CallContext) => Static<Output> | Promise<Static<Output>>
}

/** Makes a tool a Fastify plugin that declares it. */
export function defineTool<Input extends TObject, Output extends TObject> (tool: Tool<Input, Output>) {
  return fp(async app => {
    // The registry gives a tool only what its own schema has accepted.
    app.tools.declare(tool as unknown as Tool)
  }, { name: tool.name, dependencies: ['tool-registry', 'metadata', 'broker-metrics'] })
}
