/** Imported first into a process, sets its clock wrong by `CLOCK_SHIFT_MS`. The monotonic clock stays as it is. */
const shiftMs = Number(process.env['CLOCK_SHIFT_MS'])
const now = Date.now.bind(Date)
const RealDate = Date

globalThis.Date = new Proxy(RealDate, {
  construct: (target, args) => Reflect.construct(target, args.length === 0 ? [now() + shiftMs] : args),
  get: (target, name) => name === 'now' ? () => now() + shiftMs : Reflect.get(target, name),
})
