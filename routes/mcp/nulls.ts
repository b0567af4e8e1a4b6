type Members = Record<string, unknown>

/**
 * Removes what is `null` from the parameters of a message, or of each message in a batch, and returns it. Some clients
 * write `null` for what is absent, which the SDK's schemas do not accept. The content of a tool's arguments stays as it
 * is: the tool registry reads it.
 */
export function withoutNulls (json: unknown): unknown {
  for (const message of [json].flat().filter(isObject)) {
    if (message['params'] === null) delete message['params']
    if (isObject(message['params'])) removeNulls(message['params'], 'arguments')
  }
  return json
}

/** @param except the member whose content stays as it is */
function removeNulls (value: unknown, except?: string): void {
  if (Array.isArray(value)) for (const item of value) removeNulls(item)
  if (!isObject(value)) return
  for (const name of Object.keys(value)) {
    if (value[name] === null) delete value[name]
    else if (name !== except) removeNulls(value[name])
  }
}

function isObject (value: unknown): value is Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
