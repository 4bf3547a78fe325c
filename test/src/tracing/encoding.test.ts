// Spans as JSON and as protobuf say the same; what collectors answer in either is read, and what is no answer is none.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Batch, json, protobuf } from '../../../src/tracing/encoding.ts';
import { type Span, spanKind } from '../../../src/tracing/span.ts';

const TRACE = '0af7651916cd43dd8448eb211c80319c';
const failed: Span = {
  trace: TRACE,
  span: 'b7ad6b7169203331',
  parent: '00f067aa0ba902b7',
  parentIsRemote: true,
  name: 'GET app.example.com/',
  kind: spanKind.server,
  start: 1_700_000_000_123_456_000n,
  end: 1_700_000_001_000_000_000n,
  attributes: [
    ['url.path', '/grüße'],
    ['http.response.status_code', 502],
    ['http.response.body.size', 0],
    ['large', 5_000_000_000],
    ['yes', true],
    ['no', false],
    ['empty', ''],
  ],
  error: 'what went wrong',
};
const well: Span = {
  ...failed,
  parent: '',
  parentIsRemote: false,
  kind: spanKind.internal,
  error: undefined,
};
const batch: Batch = {
  resource: [['service.name', 'ingress']],
  scope: { name: 'dstack-ingress', version: '1' },
  spans: [failed, well],
};

// --- A reader of protobuf by the numbers of the .proto files, which shares nothing with the writer ---

type Message = Map<number, (bigint | Buffer)[]>;

function read(bytes: Buffer): Message {
  const message: Message = new Map();
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++];
      assert.ok(byte !== undefined, 'ends in the middle');
      value += BigInt(byte % 128) << shift;
      if (byte < 128) return value;
    }
  };
  const take = (length: number) => {
    assert.ok(at + length <= bytes.length, 'ends in the middle');
    at += length;
    return bytes.subarray(at - length, at);
  };
  while (at < bytes.length) {
    const key = Number(varint());
    const values = message.get(key >> 3) ?? [];
    message.set(key >> 3, values);
    const type = key % 8;
    if (type === 0) values.push(varint());
    else if (type === 1) values.push(take(8).readBigUInt64LE());
    else if (type === 5) values.push(BigInt(take(4).readUInt32LE()));
    else {
      assert.equal(type, 2);
      values.push(take(Number(varint())));
    }
  }
  return message;
}

const inner = (message: Message, field: number) =>
  (message.get(field) ?? []).map((one) => read(one as Buffer));
const text = (message: Message, field: number) => (message.get(field)?.[0] as Buffer | undefined)?.toString();
const hex = (message: Message, field: number) =>
  (message.get(field)?.[0] as Buffer | undefined)?.toString('hex');

function attributesOf(message: Message, field: number) {
  return inner(message, field).map((pair) => {
    const value = inner(pair, 2)[0]!;
    const number = value.get(3)?.[0];
    return [
      text(pair, 1),
      text(value, 1) ?? (number === undefined ? value.get(2)![0] === 1n : Number(number)),
    ];
  });
}

test('protobuf has what the data model says, under its numbers', () => {
  const resourceSpans = inner(read(protobuf.encode(batch)), 1)[0]!;
  assert.deepEqual(attributesOf(inner(resourceSpans, 1)[0]!, 1), [['service.name', 'ingress']]);
  const scopeSpans = inner(resourceSpans, 2)[0]!;
  const scope = inner(scopeSpans, 1)[0]!;
  assert.deepEqual([text(scope, 1), text(scope, 2)], ['dstack-ingress', '1']);
  const [one, other] = inner(scopeSpans, 2) as [Message, Message];
  assert.deepEqual([hex(one, 1), hex(one, 2), hex(one, 4)], [TRACE, failed.span, failed.parent]);
  assert.deepEqual(
    [text(one, 5), one.get(6), one.get(7), one.get(8)],
    [failed.name, [2n], [failed.start], [failed.end]],
  );
  assert.deepEqual(
    attributesOf(one, 9),
    failed.attributes.map((pair) => [...pair]),
  );
  const status = inner(one, 15)[0]!;
  assert.deepEqual([text(status, 2), status.get(3)], ['what went wrong', [2n]]);
  assert.deepEqual(one.get(16), [0x301n]);
  assert.deepEqual([other.get(4), other.get(15), other.get(16)], [undefined, undefined, [0x101n]]);
});

test('JSON has the same: ids in hex, 64 bits as text, enums as numbers', () => {
  const { resourceSpans } = JSON.parse(json.encode(batch).toString()) as {
    resourceSpans: { scopeSpans: { spans: Record<string, unknown>[] }[] }[];
  };
  const [one, other] = resourceSpans[0]!.scopeSpans[0]!.spans;
  assert.deepEqual(one, {
    traceId: TRACE,
    spanId: failed.span,
    parentSpanId: failed.parent,
    name: failed.name,
    kind: 2,
    startTimeUnixNano: '1700000000123456000',
    endTimeUnixNano: '1700000001000000000',
    attributes: [
      { key: 'url.path', value: { stringValue: '/grüße' } },
      { key: 'http.response.status_code', value: { intValue: '502' } },
      { key: 'http.response.body.size', value: { intValue: '0' } },
      { key: 'large', value: { intValue: '5000000000' } },
      { key: 'yes', value: { boolValue: true } },
      { key: 'no', value: { boolValue: false } },
      { key: 'empty', value: { stringValue: '' } },
    ],
    status: { code: 2, message: 'what went wrong' },
    flags: 0x301,
  });
  assert.ok(!('parentSpanId' in other!) && !('status' in other!));
});

test('what a collector did not take is read in either', () => {
  const inProtobuf = Buffer.from([0x0a, 0x09, 0x08, 0xac, 0x02, 0x12, 0x04, ...Buffer.from('full')]);
  assert.deepEqual(protobuf.readAnswer(inProtobuf), { rejected: 300, message: 'full' });
  const inJson = Buffer.from('{"partialSuccess":{"rejectedSpans":"300","errorMessage":"full"}}');
  assert.deepEqual(json.readAnswer(inJson), { rejected: 300, message: 'full' });
  for (const [encoding, empty] of [
    [protobuf, Buffer.alloc(0)],
    [protobuf, Buffer.from([0x0a, 0x00])],
    [json, Buffer.from('{}')],
    [json, Buffer.from('{"partialSuccess":{}}')],
  ] as const)
    assert.equal(encoding.readAnswer(empty), undefined);
});

test('whatever else it answers is no answer, and harms nobody', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
      for (const encoding of [json, protobuf]) {
        const answer = encoding.readAnswer(Buffer.from(bytes));
        assert.ok(answer === undefined || (answer.rejected >= 0 && typeof answer.message === 'string'));
      }
    }),
    { numRuns: 300 },
  );
  for (const odd of [
    'null',
    '7',
    '"x"',
    '[]',
    '{"partialSuccess":7}',
    '{"partialSuccess":{"errorMessage":{}}}',
  ])
    assert.equal(json.readAnswer(Buffer.from(odd)), undefined, odd);
});
