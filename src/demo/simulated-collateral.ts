// What the simulated vendor signs as JSON: the patch levels of its one platform, and the identity of its quoting enclave.

import { createHash, generateKeyPairSync, type KeyObject } from 'node:crypto';
import type { Collateral } from '../../evidence/verify/collateral.ts';
import type { TcbStatus } from '../../evidence/verify/tcb-info.ts';
import { type Period, type Pki, signRaw } from './simulated-pki.ts';

export type SignedJsonName = 'tcbInfo' | 'qeIdentity';

export interface CollateralOptions {
  readonly dates?: Readonly<Partial<Record<SignedJsonName, Period>>>;
  /** Signed with another key. */
  readonly forged?: readonly SignedJsonName[];
  /** What the vendor says of the level that platform, TDX module and quoting enclave are at. Default: UpToDate. */
  readonly tcb?: Readonly<Partial<Record<'platform' | 'module' | 'enclave', TcbLevel>>>;
  /** Changes what is said before it is signed. */
  readonly edit?: Readonly<Partial<Record<SignedJsonName, (said: JsonObject) => JsonObject>>>;
}

export interface TcbLevel {
  readonly status: TcbStatus;
  readonly advisories?: readonly string[];
}

export type JsonObject = Readonly<Record<string, unknown>>;

/** What the platform is, unless it is told to be something else. */
export const honest = {
  /** The letters SIMULA: no such platform exists. */
  fmspc: Buffer.from('SIMULA').toString('hex'),
  pceId: '0000',
  pceSvn: 13,
  cpuSvn: '03030202040100050000000000000000',
  /** TDX module of version 1 (its second byte) at level 5, then the microcode. */
  teeTcbSvn: '05010200000000000000000000000000',
  mrSignerSeam: '00'.repeat(48),
  seamAttributes: '00'.repeat(8),
  qeMrSigner: createHash('sha256').update('SIMULATED quoting enclave').digest('hex'),
  qeAttributes: '11000000000000000000000000000000',
  qeProdId: 2,
  qeSvn: 4,
} as const;

export function createCollateral(
  pki: Pki,
  lifetime: Required<Period>,
  options: CollateralOptions,
): Collateral {
  const sign = signer(pki.tcbSigner.privateKey, lifetime, options);
  const [tcb_info, tcb_info_signature] = sign('tcbInfo', describePlatform(lifetime, options));
  const [qe_identity, qe_identity_signature] = sign('qeIdentity', describeQuotingEnclave(lifetime, options));
  return {
    pck_crl_issuer_chain: pki.pckCaChain,
    root_ca_crl: pki.rootCrl,
    pck_crl: pki.pckCrl,
    tcb_info_issuer_chain: pki.tcbSignerChain,
    tcb_info,
    tcb_info_signature,
    qe_identity_issuer_chain: pki.tcbSignerChain,
    qe_identity,
    qe_identity_signature,
  };
}

function signer(key: KeyObject, lifetime: Required<Period>, { dates, forged, edit }: CollateralOptions) {
  return (which: SignedJsonName, said: JsonObject): [string, string] => {
    const { from, until } = { ...lifetime, ...dates?.[which] };
    const dated = { ...said, issueDate: seconds(from), nextUpdate: seconds(until) };
    const text = JSON.stringify(edit?.[which]?.(dated) ?? dated);
    const another = () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
    const signature = signRaw(Buffer.from(text), forged?.includes(which) ? another() : key);
    return [text, signature.toString('hex')];
  };
}

function describePlatform({ from }: Required<Period>, { tcb = {} }: CollateralOptions): JsonObject {
  const module = {
    mrsigner: honest.mrSignerSeam,
    attributes: honest.seamAttributes,
    attributesMask: 'FF'.repeat(8),
  };
  const [moduleSvn] = Buffer.from(honest.teeTcbSvn, 'hex');
  return {
    id: 'TDX',
    version: 3,
    fmspc: honest.fmspc.toUpperCase(),
    pceId: honest.pceId,
    tcbType: 0,
    tcbEvaluationDataNumber: 1,
    tdxModule: module,
    tdxModuleIdentities: [
      { id: 'TDX_01', ...module, tcbLevels: [{ tcb: { isvsvn: moduleSvn }, ...level(from, tcb.module) }] },
    ],
    tcbLevels: [
      {
        tcb: {
          sgxtcbcomponents: components(honest.cpuSvn),
          pcesvn: honest.pceSvn,
          tdxtcbcomponents: components(honest.teeTcbSvn),
        },
        ...level(from, tcb.platform),
      },
    ],
  };
}

function components(svns: string) {
  return [...Buffer.from(svns, 'hex')].map((svn) => ({ svn }));
}

function describeQuotingEnclave({ from }: Required<Period>, { tcb = {} }: CollateralOptions): JsonObject {
  return {
    id: 'TD_QE',
    version: 2,
    tcbEvaluationDataNumber: 1,
    miscselect: '00000000',
    miscselectMask: 'FFFFFFFF',
    attributes: honest.qeAttributes,
    attributesMask: 'FBFFFFFFFFFFFFFF0000000000000000',
    mrsigner: honest.qeMrSigner.toUpperCase(),
    isvprodid: honest.qeProdId,
    tcbLevels: [{ tcb: { isvsvn: honest.qeSvn }, ...level(from, tcb.enclave) }],
  };
}

function level(from: Date, { status, advisories }: TcbLevel = { status: 'UpToDate' }): JsonObject {
  const tcb = { tcbDate: seconds(from), tcbStatus: status };
  return advisories === undefined ? tcb : { ...tcb, advisoryIDs: advisories };
}

function seconds(date: Date): string {
  return date.toISOString().replace(/\.\d+Z$/, 'Z');
}
