// PROXY headers of version 2 as they might come: generated, broken, cut into pieces.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  createProxyHeaderReader,
  type ProxyHeader,
  type parseProxyHeader,
} from '../../../proxy/listener/proxy-protocol.ts';

const SIGNATURE = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1');
const LONGEST = 16 + 4_096;
const BEHIND = Buffer.from('\x16\x03\x01what follows', 'latin1');

/** The same numbers in each run. */
function createRandom(seed: number) {
  let state = seed;
  return (below: number) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    return Math.floor(((state >>> 0) / 2 ** 32) * below);
  };
}

function generated(random: (below: number) => number): Buffer {
  const pick = <T>(list: readonly T[]) => list[random(list.length)]!;
  const length =
    pick([0, 11, 12, 35, 36, 215, 216, 600, 1_500, 4_095, 4_096, 4_097, random(70_000)]) & 0xffff;
  const bytes = Buffer.alloc(16 + Math.min(length, pick([length, random(length + 1)])));
  SIGNATURE.copy(bytes);
  bytes[12] = pick([0x20, 0x21, 0x21, 0x21, random(256)]);
  bytes[13] = pick([0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32, random(256)]);
  bytes.writeUInt16BE(length, 14);
  for (let at = 16; at < bytes.length; at++) bytes[at] = random(256);
  if (random(10) === 0) bytes[random(bytes.length)] = random(256);
  return Buffer.concat([bytes, BEHIND]);
}

function inPieces(
  bytes: Buffer,
  sizeOf: () => number,
): { header: ReturnType<typeof parseProxyHeader>; rest: Buffer } {
  const reader = createProxyHeaderReader();
  for (let at = 0; at < bytes.length; ) {
    const end = Math.min(bytes.length, at + sizeOf());
    const header = reader.read(bytes.subarray(at, end));
    if (typeof header === 'object')
      return { header, rest: Buffer.concat([reader.rest, bytes.subarray(end)]) };
    if (header === 'malformed') return { header, rest: Buffer.alloc(0) };
    at = end;
  }
  return { header: 'incomplete', rest: Buffer.alloc(0) };
}

describe('a generated PROXY header', () => {
  it('names a client, names none, or is refused: the same in any pieces, and the bytes behind it are left', () => {
    const random = createRandom(12);
    const seen = new Map<string, number>();
    for (let run = 0; run < 3_000; run++) {
      const bytes = generated(random);
      const { header, rest } = inPieces(bytes, () => bytes.length);
      const what = typeof header === 'string' ? header : header.source === undefined ? 'unknown' : 'named';
      seen.set(what, (seen.get(what) ?? 0) + 1);
      if (typeof header === 'object') checkHeader(bytes, header, rest);
      if (run % 3 !== 0)
        assert.deepEqual(
          inPieces(bytes, () => 1 + random(40)),
          { header, rest },
          `run ${run}`,
        );
      else
        assert.deepEqual(
          inPieces(bytes, () => 1),
          { header, rest },
          `run ${run}`,
        );
    }
    // What is incomplete may be so for want of bytes alone.
    for (const what of ['named', 'unknown', 'malformed']) assert.ok(seen.get(what)! > 100, what);
  });

  it('of the largest size is read in one pass, whatever its pieces', () => {
    const bytes = Buffer.alloc(LONGEST, 4);
    SIGNATURE.copy(bytes);
    bytes[12] = 0x21;
    bytes[13] = 0x11;
    bytes.writeUInt16BE(4_096, 14);
    const pieces = [...bytes].map((byte) => Buffer.of(byte));
    let copied = 0;
    for (const piece of pieces) {
      const { copy } = piece;
      piece.copy = (...args: Parameters<typeof copy>) => {
        copied++;
        return copy.apply(piece, args);
      };
    }
    const reader = createProxyHeaderReader();
    const answers = pieces.map((piece) => reader.read(piece));
    assert.equal(typeof answers.at(-1), 'object');
    assert.equal(copied, LONGEST);
  });
});

function checkHeader(bytes: Buffer, header: ProxyHeader, rest: Buffer) {
  assert.ok(header.size <= LONGEST);
  assert.equal(header.size, 16 + bytes.readUInt16BE(14));
  assert.deepEqual(rest, bytes.subarray(header.size));
  if (header.source === undefined) return;
  assert.ok(bytes[13] === 0x11 || bytes[13] === 0x21);
  assert.match(header.source.address, /^[0-9a-f.:]+$/);
}
