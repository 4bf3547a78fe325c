// The expires of nginx: a time -> Expires and Cache-Control.

import type { Field } from './compiled.ts';

type Expiry =
  | { readonly kind: 'off' }
  | { readonly kind: 'epoch' }
  | { readonly kind: 'max' }
  | { readonly kind: 'after'; readonly seconds: number }
  | { readonly kind: 'daily'; readonly seconds: number };

const unitSeconds: Readonly<Record<string, number>> = {
  s: 1,
  m: 60,
  h: 3_600,
  d: 86_400,
  w: 604_800,
  M: 2_592_000,
  y: 31_536_000,
};

const TEN_YEARS = 315_360_000;

/** `30d`, `1h30m`, `-1`, `@15h30m`, `epoch`, `max`, `off`. Undefined: it is none of these. */
export function parseExpires(text: string): Expiry | undefined {
  if (text === 'off' || text === '') return { kind: 'off' };
  if (text === 'epoch' || text === 'max') return { kind: text };
  const found = /^(@|-|\+)?((?:\d+[smhdwMy]?\s*)+)$/.exec(text);
  if (found === null) return undefined;
  let seconds = 0;
  for (const [, count, unit = 's'] of found[2]!.matchAll(/(\d+)([smhdwMy])?/g))
    seconds += Number(count) * unitSeconds[unit]!;
  if (found[1] === '@') return seconds < 86_400 ? { kind: 'daily', seconds } : undefined;
  return { kind: 'after', seconds: found[1] === '-' ? -seconds : seconds };
}

/** `from`: seconds of the epoch, now or when a file was modified. */
export function expiresFields(text: string, from: number, now: number): readonly Field[] {
  const expiry = parseExpires(text);
  if (expiry === undefined) return [];
  if (expiry.kind === 'off') return [];
  if (expiry.kind === 'epoch') return fields('Thu, 01 Jan 1970 00:00:01 GMT', 'no-cache');
  if (expiry.kind === 'max') return fields('Thu, 31 Dec 2037 23:55:55 GMT', `max-age=${TEN_YEARS}`);
  const { kind, seconds } = expiry;
  const at = kind === 'after' ? from + seconds : nextTimeOfDay(seconds, now);
  const age = at - now;
  const date = new Date(at * 1000).toUTCString();
  return fields(date, age < 0 || (kind === 'after' && seconds < 0) ? 'no-cache' : `max-age=${age}`);
}

function nextTimeOfDay(seconds: number, now: number): number {
  const midnight = now - (now % 86_400);
  return midnight + seconds > now ? midnight + seconds : midnight + 86_400 + seconds;
}

function fields(date: string, cacheControl: string): readonly Field[] {
  return [
    { name: 'Expires', value: date },
    { name: 'Cache-Control', value: cacheControl },
  ];
}
