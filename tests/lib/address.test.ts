import t from 'tap'
import { formatAddress, isConfidential, isLoopback } from '../../lib/address.ts'

t.test('an IPv6 address is in brackets', async t => {
  t.equal(formatAddress({ host: '127.0.0.1', port: 8090 }), '127.0.0.1:8090')
  t.equal(formatAddress({ host: 'localhost', port: 0 }), 'localhost:0')
  t.equal(formatAddress({ host: '::', port: 8090 }), '[::]:8090')
  t.equal(formatAddress({ host: '::ffff:127.0.0.1', port: 8090 }), '[::ffff:127.0.0.1]:8090')
})

t.test('which hosts can be reached from this machine only', async t => {
  for (const host of ['localhost', '127.0.0.1', '127.255.255.254', '::1', '[::1]', 'localhost.', 'LOCALHOST']) {
    t.ok(isLoopback(host), host)
  }
  for (const host of ['', '.', '::', '0.0.0.0', '127.1', 'localhost.example', '127.0.0.1.example', '::2']) {
    t.notOk(isLoopback(host), host)
  }
})

t.test('which URLs nobody in between can read', async t => {
  for (const url of ['https://a', 'http://localhost:1/x', 'http://127.1', 'http://[::1]:1']) {
    t.ok(isConfidential(url), url)
  }
  for (const url of ['http://a', 'ws://localhost', 'localhost', '']) t.notOk(isConfidential(url), url)
})
