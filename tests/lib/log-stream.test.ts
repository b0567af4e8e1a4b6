import t from 'tap'
import { logStream } from '../../lib/log-stream.ts'

t.test('a log line has no character that cannot be seen, except its end', async t => {
  const written = t.capture(process.stderr, 'write', () => true)
  logStream.write('{"msg":"a\u009b31mb\u200b","level":20}\n')
  t.strictSame(written().map(({ args: [text] }) => text), ['{"msg":"a\\u009b31mb\\u200b","level":20}\n'])
})
