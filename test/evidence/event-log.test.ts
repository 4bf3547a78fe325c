// The event log replays to the registers in the quote, or it is found out.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import {
  EventLogError,
  type EventLogErrorCode,
  logFindings,
  parseEventLog,
  RUNTIME_EVENT,
  replay,
  runtimeDigest,
  systemEvent,
  withDigests,
} from '../../evidence/event-log.ts';
import { parseQuote } from '../../evidence/quote.ts';
import { readFixture, withoutFixtures } from '../support/attestation-fixtures.ts';

interface RawEvent {
  imr: number;
  event_type: number;
  digest: string;
  event: string;
  event_payload: string;
  version?: number;
}

const zeros = '00'.repeat(48);
const runtime = (event: string, event_payload = '', more: Partial<RawEvent> = {}): RawEvent => ({
  imr: 3,
  event_type: RUNTIME_EVENT,
  digest: '',
  event,
  event_payload,
  ...more,
});
const early = (imr: number, digest: string): RawEvent => ({
  imr,
  event_type: 4,
  digest,
  event: '',
  event_payload: '',
});
const parse = (...events: unknown[]) => parseEventLog(JSON.stringify(events));
const sha384 = (...parts: Buffer[]) => createHash('sha384').update(Buffer.concat(parts)).digest();

function refuses(text: string, code: EventLogErrorCode, message: RegExp) {
  assert.throws(
    () => parseEventLog(text),
    (error) => {
      assert.ok(error instanceof EventLogError);
      assert.match(error.message, message);
      return error.code === code;
    },
  );
}

test('an app cannot pass off its own event as the system’s', () => {
  const forged = 'ff'.repeat(32);
  const log = parse(
    runtime('app-id', '01'),
    runtime('system-ready'),
    runtime('compose-hash', forged),
    runtime('app-id', forged),
  );
  assert.equal(systemEvent(log, 'compose-hash'), undefined);
  assert.equal(systemEvent(log, 'app-id'), '01');
});

test('an event in another register, or of another type, is not the system’s either', () => {
  const log = parse(
    { ...early(1, 'ab'.repeat(48)), event: 'app-id', event_payload: '66' },
    { ...early(3, 'ab'.repeat(48)), event: 'app-id', event_payload: '66' },
    { ...early(3, 'ab'.repeat(48)), event: 'system-ready' },
    runtime('app-id', '01'),
    runtime('system-ready'),
  );
  assert.equal(systemEvent(log, 'app-id'), '01');
});

test('a digest that is not that of the content is found', () => {
  const digest = runtimeDigest('compose-hash', Buffer.from('aa', 'hex'));
  assert.equal(parse(runtime('compose-hash', 'aa', { digest })).length, 1);
  const forged = JSON.stringify([runtime('compose-hash', 'bb', { digest })]);
  refuses(forged, 'digest-mismatch', /event 0 \("compose-hash", RTMR3\)/);
});

test('what is not a log is refused', () => {
  for (const bad of [
    '',
    'null',
    '{}',
    '[null]',
    '[{}]',
    JSON.stringify([runtime('a', 'xyz')]),
    JSON.stringify([runtime('a', '', { imr: 4 })]),
    JSON.stringify([runtime('a', '', { imr: -1 })]),
    JSON.stringify([runtime('a', '', { event_type: 2 ** 32 })]),
    JSON.stringify([early(0, 'abcd')]),
  ]) {
    refuses(bad, 'unintelligible', /event log/);
  }
  refuses(JSON.stringify([early(0, '')]), 'unintelligible', /has no digest/);
});

test('registers start at zero and take each digest in the order of the log', () => {
  const [a, b] = ['ab'.repeat(48), 'cd'.repeat(48)];
  const one = sha384(Buffer.alloc(48), Buffer.from(a, 'hex'));
  const two = sha384(one, Buffer.from(b, 'hex'));
  assert.deepEqual(replay([]), [zeros, zeros, zeros, zeros]);
  assert.deepEqual(replay(parse(early(0, a), early(2, a), early(0, b))), [
    two.toString('hex'),
    zeros,
    one.toString('hex'),
    zeros,
  ]);
});

test('digests of the first version are those that machines in the field have', () => {
  const seen =
    'f9974020ef507068183313d0ca808e0d1ca9b2d1ad0c61f5784e7157c362c06536f5ddacdad4451693f48fcc72fff624';
  assert.equal(parse(runtime('system-preparing'))[0]!.digest, seen);
});

test('digests of the second version are over the canonical JSON', () => {
  const [event] = parse(runtime('app-id', '0A0b', { version: 2 }));
  const canonical = '{"name":"app-id","payload":"0a0b","type":134217729}';
  assert.equal(event!.digest, sha384(Buffer.from(canonical)).toString('hex'));
});

for (const name of ['quote-report.json', 'tdx-lite-getquote.json'] as const) {
  test(`a real log replays to all four registers of its quote (${name})`, {
    skip: withoutFixtures(name),
  }, () => {
    const { quote, event_log } = readFixture<{ quote: string; event_log: string }>(name);
    const log = parseEventLog(event_log);
    assert.deepEqual(replay(log), parseQuote(quote).rtmrs);
    const hash = systemEvent(log, 'compose-hash')!;
    assert.equal(hash.length, 64);
    assert.equal(systemEvent(log, 'app-id'), hash.slice(0, 40));
    assert.match(
      Buffer.from(systemEvent(log, 'key-provider')!, 'hex').toString(),
      /^\{"name":"(kms|local-sgx)"/,
    );
  });
}

const ofSystem = [
  runtime('system-preparing'),
  runtime('app-id', 'aa'),
  runtime('compose-hash', 'bb'),
  runtime('instance-id', 'cc'),
  runtime('boot-mr-done'),
  runtime('key-provider', 'dd'),
  runtime('system-ready'),
];
const findingsOf = (events: RawEvent[]) => logFindings(parseEventLog(JSON.stringify(events)));

test('a log in which it is doubtful what the system measured can be read, and says what is doubtful', () => {
  assert.deepEqual(findingsOf(ofSystem), []);
  assert.deepEqual(findingsOf(ofSystem.slice(0, -1)), [{ code: 'no-system-ready' }]);
  assert.deepEqual(findingsOf(ofSystem.filter(({ event }) => event !== 'instance-id')), [
    { code: 'missing', name: 'instance-id' },
  ]);
  assert.deepEqual(findingsOf([runtime('app-id', 'ee'), ...ofSystem, ...ofSystem]), [
    { code: 'repeated', name: 'app-id', times: 2 },
  ]);
  assert.deepEqual(
    findingsOf([]).map(({ code }) => code),
    ['no-system-ready', 'missing', 'missing', 'missing', 'missing'],
  );
});

test('what the app adds once the system is ready is no finding, whatever it is called', () => {
  assert.deepEqual(findingsOf([...ofSystem, runtime('app-id', 'ee'), runtime('system-ready')]), []);
  // Of another register, or of another type: not of the system.
  const foreign = [
    runtime('app-id', 'ee', { imr: 2, digest: zeros }),
    runtime('app-id', 'ee', { event_type: 4, digest: zeros }),
  ];
  assert.deepEqual(findingsOf([...foreign, ...ofSystem]), []);
});

test('digests that were left out are filled in so that they replay as they stand, and all else stays', () => {
  const log = [early(0, 'ab'.repeat(48)), ...ofSystem, runtime('mine', '00', { version: 2 })].map(
    (event) => ({
      ...event,
      more: { kept: true },
    }),
  );
  const filled = JSON.parse(withDigests(JSON.stringify(log))) as RawEvent[];
  assert.deepEqual(
    filled.map(({ digest: _, ...event }) => event),
    log.map(({ digest: _, ...event }) => event),
  );
  const plain = filled
    .filter(({ imr }) => imr === 3)
    .reduce<Buffer>(
      (value, { digest }) => createHash('sha384').update(value).update(Buffer.from(digest, 'hex')).digest(),
      Buffer.alloc(48),
    );
  assert.equal(plain.toString('hex'), replay(parseEventLog(JSON.stringify(log)))[3]);
  const whole = JSON.stringify(filled, undefined, 1);
  assert.equal(withDigests(whole), whole);
});
