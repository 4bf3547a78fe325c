// Header blocks of HTTP/2: the RFC's own examples, blocks that attack their reader, and agreement with nghttp2.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type ServerHttp2Stream } from 'node:http2';
import { type AddressInfo, connect as connectTcp } from 'node:net';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  type BlockLimits,
  beginBlock,
  createDecoder,
  createEncoder,
  type HeaderField,
  type HpackDecoder,
  limitTable,
  readBlock,
  writeField,
} from '../../../proxy/http2/hpack.ts';
import { decodedSize, huffmanSize, readHuffman, writeHuffman } from '../../../proxy/http2/huffman.ts';
import { createOutbox, takeOut } from '../../../proxy/socket/outbox.ts';
import {
  createFrameClient,
  flag,
  frame,
  frameType,
  headersFrame,
  requestFields,
  startFrameServer,
} from '../../support/http2-frames.ts';

const ANY: BlockLimits = { bytes: 1_000_000, count: 10_000 };

type Pair = readonly [name: string, value: string];

function read(decoder: HpackDecoder, hex: string, limits = ANY) {
  const bytes = Buffer.from(hex.replaceAll(' ', ''), 'hex');
  const fields: HeaderField[] = [];
  const outcome = readBlock(decoder, bytes, 0, bytes.length, limits, fields);
  return { outcome, fields: fields.map(({ name, value }): Pair => [name, value]), raw: fields };
}

function write(encoder: ReturnType<typeof createEncoder>, fields: readonly Pair[]): Buffer {
  const out = createOutbox();
  beginBlock(encoder, out);
  for (const [name, value] of fields) writeField(encoder, out, name, value);
  return Buffer.from(takeOut(out));
}

describe('the examples of RFC 7541', () => {
  for (const [what, blocks] of [
    [
      'C.3, requests without Huffman',
      [
        '828684410f7777772e6578616d706c652e636f6d',
        '828684be58086e6f2d6361636865',
        '828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565',
      ],
    ],
    [
      'C.4, requests with Huffman',
      [
        '828684418cf1e3c2e5f23a6ba0ab90f4ff',
        '828684be5886a8eb10649cbf',
        '828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf',
      ],
    ],
  ] as const) {
    it(what, () => {
      const decoder = createDecoder();
      const start: Pair[] = [
        [':method', 'GET'],
        [':scheme', 'http'],
        [':path', '/'],
        [':authority', 'www.example.com'],
      ];
      assert.deepEqual(read(decoder, blocks[0]).fields, start);
      assert.deepEqual(read(decoder, blocks[1]).fields, [...start, ['cache-control', 'no-cache']]);
      assert.deepEqual(read(decoder, blocks[2]).fields, [
        [':method', 'GET'],
        [':scheme', 'https'],
        [':path', '/index.html'],
        [':authority', 'www.example.com'],
        ['custom-key', 'custom-value'],
      ]);
    });
  }

  it('C.6, replies with Huffman that evict each other from a table of 256 octets', () => {
    const decoder = createDecoder(256);
    const first = read(
      decoder,
      '488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3',
    );
    assert.deepEqual(first.fields, [
      [':status', '302'],
      ['cache-control', 'private'],
      ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'],
      ['location', 'https://www.example.com'],
    ]);
    assert.equal(read(decoder, '4883640effc1c0bf').fields[0]![1], '307');
    const third = read(
      decoder,
      '88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007',
    );
    assert.deepEqual(third.fields, [
      [':status', '200'],
      ['cache-control', 'private'],
      ['date', 'Mon, 21 Oct 2013 20:13:22 GMT'],
      ['location', 'https://www.example.com'],
      ['content-encoding', 'gzip'],
      ['set-cookie', 'foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1'],
    ]);
    assert.equal(decoder.bytes, 215);
  });

  it('C.2.3, a literal that may never be indexed, is known as such', () => {
    const { raw } = read(createDecoder(), '100870617373776f726406736563726574');
    assert.deepEqual([raw[0]!.name, raw[0]!.value, raw[0]!.neverIndexed], ['password', 'secret', true]);
  });
});

describe('a block that does not decode is told apart, and never read beyond its end', () => {
  const huffmanA = (bits: string) =>
    Buffer.from(bits.match(/.{8}/g)!.map((byte) => Number.parseInt(byte, 2)));
  const literal = (value: Buffer) =>
    Buffer.concat([Buffer.from([0, 1, 0x61, 0x80 | value.length]), value]).toString('hex');
  for (const [attack, hex] of [
    ['index 0', '80'],
    ['an index beyond both tables', 'be'],
    ['an index beyond all numbers', 'ffffffffff7f'],
    ['a number that does not end', 'ff80808080'],
    ['a number with endless zeros', 'ff8080808080808080808000'],
    ['a name index beyond both tables', '7f0001 61'],
    ['a name without a value', '0001 61'],
    ['a string longer than the block', '0003 6161'],
    ['a string longer than all memory', '007fffffffff07 61'],
    ['the end in the middle of a length', '007f'],
    ['nothing after the pattern', '40'],
    ['a table size in the middle', '823f00'],
    ['a table size above what was allowed', '3fe21f'],
    ['padding of zeros in Huffman', literal(huffmanA('0001100000000000').subarray(0, 1))],
    ['eight bits of padding', literal(Buffer.from([0b00011111, 0b11111111]))],
    ['EOS in the middle', literal(Buffer.from([0xff, 0xff, 0xff, 0xff, 0x1f]))],
  ] as const) {
    it(attack, () => assert.equal(read(createDecoder(), hex).outcome, 'broken'));
  }

  it('whatever the bytes: no throw, no endless loop, no field out of nothing', () => {
    const decoder = createDecoder();
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (noise) => {
        const bytes = Buffer.from(noise);
        const fields: HeaderField[] = [];
        readBlock(decoder, bytes, 0, bytes.length, ANY, fields);
        assert.ok(fields.length <= bytes.length);
        assert.ok(decoder.bytes <= 4_096 && decoder.count <= 128);
      }),
      { numRuns: 5_000 },
    );
  });
});

describe('a block larger than allowed', () => {
  it('by size or by number keeps the tables in step, so that the next one is read', () => {
    for (const limits of [
      { bytes: 60, count: 100 },
      { bytes: 1_000_000, count: 1 },
    ]) {
      const decoder = createDecoder();
      // Two fields with indexing; then the second by its index.
      assert.equal(read(decoder, '400161 0162 400163 0164', limits).outcome, 'too-large');
      assert.deepEqual(read(decoder, 'be', limits).fields, [['c', 'd']]);
    }
  });

  it('made of references to one large entry costs no memory for each', () => {
    const decoder = createDecoder();
    const large = Buffer.alloc(4_000, 'x').toString('hex');
    const { outcome, raw } = read(decoder, `40 01 61 7f a1 1e ${large} ${'be'.repeat(10_000)}`, {
      bytes: 16_384,
      count: 128,
    });
    assert.equal(outcome, 'too-large');
    assert.ok(raw.length <= 4);
  });
});

describe('what we write', () => {
  const name = fc.stringMatching(/^[a-z][a-z0-9-]{0,20}$/);
  const value = fc.oneof(
    fc.constantFrom('', '0', 'text/html; charset=utf-8', 'a'.repeat(300), 'x'.repeat(5_000)),
    fc.stringMatching(/^[ -~]{0,60}$/),
    fc.uint8Array({ maxLength: 40 }).map((octets) => Buffer.from(octets).toString('latin1')),
  );
  const few = fc.constantFrom<Pair>(['server', 'x'], ['date', 'Mon'], ['date', 'Tue'], ['cookie', 'secret']);
  const block = fc.array(fc.oneof(few, fc.tuple(name, value)), { maxLength: 12 });

  it('is read as it was meant, block after block, whatever the table sizes in between', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.array(fc.integer({ min: 0, max: 5_000 }), { maxLength: 2 }), block), {
          maxLength: 30,
        }),
        (blocks) => {
          const [encoder, decoder] = [createEncoder(), createDecoder()];
          for (const [limits, fields] of blocks) {
            for (const limit of limits) limitTable(encoder, limit);
            assert.deepEqual(read(decoder, write(encoder, fields).toString('hex')).fields, fields);
            assert.equal(decoder.bytes, encoder.bytes);
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  it('says the lowest table size and then the last, where there were several', () => {
    const encoder = createEncoder();
    limitTable(encoder, 0);
    limitTable(encoder, 1_000);
    // RFC 7541 §4.2: 0 (20), then 1,000 (3f c9 07).
    assert.equal(write(encoder, []).toString('hex'), '203fc907');
    assert.equal(write(encoder, []).toString('hex'), '');
  });

  it('becomes one octet for each field that is said again and again', () => {
    const encoder = createEncoder();
    const fields: Pair[] = [
      [':status', '200'],
      ['server', 'app/1.0'],
      ['content-security-policy', "default-src 'self'; img-src *"],
    ];
    const sizes = [1, 2, 3].map(() => write(encoder, fields).length);
    assert.equal(sizes[2], 3);
    assert.ok(sizes[0]! > 30);
  });

  it('keeps secrets out of the table, however often they are said', () => {
    const encoder = createEncoder();
    for (const secret of ['authorization', 'cookie', 'set-cookie', 'proxy-authorization']) {
      const sizes = [1, 2, 3].map(() => write(encoder, [[secret, 'Bearer 0123456789abcdef']]));
      assert.deepEqual(sizes[2], sizes[0]);
      const { raw } = read(createDecoder(), sizes[2]!.toString('hex'));
      assert.equal(raw[0]!.neverIndexed, true);
    }
    assert.equal(encoder.table.length, 0);
  });

  it('passes on that a field may not be indexed', () => {
    const encoder = createEncoder();
    const out = createOutbox();
    for (let i = 0; i < 3; i++) writeField(encoder, out, 'x-token', 'secret', true);
    assert.equal(encoder.table.length, 0);
    const { raw } = read(createDecoder(), Buffer.from(takeOut(out)).toString('hex'));
    assert.ok(raw.every(({ neverIndexed }) => neverIndexed));
  });

  it('remembers a bounded number of names, even when clients invent them', () => {
    const encoder = createEncoder();
    for (let i = 0; i < 10_000; i++) write(encoder, [[`x-${i}`, 'v']]);
    assert.ok(encoder.names.size <= 256 && encoder.table.length < 256);
  });
});

describe('Huffman', () => {
  it('any octets come back, in the size that was announced', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (octets) => {
        const text = Buffer.from(octets).toString('latin1');
        const coded = Buffer.alloc(huffmanSize(text));
        assert.equal(writeHuffman(text, coded, 0), coded.length);
        const decoded = Buffer.alloc(decodedSize(coded.length));
        const size = readHuffman(coded, 0, coded.length, decoded);
        assert.equal(decoded.toString('latin1', 0, size), text);
      }),
      { numRuns: 2_000 },
    );
  });
});

describe('nghttp2, through a connection that lives on', () => {
  const names = ['x-a', 'x-b', 'server', 'date', 'accept', 'content-type', 'x-long-name-of-a-header'];
  const values = fc.oneof(
    fc.constantFrom('1', 'text/html', 'z'.repeat(200)),
    fc.stringMatching(/^[!-~]([ -~]{0,40}[!-~])?$/),
  );
  const list = fc.uniqueArray(fc.tuple(fc.constantFrom(...names), values), {
    maxLength: 7,
    selector: ([name]) => name,
  });
  const lists = fc.sample(list, 200);

  it('reads what we write', async (t) => {
    const seen: (readonly string[])[] = [];
    const server = createServer();
    server.on('stream', (stream, _headers, _flags, raw: string[]) => {
      seen.push(raw);
      (stream as ServerHttp2Stream).respond({ ':status': 200 }, { endStream: true });
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    t.after(() => server.close());
    const socket = connectTcp((server.address() as AddressInfo).port, '127.0.0.1');
    await once(socket, 'connect');
    const client = createFrameClient(socket);
    t.after(() => client.destroy());
    const encoder = createEncoder();
    for (const [i, fields] of lists.entries()) {
      const block = write(encoder, [...requestFields(), ...fields]);
      client.send(frame(frameType.headers, flag.endHeaders | flag.endStream, 2 * i + 1, block));
      // One after the other: a server need not take more than a hundred at once.
      await client.next(({ streamId }) => streamId === 2 * i + 1);
    }
    assert.deepEqual(
      seen,
      lists.map((fields) => [...requestFields(), ...fields].flat()),
    );
  });

  it('is read by us', async (t) => {
    const blocks: Buffer[] = [];
    const server = await startFrameServer(({ type, streamId, payload }, peer) => {
      if (type !== frameType.headers) return;
      blocks.push(payload);
      peer.send(headersFrame(streamId, [[':status', '200']]));
    });
    t.after(() => server.close());
    const session = connect(`http://127.0.0.1:${server.port}`);
    t.after(() => session.destroy());
    for (const fields of lists) {
      const stream = session.request(
        { ':authority': 'localhost', ...Object.fromEntries(fields) },
        { endStream: true },
      );
      stream.resume();
      await once(stream, 'close');
    }
    const decoder = createDecoder();
    const read1 = blocks.map((block) => read(decoder, block.toString('hex')));
    assert.ok(read1.every(({ outcome }) => outcome === 'whole'));
    assert.deepEqual(
      read1.map(({ fields }) => fields.filter(([name]) => !name.startsWith(':'))),
      lists,
    );
  });
});
