import { readFileSync } from 'node:fs'
import { type ChannelCredentials, credentials } from '@grpc/grpc-js'

/** Paths of PEM files. Without a CA, the system's CAs are trusted. */
interface TlsFiles { caFile?: string | undefined, certFile?: string | undefined, keyFile?: string | undefined }

/** TLS with the files that are set; plain text without `files`. */
export function channelCredentials (files: TlsFiles | undefined): ChannelCredentials {
  const read = (path: string | undefined) => path === undefined ? null : readFileSync(path)
  return files
    ? credentials.createSsl(read(files.caFile), read(files.keyFile), read(files.certFile))
    : credentials.createInsecure()
}
