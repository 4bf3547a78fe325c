// DNS messages (dns/wire/message.ts): read whole or refused as unintelligible, and never a loop.

import assert from 'node:assert/strict';
import { DnsError } from '../../../dns/error.ts';
import {
  characterStrings,
  decodeMessage,
  encodeMessage,
  encodeQuery,
  type Message,
  recordValue,
  startOfLastRecord,
  typeNumbers,
} from '../../../dns/wire/message.ts';
import { fuzzTarget, mutated } from '../target.ts';

const record = (type: number, data: Buffer, name = 'app.example.com') => ({
  name,
  type,
  class: 1,
  ttl: 60,
  data,
});
const answer = (...answers: Message['answers'][number][]) =>
  encodeMessage({
    id: 7,
    flags: 0x8580,
    questions: [{ name: 'app.example.com', type: typeNumbers.TXT, class: 1 }],
    answers,
    authority: [],
    additional: [],
  });
const seeds = [
  encodeQuery(7, { name: 'app.example.com', type: typeNumbers.CAA, class: 1 }, true),
  answer(record(typeNumbers.TXT, Buffer.from('\x03abc\x02de'))),
  answer(record(typeNumbers.A, Buffer.from([192, 0, 2, 1])), record(typeNumbers.AAAA, Buffer.alloc(16, 1))),
  answer(record(typeNumbers.CAA, Buffer.from('\x00\x05issueletsencrypt.org'))),
  answer(record(typeNumbers.CNAME, Buffer.from('\x01a\x07example\x00'))),
];
const tokens = ['c00c', 'c000', 'ffff', '00', '3f', '01', '0010', '0101'].map((hex) =>
  Buffer.from(hex, 'hex'),
);

/** What may be thrown, and nothing else. */
function orRefused<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    assert.ok(error instanceof DnsError && error.code === 'unintelligible', String(error));
    return undefined;
  }
}

export const dnsAnswers = fuzzTarget<Buffer>({
  name: 'answers of the DNS',
  input: mutated(seeds, tokens),
  check(bytes) {
    const message = orRefused(() => decodeMessage(bytes));
    if (message === undefined) return;
    for (const found of [...message.answers, ...message.authority, ...message.additional]) {
      orRefused(() => recordValue(found));
      orRefused(() => characterStrings(found.data));
    }
    if (message.answers.length + message.authority.length + message.additional.length > 0) {
      const start = startOfLastRecord(bytes);
      assert.ok(start >= 12 && start < bytes.length);
    }
  },
  growing: {
    'records that point at each other': (size) => pointers(size),
    'a long text': (size) =>
      answer(record(typeNumbers.TXT, Buffer.alloc(Math.min(size, 65_000) & ~1, Buffer.from([1, 97])))),
  },
});

/** As many records as fit, each with a name that is a pointer to the first. */
function pointers(size: number): Buffer {
  const count = Math.min(4_000, Math.floor(size / 16));
  const head = Buffer.from([0, 7, 0x85, 0x80, 0, 1, count >> 8, count & 0xff, 0, 0, 0, 0]);
  const question = Buffer.concat([
    Buffer.from('\x03app\x07example\x03com\0', 'latin1'),
    Buffer.from([0, 16, 0, 1]),
  ]);
  const one = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
  return Buffer.concat([head, question, ...Array<Buffer>(count).fill(one)]);
}
