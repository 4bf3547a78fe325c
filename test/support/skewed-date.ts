// Loaded before a program: its date is off by SKEW_MS, as when somebody has set the clock; spans of time go on as they are.

const skewMs = Number(process.env.SKEW_MS ?? 0);
const RealDate = Date;

globalThis.Date = class extends RealDate {
  constructor(...args: [] | [number | string | Date]) {
    if (args.length === 0) super(RealDate.now() + skewMs);
    else super(...(args as [number]));
  }
  static override now(): number {
    return RealDate.now() + skewMs;
  }
} as DateConstructor;
