// A quote with its collateral (evidence/verify): five verdicts for whatever comes, and none but the true quote passes.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { type Collateral, CollateralError, parseCollateral } from '../../../evidence/verify/collateral.ts';
import { judgeQuote } from '../../../evidence/verify/quote-rules.ts';
import { createSimulatedProcessor } from '../../../src/demo/simulated-quote.ts';
import { fuzzTarget, mutated } from '../target.ts';

interface Given {
  readonly quote: Buffer;
  readonly collateral: string;
}

const at = new Date('2026-05-04T03:02:01Z');
const { rootDer: root, collateral, quote: makeQuote } = await createSimulatedProcessor({ now: at });
const register = '00'.repeat(48);
const honest = makeQuote(
  { mrTd: register, mrConfigId: register, rtmrs: [register, register, register, register] },
  Buffer.alloc(64),
);
const HEADER_AND_REPORT = 632;
const text = JSON.stringify(collateral);

/** One field altered within, as its own format has it. */
const alteredField = fc
  .tuple(
    fc.constantFrom(...(Object.keys(collateral) as (keyof Collateral)[])),
    fc.nat({ max: 4_000 }),
    fc.oneof(fc.constantFrom('', '00', 'ff', '"', '{', '}', '-----BEGIN CERTIFICATE-----'), fc.string()),
    fc.nat({ max: 80 }),
  )
  .map(([field, place, inserted, removed]) => {
    const value = collateral[field]!;
    const start = place % (value.length + 1);
    return JSON.stringify({
      ...collateral,
      [field]: value.slice(0, start) + inserted + value.slice(start + removed),
    });
  });

const input: fc.Arbitrary<Given> = fc.oneof(
  fc.record({ quote: mutated([honest]), collateral: fc.constant(text) }),
  fc.record({ quote: fc.constant(honest), collateral: alteredField }),
  fc.record({ quote: fc.constant(honest), collateral: fc.oneof(fc.json(), fc.string()) }),
);

export const quoteVerdicts = fuzzTarget<Given>({
  name: 'quote and collateral',
  input,
  async check({ quote, collateral: given }) {
    const verdicts = await judgeQuote(quote, read(given), { root, at });
    assert.equal(Object.keys(verdicts).length, 5);
    const all = Object.values(verdicts);
    for (const { reason } of all) assert.notEqual(reason, '');
    if (all.some(({ verdict }) => verdict !== 'pass')) return;
    // The text between the certificates of its chain is covered by nothing, and may vary.
    const isSigned = (bytes: Buffer) => bytes.subarray(0, HEADER_AND_REPORT);
    assert.deepEqual(isSigned(quote), isSigned(honest), 'what passes is what was signed');
  },
  growing: {
    'a long quote': (size) => ({ quote: Buffer.concat([honest, Buffer.alloc(size)]), collateral: text }),
    'a chain of beginnings': (size) => ({
      quote: honest,
      collateral: altered({ pck_crl_issuer_chain: '-----BEGIN CERTIFICATE-----\n'.repeat(size / 28) }),
    }),
    'a long revocation list': (size) => ({
      quote: honest,
      collateral: altered({ pck_crl: '30'.repeat(size / 2) }),
    }),
    'bytes as numbers': (size) => ({
      quote: honest,
      collateral: `{"root_ca_crl":[${'0,'.repeat(size / 2)}0]}`,
    }),
  },
});

function altered(fields: Partial<Collateral>): string {
  return JSON.stringify({ ...collateral, ...fields });
}

function read(given: string): Collateral | undefined {
  try {
    return parseCollateral(given);
  } catch (error) {
    assert.ok(error instanceof CollateralError, String(error));
    return undefined;
  }
}
