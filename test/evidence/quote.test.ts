// Quotes are read field by field, and what is not a whole TDX quote is refused.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Quote as QvlQuote } from '@phala/dcap-qvl';
import { parseQuote, QuoteError, type QuoteErrorCode } from '../../evidence/quote.ts';
import { sharedProcessor } from '../support/agent-double.ts';
import { readFixture, withoutFixtures } from '../support/attestation-fixtures.ts';

const processor = await sharedProcessor();
const registers = ['a0', 'a1', 'a2', 'a3'].map((byte) => byte.repeat(48)) as [string, string, string, string];
const measurements = { mrTd: '11'.repeat(48), mrConfigId: '22'.repeat(48), rtmrs: registers };
const simulated = processor.quote(measurements, Buffer.alloc(64, 0x33));

function refuses(quote: string | Uint8Array, code: QuoteErrorCode, message: RegExp) {
  assert.throws(
    () => parseQuote(quote),
    (error) => {
      assert.ok(error instanceof QuoteError);
      assert.match(error.message, message);
      return error.code === code;
    },
  );
}

function changed(change: (quote: Buffer) => void): Buffer {
  const quote = Buffer.from(simulated);
  change(quote);
  return quote;
}

/** The same report in format 5: a body type and size come before it, and TD reports 1.5 are longer. */
function asFormat5(bodyType: number): Buffer {
  const size = bodyType === 3 ? 648 : 584;
  const head = Buffer.from(simulated.subarray(0, 48));
  head.writeUInt16LE(5, 0);
  const body = Buffer.alloc(6);
  body.writeUInt16LE(bodyType, 0);
  body.writeUInt32LE(size, 2);
  const more =
    bodyType === 3 ? Buffer.concat([Buffer.alloc(16, 0x44), Buffer.alloc(48, 0x55)]) : Buffer.alloc(0);
  return Buffer.concat([head, body, simulated.subarray(48, 632), more, simulated.subarray(632)]);
}

test('a quote cut short anywhere is refused', () => {
  for (const length of [0, 1, 7, 47, 48, 300, 567, 600, 631, 632, 635, 636, 1000, simulated.length - 1]) {
    refuses(simulated.subarray(0, length), 'truncated', /ends within/);
  }
});

test('a signature length beyond the quote is refused', () => {
  refuses(
    changed((quote) => quote.writeUInt32LE(0xffffffff, 632)),
    'truncated',
    /ends within its signature/,
  );
});

test('what is not hexadecimal is refused, not read up to the first wrong character', () => {
  for (const text of ['xyz', `${simulated.toString('hex')}zz`, `${simulated.toString('hex')}0`, ' 0400']) {
    refuses(text, 'not-hex', /not hexadecimal/);
  }
});

test('quotes of other formats and other hardware are refused', () => {
  for (const version of [0, 1, 3, 6]) {
    refuses(
      changed((quote) => quote.writeUInt16LE(version, 0)),
      'unsupported',
      new RegExp(`format ${version}`),
    );
  }
  refuses(
    changed((quote) => quote.writeUInt32LE(0, 4)),
    'unsupported',
    /TEE type 0x0/,
  );
  refuses(asFormat5(1), 'unsupported', /body type 1/);
});

test('a machine under debugging is seen to be one', () => {
  assert.equal(parseQuote(simulated).debug, false);
  assert.equal(
    parseQuote(
      changed((quote) => {
        quote[168] = 1;
      }),
    ).debug,
    true,
  );
});

test('hex with and without 0x, in either case, and bytes are the same quote', () => {
  const hex = simulated.toString('hex');
  for (const form of [hex, `0x${hex}`, hex.toUpperCase()])
    assert.deepEqual(parseQuote(form), parseQuote(simulated));
});

test('format 5 has the same fields, and those of TD reports 1.5', () => {
  const { version: _, ...fields } = parseQuote(simulated);
  assert.deepEqual(parseQuote(asFormat5(2)), { version: 5, ...fields });
  assert.deepEqual(parseQuote(asFormat5(3)), { version: 5, ...fields, mrServiceTd: '55'.repeat(48) });
});

test('every field is where the verifying library finds it', () => {
  agreesWithLibrary(simulated);
});

for (const name of ['quote-report.json', 'tdx-lite-getquote.json'] as const) {
  test(`a real quote is read as the library reads it (${name})`, { skip: withoutFixtures(name) }, () => {
    const { quote, report_data } = readFixture<{ quote: string; report_data: string }>(name);
    assert.equal(parseQuote(quote).reportData, report_data);
    assert.equal(parseQuote(quote).debug, false);
    agreesWithLibrary(Buffer.from(quote, 'hex'));
  });
}

function agreesWithLibrary(bytes: Buffer) {
  const ours = parseQuote(bytes);
  const theirs = QvlQuote.parse(bytes).report.asTd10()!;
  const hex = (field: Uint8Array) => Buffer.from(field).toString('hex');
  const { version: _version, debug: _debug, mrServiceTd: _, rtmrs, ...fields } = ours;
  for (const [name, value] of Object.entries(fields)) {
    assert.equal(value, hex(theirs[name as keyof typeof theirs]), name);
  }
  assert.deepEqual(rtmrs, [theirs.rtMr0, theirs.rtMr1, theirs.rtMr2, theirs.rtMr3].map(hex));
}
