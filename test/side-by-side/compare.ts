// Both sides asked the same: what is no difference at all is put aside, then what is allowed, and the rest must be equal.

import assert from 'node:assert/strict';
import type { Ask } from './clients.ts';
import { type Asked, differences, type Pair } from './differences.ts';
import type { Outcome, Protocol, Stage } from './stage.ts';

/** Fields about the connection, the moment and the framing of a message: its body is compared itself. */
const ofTheMoment = new Set([
  'date',
  'server',
  'connection',
  'keep-alive',
  'transfer-encoding',
  'content-length',
]);
const ofTheHop = new Set(['connection']);

/** What stands between the parts of a reply in several is made up for each. */
function withoutBoundary(outcome: Outcome): Outcome {
  const type = outcome.fields.find(([name]) => name === 'content-type')?.[1];
  const boundary = /^multipart\/byteranges; boundary=(\S+)$/.exec(type ?? '')?.[1];
  if (boundary === undefined) return outcome;
  const text = JSON.stringify(outcome).replaceAll(boundary, 'BOUNDARY');
  return JSON.parse(text) as Outcome;
}

function comparable(given: Outcome): Outcome {
  const outcome = withoutBoundary(given);
  const fields = outcome.fields
    .filter(([name]) => !ofTheMoment.has(name))
    .map(([name, value]) => [name, name === 'expires' ? fromNow(value) : value] as const)
    .sort(byText);
  const heard = outcome.heard.map((one) => ({
    ...one,
    fields: one.fields.filter(([name]) => !ofTheHop.has(name)),
  }));
  return { ...outcome, fields, heard };
}

/** Both sides are asked at once, and yet a second may end in between. */
function fromNow(date: string): string {
  const seconds = (Date.parse(date) - Date.now()) / 1000;
  return seconds > -60 && seconds < 1_000_000_000 ? `in ${Math.round(seconds / 10) * 10} seconds` : date;
}

function byText(a: readonly string[], b: readonly string[]): number {
  const [left, right] = [a.join(': '), b.join(': ')];
  return left < right ? -1 : left > right ? 1 : 0;
}

/** Which of the allowed differences there were. */
export type Met = Set<string>;

export async function compare(
  stage: Stage,
  ask: Ask & { readonly host: string },
  conf: string,
  protocol: Protocol,
  met: Met,
): Promise<void> {
  const [nginx, ours] = await Promise.all([stage.nginx.ask(ask, protocol), stage.ours.ask(ask, protocol)]);
  let pair: Pair = { nginx: comparable(nginx), ours: comparable(ours) };
  const asked: Asked = { ...ask, conf, protocol };
  for (const difference of differences) {
    const before = JSON.stringify(pair);
    pair = difference.even(pair, asked);
    if (JSON.stringify(pair) !== before) met.add(difference.what);
  }
  assert.deepEqual(pair.ours, pair.nginx, `${protocol} ${JSON.stringify(ask)}`);
}
