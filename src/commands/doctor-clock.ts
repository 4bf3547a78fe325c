// What the doctor finds of the clock: how far it is from those of the CA and of the DNS over HTTPS servers.

import { CLASS_IN, encodeQuery, typeNumbers } from '../../dns/wire/message.ts';
import type { Clock } from '../lib/clock.ts';
import { httpRequest } from '../lib/fetch.ts';
import { type Finding, findingsOf } from './doctor-report.ts';

const { ok, warn, fail } = findingsOf('clock');

/** A Date header has whole seconds, and the way takes some. */
const NOTABLE_MS = 30_000;
/** From here on signed requests are refused: AWS and TSIG (RFC 8945 §5.2.3) allow five minutes. */
const HARMFUL_MS = 5 * 60_000;

/** How far another clock is ahead of ours. */
export interface OtherClock {
  readonly of: string;
  readonly aheadMs: number;
}

export function clockFindings(clocks: readonly OtherClock[]): Finding[] {
  const [first] = clocks;
  if (first === undefined) return [];
  const off = clocks.filter(({ aheadMs }) => Math.abs(aheadMs) >= NOTABLE_MS);
  if (off.length === 0) return [ok('clock', `agrees with ${clocks.map(({ of }) => of).join(', ')}`)];
  const told = clocks.map(({ of, aheadMs }) => `${of} is ${span(aheadMs)}`).join(', ');
  if (off.length < clocks.length) {
    return [
      warn(
        'clock',
        told,
        'the others do not agree, so it cannot be told which clock is right',
        'compare with another clock',
      ),
    ];
  }
  const least = Math.min(...off.map(({ aheadMs }) => Math.abs(aheadMs)));
  return [
    (least >= HARMFUL_MS ? fail : warn)(
      'clock',
      told,
      'a wrong clock makes good certificates look expired, renews at the wrong time, and signs what DNS APIs refuse',
      "set the machine's clock: it comes from the host, or from NTP",
    ),
  ];
}

function span(aheadMs: number): string {
  const seconds = Math.round(Math.abs(aheadMs) / 1_000);
  return seconds < 1 ? 'the same' : `${seconds} s ${aheadMs > 0 ? 'ahead' : 'behind'}`;
}

/** One question, which any server answers; what it answers does not matter. Undefined: it has told no date. */
export async function clockOfDoh(
  url: string,
  clock: Clock,
  timeoutMs: number,
): Promise<OtherClock | undefined> {
  const query = encodeQuery(0, { name: '', type: typeNumbers.NS, class: CLASS_IN }, true).toString(
    'base64url',
  );
  const address = new URL(url);
  address.searchParams.set('dns', query);
  try {
    const { headers } = await httpRequest({ url: address.href, timeoutMs, maxBytes: 65_535 });
    const date = Date.parse(headers.date ?? '');
    if (Number.isNaN(date)) return undefined;
    return { of: address.host, aheadMs: date - clock.now().getTime() };
  } catch {
    // Whether it answers is another check's business.
    return undefined;
  }
}
