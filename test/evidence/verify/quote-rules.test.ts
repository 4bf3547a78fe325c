// One thing wrong with a platform fails the one check that is about it, and whatever that check rests on says that it was not run.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseEventLog, replay } from '../../../evidence/event-log.ts';
import { QuoteError, readQuote } from '../../../evidence/quote.ts';
import { readAuthentication } from '../../../evidence/verify/authentication.ts';
import { type Collateral, parseCollateral } from '../../../evidence/verify/collateral.ts';
import {
  intelRoot,
  judgeQuote,
  parseRoot,
  type QuoteRules,
  type QuoteVerdicts,
} from '../../../evidence/verify/quote-rules.ts';
import { tcbStatuses } from '../../../evidence/verify/tcb-info.ts';
import {
  createSimulatedProcessor,
  type Measurements,
  type SimulatedPlatform,
} from '../../../src/demo/simulated-quote.ts';
import { readFixture, withoutFixtures } from '../../support/attestation-fixtures.ts';

type Check = keyof QuoteVerdicts;
type Outcome = Partial<Record<Check, 'fail' | 'not-run'>>;

const now = new Date('2026-05-04T03:02:01Z');
const measurements: Measurements = {
  mrTd: '11'.repeat(48),
  mrConfigId: '22'.repeat(48),
  rtmrs: ['a0'.repeat(48), 'a1'.repeat(48), 'a2'.repeat(48), 'a3'.repeat(48)],
};
const reportData = Buffer.alloc(64, 0x33);
const honest = await createSimulatedProcessor({ now });
const quote = honest.quote(measurements, reportData);

async function judge(platform: SimulatedPlatform, rules: Partial<QuoteRules> = {}): Promise<QuoteVerdicts> {
  const { rootDer, collateral, quote } = await createSimulatedProcessor({ now, ...platform });
  return judgeQuote(quote(measurements, reportData), published(collateral), {
    root: rootDer,
    at: now,
    ...rules,
  });
}

/** As a verifier reads it from a file. */
function published(collateral: Collateral): Collateral {
  return parseCollateral(JSON.stringify(collateral));
}

function judgeHonest(collateral: Collateral | undefined, bytes: Uint8Array | string = quote) {
  return judgeQuote(bytes, collateral, { root: honest.rootDer, at: now });
}

/** All that is not named passes. */
function assertOutcome(verdicts: QuoteVerdicts, expected: Outcome): void {
  const found = Object.entries(verdicts).filter(([, { verdict }]) => verdict !== 'pass');
  const told = JSON.stringify(verdicts, undefined, 1);
  assert.deepEqual(Object.fromEntries(found.map(([check, { verdict }]) => [check, verdict])), expected, told);
  for (const { reason } of Object.values(verdicts)) assert.notEqual(reason, '');
}

/** What is wrong -> the check that fails, what it must say, and the checks that rest on what is now unproven. */
type Case = readonly [
  what: string,
  platform: SimulatedPlatform,
  fails: Check,
  says: RegExp,
  unproven?: readonly Check[],
];

function hold(cases: readonly Case[]): void {
  for (const [what, platform, fails, says, unproven = []] of cases) {
    test(what, async () => {
      const verdicts = await judge(platform);
      assertOutcome(verdicts, {
        [fails]: 'fail',
        ...Object.fromEntries(unproven.map((check) => [check, 'not-run' as const])),
      });
      assert.match(verdicts[fails].reason, says);
    });
  }
}

const past = new Date('2026-05-04T03:00:00Z');
const future = new Date('2026-05-04T03:04:00Z');
const never = { until: past };
const later = { from: future };

describe('a forged signature', () => {
  hold([
    [
      'of the root on the PCK authority',
      { forged: ['pckCa'] },
      'signature',
      /Root CA on .*PCK Platform CA does not verify/,
      ['revocation', 'tcb'],
    ],
    [
      'of the PCK authority on the processor',
      { forged: ['pck'] },
      'signature',
      /Platform CA on .*PCK Certificate does not verify/,
      ['revocation', 'tcb'],
    ],
    [
      'of the root on the TCB signer',
      { forged: ['tcbSigner'] },
      'collateral',
      /TCB info: .*; the QE identity: /,
      ['signature', 'tcb', 'attributes'],
    ],
    [
      'on the TCB info',
      { forged: ['tcbInfo'] },
      'collateral',
      /^the TCB info: the signature of .* does not verify$/,
      ['tcb', 'attributes'],
    ],
    [
      'on the QE identity',
      { forged: ['qeIdentity'] },
      'collateral',
      /^the QE identity: the signature of .* does not verify$/,
      ['signature', 'tcb'],
    ],
    [
      "on the root's list",
      { forged: ['rootCrl'] },
      'collateral',
      /^the root's revocation list: the signature/,
      ['revocation'],
    ],
    [
      "on the PCK authority's list",
      { forged: ['pckCrl'] },
      'collateral',
      /^the PCK authority's revocation list: the signature/,
      ['revocation'],
    ],
    [
      "of the processor on the enclave's report",
      { forged: ['enclave'] },
      'signature',
      /processor's signature/,
    ],
    [
      'of the attestation key on the quote',
      { forged: ['quote'] },
      'signature',
      /attestation key's signature/,
    ],
    [
      'by a key that the enclave did not vouch for',
      { forged: ['attestationKey'] },
      'signature',
      /did not vouch/,
    ],
  ]);
});

describe('a chain', () => {
  hold([
    [
      'through a PCK authority that is none',
      { pckCaIsNone: true },
      'signature',
      /Platform CA is not a certificate authority/,
      ['revocation', 'tcb'],
    ],
    [
      'of a TCB signer where processors stand',
      { tcbSignerBelowPckCa: true },
      'collateral',
      /does not stand directly below the root/,
      ['signature', 'tcb', 'attributes'],
    ],
  ]);

  test('under another root', async () => {
    const other = await createSimulatedProcessor({ now });
    const verdicts = await judgeQuote(quote, published(honest.collateral), { root: other.rootDer, at: now });
    assertOutcome(verdicts, {
      collateral: 'fail',
      signature: 'fail',
      revocation: 'not-run',
      tcb: 'not-run',
      attributes: 'not-run',
    });
  });

  test("that is Intel's refuses a simulated quote", async () => {
    const verdicts = await judgeQuote(quote, published(honest.collateral), {
      root: await intelRoot(),
      at: now,
    });
    assert.equal(verdicts.signature.verdict, 'fail');
    assert.equal(verdicts.collateral.verdict, 'fail');
  });
});

describe('out of its time', () => {
  hold([
    [
      'the root has run out',
      { dates: { root: never } },
      'signature',
      /Root CA was in force until 2026-05-04T03:00:00Z/,
    ],
    [
      'the root is not yet in force',
      { dates: { root: later } },
      'signature',
      /Root CA is in force only from 2026-05-04T03:04:00Z/,
    ],
    [
      'the PCK authority has run out',
      { dates: { pckCa: never } },
      'signature',
      /Platform CA was in force until/,
    ],
    [
      'the PCK authority is not yet in force',
      { dates: { pckCa: later } },
      'signature',
      /Platform CA is in force only from/,
    ],
    [
      'the processor has run out',
      { dates: { pck: never } },
      'signature',
      /PCK Certificate was in force until/,
    ],
    [
      'the processor is not yet in force',
      { dates: { pck: later } },
      'signature',
      /PCK Certificate is in force only from/,
    ],
    [
      'the TCB signer has run out',
      { dates: { tcbSigner: never } },
      'collateral',
      /TCB Signing was in force until/,
    ],
    [
      'the TCB signer is not yet in force',
      { dates: { tcbSigner: later } },
      'collateral',
      /TCB Signing is in force only from/,
    ],
    [
      'the TCB info has run out',
      { dates: { tcbInfo: never } },
      'collateral',
      /^the TCB info: it was in force until 2026-05-04T03:00:00Z$/,
    ],
    [
      'the TCB info is not yet in force',
      { dates: { tcbInfo: later } },
      'collateral',
      /^the TCB info: it is in force only from/,
    ],
    [
      'the QE identity has run out',
      { dates: { qeIdentity: never } },
      'collateral',
      /^the QE identity: it was/,
    ],
    [
      'the QE identity is not yet in force',
      { dates: { qeIdentity: later } },
      'collateral',
      /^the QE identity: it is/,
    ],
    [
      "the root's list has run out",
      { dates: { rootCrl: never } },
      'collateral',
      /^the root's revocation list: it was/,
    ],
    [
      "the root's list is not yet in force",
      { dates: { rootCrl: later } },
      'collateral',
      /^the root's revocation list: it is/,
    ],
    [
      "the PCK authority's list has run out",
      { dates: { pckCrl: never } },
      'collateral',
      /^the PCK authority's revocation list: it was/,
    ],
    [
      "the PCK authority's list is not yet in force",
      { dates: { pckCrl: later } },
      'collateral',
      /^the PCK authority's revocation list: it is/,
    ],
  ]);

  test('all of it, by its own clock', async () => {
    const inForce = async (at: string) => {
      const verdicts = await judgeQuote(quote, published(honest.collateral), {
        root: honest.rootDer,
        at: new Date(at),
      });
      return [verdicts.collateral.verdict, verdicts.signature.verdict];
    };
    assert.deepEqual(await inForce('2026-05-04T02:02:00Z'), ['fail', 'fail']);
    assert.deepEqual(await inForce('2026-05-04T02:02:01Z'), ['pass', 'pass']);
    assert.deepEqual(await inForce('2026-06-03T02:02:01Z'), ['pass', 'pass']);
    assert.deepEqual(await inForce('2026-06-03T02:02:02Z'), ['fail', 'pass']);
    assert.deepEqual(await inForce('2027-05-04T02:02:02Z'), ['fail', 'fail']);
  });
});

describe('revoked', () => {
  hold([
    [
      'the processor',
      { revoked: ['pck'] },
      'revocation',
      /PCK Certificate \(serial .*beef\) has been revoked/,
    ],
    [
      'the PCK authority',
      { revoked: ['pckCa'] },
      'revocation',
      /Platform CA \(serial .*cafe\) has been revoked/,
    ],
    ['the TCB signer', { revoked: ['tcbSigner'] }, 'revocation', /TCB Signing .* has been revoked/],
    ['the root itself', { revoked: ['root'] }, 'revocation', /Root CA .* has been revoked/],
  ]);

  test('with a list that has run out, it stays revoked', async () => {
    assertOutcome(await judge({ revoked: ['pck'], dates: { pckCrl: never } }), {
      collateral: 'fail',
      revocation: 'fail',
    });
  });

  test('a list of another authority counts for nothing, in either direction', async () => {
    const other = await createSimulatedProcessor({ now, revoked: ['pck'] });
    const { pck_crl, pck_crl_issuer_chain } = other.collateral;
    const swapped = published({ ...honest.collateral, pck_crl, pck_crl_issuer_chain });
    assertOutcome(await judgeHonest(swapped), { collateral: 'fail', revocation: 'not-run' });
  });

  test("the root's list in the place of the PCK authority's is not taken for it", async () => {
    const { root_ca_crl } = honest.collateral;
    const swapped = published({ ...honest.collateral, pck_crl: root_ca_crl });
    assertOutcome(await judgeHonest(swapped), { collateral: 'fail', revocation: 'not-run' });
  });
});

describe('the patch level', () => {
  for (const who of ['platform', 'module', 'enclave'] as const) {
    for (const status of tcbStatuses.filter((status) => status !== 'UpToDate')) {
      test(`${status} of the ${who} is refused, and allowed only where it is named`, async () => {
        const advisories = ['INTEL-SA-00001', 'INTEL-SA-00002'];
        const platform = { tcb: { [who]: { status, advisories } } };
        const refused = await judge(platform);
        assertOutcome(refused, { tcb: 'fail' });
        assert.match(refused.tcb.reason, new RegExp(`${status} \\(INTEL-SA-00001, INTEL-SA-00002\\)`));
        const allowed = await judge(platform, { allowedTcb: ['UpToDate', status] });
        assertOutcome(allowed, status === 'Revoked' ? { tcb: 'fail' } : {});
        if (status === 'Revoked') return;
        assert.match(allowed.tcb.reason, new RegExp(`^${status}: `));
        const known = { allowedTcb: ['UpToDate', status] } as const;
        assertOutcome(await judge(platform, { ...known, allowedAdvisories: advisories }), {});
        const open = await judge(platform, { ...known, allowedAdvisories: ['INTEL-SA-00001'] });
        assertOutcome(open, { tcb: 'fail' });
        assert.match(open.tcb.reason, /open to INTEL-SA-00002$/);
      });
    }
  }

  hold([
    [
      'of a microcode that is too old',
      { platform: { cpuSvn: '03030202040100040000000000000000' } },
      'tcb',
      /platform is below every/,
    ],
    ['of a PCE that is too old', { platform: { pceSvn: 12 } }, 'tcb', /platform is below every/],
    [
      'of the TDX microcode',
      { td: { teeTcbSvn: '05010100000000000000000000000000' } },
      'tcb',
      /platform is below every/,
    ],
    [
      'of the TDX module',
      { td: { teeTcbSvn: '04010200000000000000000000000000' } },
      'tcb',
      /TDX module \(TDX_01\) is below every/,
    ],
    [
      'of a TDX module that the vendor does not know',
      { td: { teeTcbSvn: '09070200000000000000000000000000' } },
      'tcb',
      /TDX module \(TDX_07\) is below every/,
    ],
    ['of the quoting enclave', { enclave: { svn: 3 } }, 'tcb', /quoting enclave is below every/],
    [
      'of another family of processors',
      { platform: { fmspc: '00906ed50000' } },
      'tcb',
      /TCB info is of FMSPC 53494d554c41, .* 00906ed50000/,
    ],
    ['of another PCE', { platform: { pceId: '0001' } }, 'tcb', /PCE 0000, .* 0001/],
  ]);

  test('of a module of its own identity is not compared with the platform, which the library does', async () => {
    // The second module family begins to count again: its level 3 is not below the platform's 5 (Intel TCB info version 3).
    const said = (info: object) => ({ ...info, ...moduleOfVersion3 });
    const moduleOfVersion3 = {
      tdxModuleIdentities: [
        {
          id: 'TDX_03',
          mrsigner: '00'.repeat(48),
          attributes: '00'.repeat(8),
          attributesMask: 'ff'.repeat(8),
          tcbLevels: [{ tcb: { isvsvn: 3 }, tcbDate: '2026-01-01T00:00:00Z', tcbStatus: 'UpToDate' }],
        },
      ],
    };
    const td = { teeTcbSvn: '03030200000000000000000000000000' };
    assertOutcome(await judge({ td, edit: { tcbInfo: said } }), {});
    assertOutcome(
      await judge({ td: { teeTcbSvn: '02030200000000000000000000000000' }, edit: { tcbInfo: said } }),
      {
        tcb: 'fail',
      },
    );
  });

  test('of a module of version 0 is compared with the platform, component by component', async () => {
    const said = (svns: number[]) => (info: object) => ({
      ...info,
      tdxModuleIdentities: [],
      tcbLevels: (info as { tcbLevels: { tcb: object }[] }).tcbLevels.map((level) => ({
        ...level,
        tcb: { ...level.tcb, tdxtcbcomponents: [...svns, ...Array(13).fill(0)].map((svn) => ({ svn })) },
      })),
    });
    const td = { teeTcbSvn: '05000200000000000000000000000000' };
    assertOutcome(await judge({ td, edit: { tcbInfo: said([5, 0, 2]) } }), {});
    assertOutcome(await judge({ td, edit: { tcbInfo: said([6, 0, 2]) } }), { tcb: 'fail' });
  });

  test('is the worst of the three, and every one of them must be allowed', async () => {
    const tcb = { platform: { status: 'SWHardeningNeeded' }, enclave: { status: 'OutOfDate' } } as const;
    const allowed = await judge({ tcb }, { allowedTcb: ['UpToDate', 'SWHardeningNeeded', 'OutOfDate'] });
    assertOutcome(allowed, {});
    assert.match(allowed.tcb.reason, /^OutOfDate: /);
    assertOutcome(await judge({ tcb }, { allowedTcb: ['UpToDate', 'OutOfDate'] }), { tcb: 'fail' });
  });
});

describe('what the TD is', () => {
  const service: SimulatedPlatform = { format: 5, report: '1.5', td: { mrServiceTd: '01'.padEnd(96, '0') } };
  hold([
    ['under debug', { td: { tdAttributes: '0100001000000000' } }, 'attributes', /^the TD is under debug/],
    [
      'without SEPT_VE_DISABLE',
      { td: { tdAttributes: '0000000000000000' } },
      'attributes',
      /^SEPT_VE_DISABLE is off/,
    ],
    [
      'with a reserved bit in the security group',
      { td: { tdAttributes: '0000011000000000' } },
      'attributes',
      /^reserved TD attributes are set: 0x10000$/,
    ],
    [
      'with the reserved bit 29',
      { td: { tdAttributes: '0000003000000000' } },
      'attributes',
      /^reserved TD attributes/,
    ],
    [
      'with a reserved bit in the upper half',
      { td: { tdAttributes: '0000001000000040' } },
      'attributes',
      /^reserved TD attributes/,
    ],
    ['with a service TD', service, 'attributes', /service TD is bound/],
    [
      "of a TDX module that is not the vendor's",
      { td: { mrSignerSeam: '01'.padEnd(96, '0') } },
      'attributes',
      /MRSIGNERSEAM/,
    ],
    [
      'of a TDX module with other attributes',
      { td: { seamAttributes: '0100000000000000' } },
      'attributes',
      /SEAM attributes/,
    ],
  ]);

  test('protection keys, key locker and performance counters are no fault', async () => {
    assertOutcome(await judge({ td: { tdAttributes: '000000d000000080' } }), {});
  });

  test('attributes of the module that its mask leaves out are no fault', async () => {
    const mask = (info: object) => ({
      ...info,
      tdxModuleIdentities: (info as { tdxModuleIdentities: object[] }).tdxModuleIdentities.map(
        (identity) => ({
          ...identity,
          attributesMask: '00ffffffffffffff',
        }),
      ),
    });
    const td = { seamAttributes: '0100000000000000' };
    assertOutcome(await judge({ td, edit: { tcbInfo: mask } }), {});
  });
});

describe('the quoting enclave', () => {
  hold([
    ["that is not the vendor's", { enclave: { mrSigner: 'ab'.repeat(32) } }, 'signature', /MRSIGNER/],
    ["that is another product of the vendor's", { enclave: { prodId: 3 } }, 'signature', /product 3/],
    [
      'under a debugger',
      { enclave: { attributes: '13000000000000000000000000000000' } },
      'signature',
      /under a debugger/,
    ],
    [
      'with other attributes',
      { enclave: { attributes: '11010000000000000000000000000000' } },
      'signature',
      /attributes of the quoting enclave/,
    ],
    ['with another MISCSELECT', { enclave: { miscSelect: '01000000' } }, 'signature', /MISCSELECT/],
  ]);
});

describe('collateral', () => {
  test('that is missing lets nothing pass, and nothing fail', async () => {
    assertOutcome(await judgeHonest(undefined), {
      collateral: 'not-run',
      signature: 'not-run',
      revocation: 'not-run',
      tcb: 'not-run',
      attributes: 'not-run',
    });
  });

  test('that is missing hides nothing that the quote alone refutes', async () => {
    const { rootDer, quote } = await createSimulatedProcessor({
      now,
      forged: ['quote'],
      td: { tdAttributes: '0100001000000000' },
    });
    const verdicts = await judgeQuote(quote(measurements, reportData), undefined, { root: rootDer, at: now });
    assertOutcome(verdicts, {
      collateral: 'not-run',
      signature: 'fail',
      revocation: 'not-run',
      tcb: 'not-run',
      attributes: 'fail',
    });
  });

  const said = { ...honest.collateral };
  const broken: readonly (readonly [what: string, fields: Partial<Collateral>, Outcome])[] = [
    ["garbage for the root's list", { root_ca_crl: 'abcd' }, { collateral: 'fail', revocation: 'not-run' }],
    ["nothing for the root's list", { root_ca_crl: '' }, { collateral: 'fail', revocation: 'not-run' }],
    [
      "garbage for the PCK authority's list",
      { pck_crl: '3003020101' },
      { collateral: 'fail', revocation: 'not-run' },
    ],
    ["nothing for the PCK authority's list", { pck_crl: '' }, { collateral: 'fail', revocation: 'not-run' }],
    [
      "no chain for the PCK authority's list",
      { pck_crl_issuer_chain: '' },
      { collateral: 'fail', revocation: 'not-run' },
    ],
    [
      'no chain for the TCB info',
      { tcb_info_issuer_chain: 'PEM' },
      { collateral: 'fail', tcb: 'not-run', attributes: 'not-run' },
    ],
    [
      'a broken certificate',
      { qe_identity_issuer_chain: '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----' },
      { collateral: 'fail', signature: 'not-run', tcb: 'not-run' },
    ],
    [
      'a signature that is too short',
      { tcb_info_signature: 'ab' },
      { collateral: 'fail', tcb: 'not-run', attributes: 'not-run' },
    ],
    [
      'an altered TCB info',
      { tcb_info: said.tcb_info.replace('"UpToDate"', '"Revoked"') },
      { collateral: 'fail', tcb: 'not-run', attributes: 'not-run' },
    ],
    [
      'an altered QE identity',
      { qe_identity: `${said.qe_identity} ` },
      { collateral: 'fail', signature: 'not-run', tcb: 'not-run' },
    ],
  ];
  for (const [what, fields, outcome] of broken) {
    test(`with ${what} is no collateral`, async () => {
      assertOutcome(await judgeHonest(published({ ...said, ...fields })), outcome);
    });
  }

  const edits: readonly (readonly [
    what: string,
    edit: NonNullable<SimulatedPlatform['edit']>,
    Outcome,
    RegExp,
  ])[] = [
    [
      'SGX',
      { tcbInfo: (info) => ({ ...info, id: 'SGX' }) },
      { collateral: 'fail', tcb: 'not-run', attributes: 'not-run' },
      /TCB info cannot be read: id/,
    ],
    [
      'version 2',
      { tcbInfo: (info) => ({ ...info, version: 2 }) },
      { collateral: 'fail', tcb: 'not-run', attributes: 'not-run' },
      /version/,
    ],
    [
      'a status that nobody knows',
      { tcbInfo: (info) => ({ ...info, tcbLevels: [{ tcbStatus: 'Fine' }] }) },
      { collateral: 'fail', tcb: 'not-run', attributes: 'not-run' },
      /tcbLevels/,
    ],
    [
      'an enclave that quotes SGX',
      { qeIdentity: (info) => ({ ...info, id: 'QE' }) },
      { collateral: 'fail', signature: 'not-run', tcb: 'not-run' },
      /QE identity cannot be read: id/,
    ],
  ];
  for (const [what, edit, outcome, says] of edits) {
    test(`that the vendor signed for ${what} is not taken for what it is not`, async () => {
      const verdicts = await judge({ edit });
      assertOutcome(verdicts, outcome);
      assert.match(verdicts.collateral.reason, says);
    });
  }

  test('cannot replace the chain that the quote brings', async () => {
    const other = await createSimulatedProcessor({ now });
    const chain = published({
      ...honest.collateral,
      pck_certificate_chain: other.collateral.pck_crl_issuer_chain,
    });
    assertOutcome(await judgeHonest(chain), {});
  });
});

describe('an honest platform', () => {
  for (const [format, report] of [
    [4, '1.0'],
    [5, '1.0'],
    [5, '1.5'],
  ] as const) {
    test(`passes with a quote of format ${format} and a TD report ${report}`, async () => {
      assertOutcome(await judge({ format, report }), {});
    });
  }

  test('passes with its quote in hex, and with zeros behind it, as the enclave returns it', async () => {
    assertOutcome(await judgeHonest(published(honest.collateral), `0x${quote.toString('hex')}`), {});
    assertOutcome(await judge({ after: new Uint8Array(70) }), {});
  });

  test('with anything else behind its quote does not', async () => {
    const verdicts = await judge({ after: Uint8Array.of(0, 0, 1) });
    assertOutcome(verdicts, { signature: 'fail' });
    assert.match(verdicts.signature.reason, /bytes behind the signature/);
  });

  test('passes under a root that was read from a file', async () => {
    const root = parseRoot(honest.rootPem);
    assertOutcome(await judgeQuote(quote, published(honest.collateral), { root, at: now }), {});
    assert.throws(() => parseRoot('nothing'), /not one PEM certificate/);
    assert.throws(() => parseRoot(honest.rootPem + honest.rootPem), /not one PEM certificate/);
  });
});

test('what the library refuses does not pass, whatever our own rules say', async () => {
  // It reads no PEM with a space in it, which we do.
  const spaced = honest.collateral.tcb_info_issuer_chain.replaceAll('\n', ' \n');
  const verdicts = await judgeHonest(published({ ...honest.collateral, tcb_info_issuer_chain: spaced }));
  assertOutcome(verdicts, { signature: 'fail' });
  assert.match(verdicts.signature.reason, /^@phala\/dcap-qvl refuses the quote: /);
});

describe('a quote cut short', () => {
  const head = 632;
  /** As if it had been made so: the length of the signature part says what is left of it. */
  const shortened = (length: number) => {
    const cut = Buffer.from(quote.subarray(0, head + 4 + length));
    cut.writeUInt32LE(length, head);
    return cut;
  };
  const wholeSignature = quote.length - head - 4;

  test('is refused at every byte', () => {
    for (let length = 0; length < quote.length; length++) {
      assert.throws(() => readQuote(quote.subarray(0, length)), QuoteError, `at ${length}`);
    }
  });

  test('is refused at every byte of its signature part, whatever length that part claims', () => {
    for (let length = 0; length < wholeSignature; length++) {
      const { signature } = readQuote(shortened(length));
      assert.throws(() => readAuthentication(signature), QuoteError, `at ${length}`);
    }
  });

  test('fails by its signature, and nothing else of it can be said', async () => {
    const collateral = published(honest.collateral);
    for (let length = 0; length < quote.length; length += 397) {
      assertOutcome(await judgeHonest(collateral, quote.subarray(0, length)), {
        signature: 'fail',
        revocation: 'not-run',
        tcb: 'not-run',
        attributes: 'not-run',
      });
    }
    for (let length = 0; length < wholeSignature; length += 397) {
      const verdicts = await judgeHonest(collateral, shortened(length));
      assertOutcome(verdicts, { signature: 'fail', revocation: 'not-run', tcb: 'not-run' });
    }
  });
});

describe('a real quote', { skip: withoutFixtures('quote-report.json', 'tdx-collateral.json') }, () => {
  const judgeReal = async (at: string) => {
    const { quote } = readFixture<{ quote: string }>('quote-report.json');
    const collateral = parseCollateral(JSON.stringify(readFixture('tdx-collateral.json')));
    return judgeQuote(quote, collateral, { root: await intelRoot(), at: new Date(at) });
  };

  test("passes under Intel's root while its collateral is in force", async () => {
    assertOutcome(await judgeReal('2026-02-18T10:58:51Z'), {});
    assertOutcome(await judgeReal('2026-03-20T10:41:15Z'), {});
  });

  test('has the registers that its event log adds up to', () => {
    const { quote, event_log } = readFixture<{ quote: string; event_log: string }>('quote-report.json');
    assert.deepEqual(replay(parseEventLog(event_log)), readQuote(quote).quote.rtmrs);
  });

  test('fails by its collateral alone before and after', async () => {
    assertOutcome(await judgeReal('2026-02-18T10:58:50Z'), { collateral: 'fail' });
    // The list of revoked processors runs out a minute before the QE identity.
    const after = await judgeReal('2026-03-20T10:41:16Z');
    assertOutcome(after, { collateral: 'fail' });
    assert.match(
      after.collateral.reason,
      /^the PCK authority's revocation list: it was in force until 2026-03-20T10:41:15Z$/,
    );
    assertOutcome(await judgeReal('2026-12-01T00:00:00Z'), { collateral: 'fail' });
  });
});
