// TDX quotes (evidence/quote.ts): fields or a QuoteError, for any bytes and any cut.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { parseQuote, QuoteError } from '../../../evidence/quote.ts';
import { fuzzTarget, mutated } from '../target.ts';

/** Header, TD report and an empty signature: format 4, and format 5 with a report of 1.5. */
const version4 = Buffer.concat([quoteHead(4), Buffer.alloc(584, 0x11), Buffer.alloc(4)]);
const version5 = Buffer.concat([
  quoteHead(5),
  Buffer.from('030088020000', 'hex'),
  Buffer.alloc(648, 0x22),
  Buffer.alloc(4),
]);

function quoteHead(version: number): Buffer {
  const head = Buffer.alloc(48);
  head.writeUInt16LE(version, 0);
  head.writeUInt16LE(2, 2);
  head.writeUInt32LE(0x81, 4);
  return head;
}

const bytes = mutated([version4, version5], [Buffer.from('81000000', 'hex'), Buffer.from('ffffffff', 'hex')]);

export const quote = fuzzTarget<string | Buffer>({
  name: 'TDX quote',
  input: fc.oneof(
    bytes,
    bytes.map((quoted) => quoted.toString('hex')),
    fc.string(),
  ),
  check(given) {
    try {
      const parsed = parseQuote(given);
      assert.equal(parsed.reportData.length, 128);
      for (const register of parsed.rtmrs) assert.equal(register.length, 96);
    } catch (error) {
      assert.ok(error instanceof QuoteError, String(error));
    }
  },
  growing: { 'a long text': (size) => `${'0'.repeat(size - 1)}g` },
});
