import { createPrivateKey, type KeyObject } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { ConfigError } from '../../errors.ts'
import { quote } from '../../lib/printable.ts'

/** The Ed25519 key that signs checkpoints. @throws {ConfigError} */
export function readSigningKey (path: string): KeyObject {
  try {
    const key = createPrivateKey(readFileSync(path, 'utf8'))
    if (key.asymmetricKeyType === 'ed25519') return key
  } catch {
    // The cause is left out: it may quote part of the file.
  }
  throw new ConfigError(
    `KAFSCALE_MCP_AUDIT_SIGNING_KEY_FILE is ${quote(path)}: ` +
      'expected a file with an unencrypted Ed25519 private key in PEM'
  )
}
