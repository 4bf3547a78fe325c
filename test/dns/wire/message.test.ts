// The codec of DNS messages: faithful to what is well formed, and neither fooled nor held up by what is not.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DnsError } from '../../../dns/error.ts';
import {
  decodeMessage,
  encodeMessage,
  encodeName,
  encodeQuery,
  recordValue,
  typeNumbers,
} from '../../../dns/wire/message.ts';

const header = (counts: readonly number[]) => {
  const bytes = Buffer.alloc(12);
  bytes.writeUInt16BE(0x8180, 2);
  counts.forEach((count, index) => {
    bytes.writeUInt16BE(count, 4 + 2 * index);
  });
  return bytes;
};
const unintelligible = { name: 'DnsError', code: 'unintelligible' };
const answer = (name: Buffer, type: number, data: Buffer) => {
  const middle = Buffer.alloc(10);
  middle.writeUInt16BE(type, 0);
  middle.writeUInt16BE(1, 2);
  middle.writeUInt16BE(data.length, 8);
  return Buffer.concat([name, middle, data]);
};

test('a compression pointer to itself is refused', () => {
  const question = Buffer.from([0xc0, 12, 0, 1, 0, 1]);
  assert.throws(() => decodeMessage(Buffer.concat([header([1, 0, 0, 0]), question])), unintelligible);
});

test('compression pointers that lead round in a circle are refused', () => {
  // Two labels, each followed by a pointer to the other.
  const circle = Buffer.from([1, 97, 0xc0, 16, 1, 98, 0xc0, 12, 0, 1, 0, 1]);
  assert.throws(() => decodeMessage(Buffer.concat([header([1, 0, 0, 0]), circle])), unintelligible);
});

test('a name that grows past 255 octets by pointers is refused', () => {
  const label = Buffer.concat([Buffer.from([63]), Buffer.alloc(63, 97)]);
  const long = Buffer.concat([label, label, label, Buffer.from([0])]);
  const more = Buffer.concat([label, Buffer.from([0xc0, 12])]);
  const rest = Buffer.from([0, 1, 0, 1]);
  const bytes = Buffer.concat([header([2, 0, 0, 0]), long, rest, more, rest]);
  assert.throws(() => decodeMessage(bytes), unintelligible);
});

test('counts that promise more records than there are bytes are refused', () => {
  assert.throws(() => decodeMessage(header([65_535, 65_535, 65_535, 65_535])), unintelligible);
});

test('whatever the bytes are, decoding ends with a message or with that one error', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 200 }),
      fc.array(fc.nat(3), { minLength: 4, maxLength: 4 }),
      (noise, counts) => {
        for (const bytes of [Buffer.from(noise), Buffer.concat([header(counts), Buffer.from(noise)])]) {
          try {
            decodeMessage(bytes).answers.map(recordValue);
          } catch (error) {
            assert.ok(
              error instanceof DnsError && ['unintelligible', 'unsupported'].includes(error.code),
              String(error),
            );
          }
        }
      },
    ),
    { numRuns: 2_000 },
  );
});

test('a message comes back from its bytes as it went in', () => {
  const label = fc.stringMatching(/^[a-z0-9_*-]{1,20}$/);
  const name = fc.array(label, { maxLength: 5 }).map((labels) => labels.join('.'));
  const data = fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes));
  const plain = { noNullPrototype: true };
  const record = fc.record(
    {
      name,
      type: fc.constantFrom(typeNumbers.A, typeNumbers.TXT, typeNumbers.CAA, 999),
      class: fc.nat(0xffff),
      ttl: fc.nat(0xffffffff),
      data,
    },
    plain,
  );
  const question = fc.record({ name, type: fc.nat(0xffff), class: fc.nat(0xffff) }, plain);
  const message = fc.record(
    {
      id: fc.nat(0xffff),
      flags: fc.nat(0xffff),
      questions: fc.array(question, { maxLength: 2 }),
      answers: fc.array(record, { maxLength: 3 }),
      authority: fc.array(record, { maxLength: 2 }),
      additional: fc.array(record, { maxLength: 2 }),
    },
    plain,
  );
  fc.assert(fc.property(message, (sent) => assert.deepEqual(decodeMessage(encodeMessage(sent)), sent)));
});

test('compressed names are written out, also inside of a CNAME', () => {
  const question = Buffer.concat([encodeName('www.example.com'), Buffer.from([0, 5, 0, 1])]);
  const pointed = answer(Buffer.from([0xc0, 12]), typeNumbers.CNAME, Buffer.from([2, 103, 119, 0xc0, 16]));
  const message = decodeMessage(Buffer.concat([header([1, 1, 0, 0]), question, pointed]));
  assert.equal(message.answers[0]?.name, 'www.example.com');
  assert.equal(recordValue(message.answers[0]!), 'gw.example.com');
});

test('a dot inside a label is not taken for the end of it', () => {
  const odd = Buffer.from([3, 97, 0x2e, 98, 3, 99, 111, 109, 0]);
  const message = decodeMessage(Buffer.concat([header([1, 0, 0, 0]), odd, Buffer.from([0, 1, 0, 1])]));
  assert.equal(message.questions[0]?.name, 'a\\.b.com');
  assert.deepEqual(encodeName('a\\.b.com'), odd);
});

test('names that DNS cannot hold are not sent', () => {
  for (const name of ['a..b', `${'x'.repeat(64)}.com`, Array.from({ length: 60 }, () => 'abcd').join('.')]) {
    assert.throws(() => encodeQuery(1, { name, type: 1, class: 1 }, true), { code: 'unsupported' });
  }
});

test('data that does not fit its type is refused', () => {
  const record = (type: number, data: number[]) => ({
    name: 'a',
    type,
    class: 1,
    ttl: 0,
    data: Buffer.from(data),
  });
  for (const bad of [
    record(typeNumbers.A, [1, 2, 3]),
    record(typeNumbers.AAAA, [1]),
    record(typeNumbers.TXT, []),
    record(typeNumbers.TXT, [5, 97]),
    record(typeNumbers.CAA, [0, 0]),
    record(typeNumbers.CAA, [0, 9, 97]),
    record(typeNumbers.CNAME, [1, 97, 0, 0]),
  ]) {
    assert.throws(() => recordValue(bad), unintelligible);
  }
});

test('values come out as records have them', () => {
  const value = (type: number, data: Buffer) => recordValue({ name: 'a', type, class: 1, ttl: 0, data });
  assert.equal(value(typeNumbers.A, Buffer.from([192, 0, 2, 1])), '192.0.2.1');
  assert.equal(
    value(typeNumbers.AAAA, Buffer.from('20010db8000000000000000000000001', 'hex')),
    '2001:db8::1',
  );
  assert.equal(value(typeNumbers.TXT, Buffer.from([1, 97, 2, 98, 99])), 'abc');
  assert.equal(
    value(typeNumbers.CAA, Buffer.from('\x80\x05ISSUEca.example', 'latin1')),
    '128 issue "ca.example"',
  );
});
