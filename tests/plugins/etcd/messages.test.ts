import t from 'tap'
import { authenticate, range, watch } from '../../../plugins/etcd/messages.ts'

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex')
// A field that a newer etcd might add: number 100, a varint.
const UNKNOWN = 'a00601'

t.test('requests are serialized as etcd expects them', async t => {
  t.equal(authenticate.serialize({ name: 'a', password: 'b' }).toString('hex'), '0a01611201' + '62')
  t.equal(range.serialize({ key: Buffer.from('a') }).toString('hex'), '0a0161' + '1800' + '2000' + '4000' + '5000')
  t.equal(
    range.serialize({
      key: Buffer.from('a'),
      rangeEnd: Buffer.from('b'),
      limit: 1,
      revision: 300,
      keysOnly: true,
      minModRevision: 2,
    }).toString('hex'),
    '0a0161' + '120162' + '1801' + '20ac02' + '4001' + '5002'
  )
  t.equal(
    watch.serialize({
      createRequest: { key: Buffer.from('a'), rangeEnd: Buffer.from('b'), startRevision: 5, fragment: true },
    }).toString('hex'),
    '0a0a' + '0a0161' + '120162' + '1805' + '4001'
  )
})

t.test('responses are deserialized, and unknown fields are skipped', async t => {
  t.strictSame(authenticate.deserialize(hex(`0a00 1203616263 ${UNKNOWN}`)), { token: 'abc' })

  const keyValue = '0a0161 1001 18ac02 2001 2a0162'
  const length = (text: string) => hex(text).length.toString(16).padStart(2, '0')
  const header = `0801 1002 18ac02 2003 ${UNKNOWN}`
  t.strictSame(
    range.deserialize(hex(`0a${length(header)} ${header} 12${length(keyValue)} ${keyValue} 1801 2007 ${UNKNOWN}`)),
    {
      header: { revision: 300 },
      kvs: [{ key: Buffer.from('a'), value: Buffer.from('b'), modRevision: 300 }],
      more: true,
      count: 7,
    }
  )

  const event = `0801 12${length(keyValue)} ${keyValue} ${UNKNOWN}`
  t.strictSame(
    watch.deserialize(
      hex(`0a${length(header)} ${header} 1801 2001 2809 320178 3801 5a${length(event)} ${event} ${UNKNOWN}`)
    ),
    {
      created: true,
      canceled: true,
      compactRevision: 9,
      cancelReason: 'x',
      fragment: true,
      events: [{ type: 'DELETE', kv: { key: Buffer.from('a'), value: Buffer.from('b'), modRevision: 300 } }],
    }
  )
  t.match(watch.deserialize(hex('5a00')), { events: [{ type: 'PUT', kv: { modRevision: 0 } }] })
})

t.test('a truncated message is refused or shorter', async t => {
  t.throws(() => range.deserialize(hex('0a05 18')), RangeError)
  t.strictSame(range.deserialize(hex('20 ff')).count, 127)
})
