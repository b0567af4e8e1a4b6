import { execFileSync } from 'node:child_process'

/** Creates a CA. `issue` signs a certificate with it. */
export function authority (dir: string, name: string) {
  const openssl = (file: string, subject: string, ...more: string[]) => {
    const options = 'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1'.split(' ')
    const files = ['-keyout', `${file}.key`, '-out', `${file}.pem`, '-subj', subject]
    execFileSync('openssl', [...options, ...files, ...more], { cwd: dir, stdio: 'pipe' })
  }
  openssl(name, `/CN=${name}`)
  return {
    ca: `${dir}/${name}.pem`,
    issue (subject: string, file: string) {
      const extensions = ['subjectAltName=IP:127.0.0.1', 'basicConstraints=critical,CA:FALSE']
      openssl(
        file,
        subject,
        ...['-CA', `${name}.pem`, '-CAkey', `${name}.key`],
        ...extensions.flatMap(extension => ['-addext', extension])
      )
      return { cert: `${dir}/${file}.pem`, key: `${dir}/${file}.key` }
    },
  }
}
