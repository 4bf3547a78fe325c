// How long a failed certificate waits.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { AcmeProblem } from '../../acme/answer.ts';
import { begun, entryFor, failed, heldUntil, obtained } from '../../acme/ledger.ts';
import type { LedgerEntry } from '../../acme/stored.ts';
import { parseDomain } from '../../src/lib/domain.ts';

const MINUTE = 60_000;
const DAY = 86_400_000;
const now = new Date('2026-01-01T00:00:00Z');
const names = [parseDomain('a.example')];
const waits = (entry: LedgerEntry) => (Date.parse(entry.notBefore) - now.getTime()) / MINUTE;
const refusal = (type: string, status: number, retryAfterMs: number | undefined) =>
  new AcmeProblem('POST x', { type, status, detail: 'no', subproblems: [], retryAfterMs });

test('failures wait 1, 10 and 100 minutes, then a day, with up to a tenth more', () => {
  let entry: LedgerEntry | undefined;
  const found: number[] = [];
  for (const _ of [1, 2, 3, 4, 5]) {
    entry = failed(entry, names, new Error('x'), now, 0);
    found.push(waits(entry));
  }
  assert.deepEqual(found, [1, 10, 100, 1440, 1440]);
  assert.equal(waits(failed(undefined, names, new Error('x'), now, 0.999999)) > 1.09, true);
});

test('a process killed in the middle goes on at once, but not in a loop', () => {
  let entry: LedgerEntry | undefined;
  const found: number[] = [];
  for (const _ of [1, 2, 3, 4, 5, 6, 7]) {
    entry = begun(entry, names, now);
    found.push(waits(entry));
  }
  assert.deepEqual(found, [0, 0, 1, 10, 100, 1440, 1440]);
});

test('a rate limit waits as the CA asks, wherever in the chain of causes it stands', () => {
  const limited = refusal('rateLimited', 429, 5000);
  assert.equal(waits(failed(undefined, names, limited, now, 0)), 5000 / MINUTE);
  const wrapped = new Error('order failed', { cause: refusal('about:blank', 503, 7 * MINUTE) });
  assert.equal(waits(failed(undefined, names, wrapped, now, 0)), 7);
  assert.equal(waits(failed(undefined, names, refusal('rateLimited', 429, undefined), now, 0)), 1);
});

test('a CA that keeps saying "at once" does not make us ask at once for ever', () => {
  let entry: LedgerEntry | undefined;
  for (const _ of [1, 2, 3, 4]) entry = failed(entry, names, refusal('rateLimited', 429, 0), now, 0);
  assert.equal(waits(entry!), 1440);
});

test('a delay that the CA gave with another refusal does not count', () => {
  assert.equal(waits(failed(undefined, names, refusal('unauthorized', 403, 0), now, 0)), 1);
});

test('a certificate that is due as soon as it is made is left alone for a while', () => {
  assert.equal(waits(obtained(names, 90 * DAY, undefined, now)), 60);
  assert.equal(waits(obtained(names, 90 * DAY, 60 * DAY, now)), 60);
  assert.equal(waits(obtained(names, 10 * MINUTE, undefined, now)), 1);
});

test('renewals that come too early never exceed what the CA allows for the same names', () => {
  assert.equal(waits(obtained(names, 90 * DAY, 4 * DAY, now)), 34 * 60);
  assert.equal(waits(obtained(names, 8 * MINUTE, MINUTE, now)), 2);
});

test('other names under the same first name start afresh', () => {
  const ledger = { 'a.example': failed(undefined, names, new Error('x'), now, 0) };
  assert.ok(entryFor(ledger, names));
  assert.equal(entryFor(ledger, [...names, parseDomain('b.example')]), undefined);
});

test('a next attempt further ahead than any wait that is ever written is not believed', () => {
  const entry = (waitMs: number, failures = 3): LedgerEntry => ({
    names,
    failures,
    crashes: 0,
    notBefore: new Date(now.getTime() + waitMs).toISOString(),
    reason: 'x',
  });
  assert.equal(heldUntil(entry(27 * 60 * MINUTE), now, true).getTime(), now.getTime() + 27 * 60 * MINUTE);
  for (const days of [2, 20, 3650]) assert.ok(heldUntil(entry(days * DAY), now, true) <= now);
  // A rest is for a certificate that is there.
  assert.ok(heldUntil(entry(34 * 60 * MINUTE, 0), now, true) > now);
  assert.ok(heldUntil(entry(34 * 60 * MINUTE, 0), now, false) <= now);
});

test('whatever the CA asks for and however often we failed, what is written is believed', () => {
  fc.assert(
    fc.property(
      fc.nat(20),
      fc.option(fc.integer({ min: 0, max: DAY })),
      fc.double({ min: 0, max: 0.999, noNaN: true }),
      (failures, asked, random) => {
        const before = { names, failures, crashes: 0, notBefore: now.toISOString(), reason: 'x' };
        const error = asked === null ? new Error('x') : refusal('rateLimited', 429, asked);
        for (const entry of [failed(before, names, error, now, random), begun(before, names, now)])
          assert.equal(heldUntil(entry, now, false).toISOString(), entry.notBefore);
        const rest = obtained(names, asked ?? 90 * DAY, failures * DAY, now);
        assert.equal(heldUntil(rest, now, true).toISOString(), rest.notBefore);
      },
    ),
  );
});
