// Event logs of a machine (evidence/event-log.ts): replayed or refused with a code, whatever the agent says.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  EventLogError,
  parseEventLog,
  RUNTIME_EVENT,
  replay,
  systemEvent,
} from '../../../evidence/event-log.ts';
import { fuzzTarget } from '../target.ts';

const hex = fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes).toString('hex'));
const digest = fc.oneof(
  fc.constant(''),
  fc.uint8Array({ minLength: 48, maxLength: 48 }).map((bytes) => Buffer.from(bytes).toString('hex')),
  hex,
);
const name = fc.oneof(
  fc.constantFrom('system-ready', 'app-id', 'compose-hash', 'key-provider', ''),
  fc.string({ unit: 'binary' }),
);

const event = fc.record(
  {
    imr: fc.oneof(fc.nat({ max: 3 }), fc.integer(), fc.double()),
    event_type: fc.oneof(fc.constant(RUNTIME_EVENT), fc.nat(), fc.double()),
    digest,
    event: name,
    event_payload: hex,
    version: fc.oneof(fc.constantFrom(1, 2), fc.integer()),
  },
  { requiredKeys: ['imr', 'event_type', 'event'] },
);

const input = fc.oneof(
  { weight: 6, arbitrary: fc.array(event, { maxLength: 12 }).map((events) => JSON.stringify(events)) },
  { weight: 2, arbitrary: fc.json({ depthSize: 'medium' }) },
  { weight: 1, arbitrary: fc.string({ unit: 'binary' }) },
);

export const eventLog = fuzzTarget<string>({
  name: 'event log',
  input,
  check(text) {
    let events: ReturnType<typeof parseEventLog>;
    try {
      events = parseEventLog(text);
    } catch (error) {
      assert.ok(error instanceof EventLogError, String(error));
      return;
    }
    for (const register of replay(events)) assert.match(register, /^[0-9a-f]{96}$/);
    for (const asked of ['app-id', 'system-ready', 'compose-hash']) systemEvent(events, asked);
  },
  growing: {
    'many events': (size) => logOf(Math.ceil(size / 150)),
    'a deep value': (size) => '['.repeat(Math.min(size, 100_000)),
  },
});

function logOf(count: number): string {
  const one = { imr: 3, event_type: RUNTIME_EVENT, digest: '', event: 'app-id', event_payload: '00' };
  return JSON.stringify(Array(count).fill(one));
}
