// The log: one JSON line an event, causes told as one sentence, stacks only for what nobody foresaw.

import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { test } from 'node:test';
import { DomainError } from '../../../src/lib/domain.ts';
import { createLog, describeError } from '../../../src/lib/log.ts';

function capture(readable: boolean) {
  const lines: string[] = [];
  const stream = new Writable({
    write(chunk, _encoding, done) {
      lines.push(String(chunk));
      done();
    },
  });
  return { lines, log: createLog({ stream, readable }) };
}

test('lines are JSON with level, time, message and fields', () => {
  const { lines, log } = capture(false);
  log.warn({ domain: 'a.example.com', err: new DomainError('no', 'say yes') }, 'renewal failed');
  const line = JSON.parse(lines[0]!) as Record<string, unknown>;
  assert.equal(line.level, 'warn');
  assert.equal(line.msg, 'renewal failed');
  assert.equal(line.domain, 'a.example.com');
  assert.deepEqual(line.err, { message: 'no: say yes', code: 'invalid-domain' });
  assert.match(String(line.time), /^\d{4}-\d\d-\d\dT/);
});

test('on a terminal a line is text, and hostile fields stay on it', () => {
  const { lines, log } = capture(true);
  log.info({ path: '/a\n2026 error forged' }, 'request');
  assert.equal(lines.length, 1);
  assert.equal(lines[0]!.trimEnd().split('\n').length, 1);
  assert.match(lines[0]!, /info {2}request {2}path="\/a\\n2026 error forged"/);
});

test('an error is told with its causes, and with its stack only if it has no code', () => {
  const cause = Object.assign(new Error('connection refused'), { code: 'ECONNREFUSED' });
  const coded = Object.assign(new Error('the CA cannot be reached', { cause }), { code: 'ca-unreachable' });
  assert.deepEqual(describeError(coded), {
    message: 'the CA cannot be reached: connection refused',
    code: 'ca-unreachable',
  });
  assert.match(describeError(new TypeError('x is undefined')).stack ?? '', /log\.test/);
  const loop = new Error('a');
  loop.cause = loop;
  assert.match(describeError(loop).message, /^a/);
});
