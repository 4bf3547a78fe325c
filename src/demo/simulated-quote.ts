// A simulated confidential machine: quotes whose whole chain verifies under a root made on the spot, or that are wrong where they are told to be.

import 'reflect-metadata';
import { createHash, generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto';
import { Extension } from '@peculiar/x509';
import type { Collateral } from '../../evidence/verify/collateral.ts';
import { encodeOid } from '../../evidence/verify/der.ts';
import {
  type CollateralOptions,
  createCollateral,
  honest,
  type SignedJsonName,
} from './simulated-collateral.ts';
import {
  type CertificateName,
  type CrlName,
  createPki,
  type Lifetimes,
  type Period,
  type Pki,
  type PkiOptions,
  pemOf,
  signRaw,
} from './simulated-pki.ts';

/** Hex, 48 bytes each. */
export interface Measurements {
  readonly mrTd: string;
  readonly mrConfigId: string;
  readonly rtmrs: readonly [string, string, string, string];
}

export interface SimulatedProcessor {
  /** Trust this root and the quotes verify; the true one of Intel refuses them. */
  readonly rootDer: Buffer;
  readonly rootPem: string;
  readonly collateral: Collateral;
  /** `reportData` must have 64 bytes. */
  quote(measurements: Measurements, reportData: Uint8Array): Buffer;
}

export type SignedName = CertificateName | CrlName | SignedJsonName | 'enclave' | 'attestationKey' | 'quote';

/** What is left out is as it should be. */
export interface SimulatedPlatform
  extends Omit<PkiOptions, 'dates' | 'forged'>,
    Omit<CollateralOptions, 'dates' | 'forged'> {
  /** Everything is in force from an hour before. Default: the present. */
  readonly now?: Date;
  /** Default: 30, as the vendor's. Certificates have a year. */
  readonly collateralDays?: number;
  readonly dates?: Readonly<Partial<Record<CertificateName | CrlName | SignedJsonName, Period>>>;
  /** Whose signatures are not by the key that they should be by; `attestationKey`: the enclave vouched for another. */
  readonly forged?: readonly SignedName[];
  readonly format?: 4 | 5;
  /** Only format 5 has 1.5. */
  readonly report?: '1.0' | '1.5';
  /** Of the TD report, in hex. */
  readonly td?: Partial<TdFields>;
  readonly platform?: Partial<PlatformFields>;
  readonly enclave?: Partial<EnclaveFields>;
  /** What follows the signature. */
  readonly after?: Uint8Array;
}

export interface TdFields {
  readonly teeTcbSvn: string;
  readonly mrSignerSeam: string;
  readonly seamAttributes: string;
  readonly tdAttributes: string;
  readonly mrServiceTd: string;
}

export interface PlatformFields {
  readonly fmspc: string;
  readonly pceId: string;
  readonly pceSvn: number;
  readonly cpuSvn: string;
}

export interface EnclaveFields {
  readonly mrSigner: string;
  readonly attributes: string;
  readonly miscSelect: string;
  readonly prodId: number;
  readonly svn: number;
}

const DAY_MS = 24 * 60 * 60 * 1000;
const COLLATERAL_DAYS = 30;
const CERTIFICATE_DAYS = 365;

/** Makes the PKI and its collateral, once for all quotes. */
export async function createSimulatedProcessor(
  simulated: SimulatedPlatform = {},
): Promise<SimulatedProcessor> {
  const lifetimes = lifetimesOf(simulated);
  const { dates = {}, forged = [] } = simulated;
  const pki = await createPki(lifetimes, [sgxExtension(simulated.platform ?? {})], {
    ...simulated,
    dates,
    forged: forged.filter((name): name is CertificateName | CrlName => !(name in ofOthers)),
  });
  const collateral = createCollateral(pki, lifetimes.collateral, {
    ...simulated,
    dates,
    forged: forged.filter((name) => name === 'tcbInfo' || name === 'qeIdentity'),
  });
  return {
    rootDer: Buffer.from(pki.root.certificate.rawData),
    rootPem: pemOf(pki.root),
    collateral,
    quote: createQuoter(pki, simulated),
  };
}

/** What is signed and is neither a certificate nor a revocation list. */
const ofOthers = { tcbInfo: true, qeIdentity: true, enclave: true, attestationKey: true, quote: true };

function lifetimesOf({ now = new Date(), collateralDays = COLLATERAL_DAYS }: SimulatedPlatform): Lifetimes {
  const from = new Date(now.getTime() - DAY_MS / 24);
  const lasting = (days: number) => ({ from, until: new Date(from.getTime() + days * DAY_MS) });
  return { collateral: lasting(collateralDays), certificates: lasting(CERTIFICATE_DAYS) };
}

// The extension by which a processor's certificate tells its platform and patch level (Intel SGX PCK Certificate
// and CRL Profile Specification, §1.3.5).

const SGX = '1.2.840.113741.1.13.1';

function sgxExtension(given: Partial<PlatformFields>): Extension {
  const { fmspc, pceId, pceSvn, cpuSvn } = { ...honest, ...given };
  const svns = Buffer.from(cpuSvn, 'hex');
  const components = [...svns].map((svn, index) => entry(`${SGX}.2.${index + 1}`, integer(svn)));
  const tcb = [...components, entry(`${SGX}.2.17`, integer(pceSvn)), entry(`${SGX}.2.18`, octets(svns))];
  return new Extension(
    SGX,
    false,
    sequence([
      entry(`${SGX}.1`, octets(Buffer.alloc(16))),
      entry(`${SGX}.2`, sequence(tcb)),
      entry(`${SGX}.3`, octets(Buffer.from(pceId, 'hex'))),
      entry(`${SGX}.4`, octets(Buffer.from(fmspc, 'hex'))),
      entry(`${SGX}.5`, der(0x0a, Buffer.from([1]))),
    ]),
  );
}

function entry(oid: string, value: Buffer): Buffer {
  return sequence([der(0x06, Buffer.from(encodeOid(oid))), value]);
}

function sequence(parts: readonly Buffer[]): Buffer {
  return der(0x30, Buffer.concat(parts));
}

function octets(value: Buffer): Buffer {
  return der(0x04, value);
}

/** Of one byte: a zero before it keeps what is above 127 positive. */
function integer(value: number): Buffer {
  return der(0x02, Buffer.from(value < 0x80 ? [value] : [0, value]));
}

/** Content of up to 65,535 bytes. */
function der(tag: number, content: Buffer): Buffer {
  const { length } = content;
  const size =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), content]);
}

// The quote (formats 4 and 5): header, TD report, and the chain of signatures from the attestation key to the root.

function createQuoter({ pck, pckChain }: Pki, simulated: SimulatedPlatform) {
  const { forged = [], after = new Uint8Array(0) } = simulated;
  const makeKey = () => generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const attestation = makeKey();
  const attestationKey = rawPublicKey(attestation.publicKey);
  const authenticationData = randomBytes(32);
  const vouchedFor = forged.includes('attestationKey') ? rawPublicKey(makeKey().publicKey) : attestationKey;
  const enclave = enclaveReport(vouchedFor, authenticationData, simulated.enclave ?? {});
  const certification = Buffer.concat([
    enclave,
    signRaw(enclave, forged.includes('enclave') ? makeKey().privateKey : pck.privateKey),
    u16(authenticationData.length),
    authenticationData,
    sized(5, Buffer.from(pckChain)),
  ]);
  const signingKey = forged.includes('quote') ? makeKey().privateKey : attestation.privateKey;
  return (measurements: Measurements, reportData: Uint8Array): Buffer => {
    const signed = Buffer.concat([head(simulated), tdReport(measurements, reportData, simulated)]);
    const authentication = Buffer.concat([
      signRaw(signed, signingKey),
      attestationKey,
      sized(6, certification),
    ]);
    return Buffer.concat([signed, u32(authentication.length), authentication, after]);
  };
}

function head({ format = 4, report = '1.0' }: SimulatedPlatform): Buffer {
  const vendor = Buffer.from('939a7233f79c4ca9940a0db3957f0607', 'hex');
  const userData = Buffer.from('SIMULATED'.padEnd(20, '\0'));
  const header = Buffer.concat([u16(format), u16(2), u32(0x81), u16(0), u16(0), vendor, userData]);
  if (format === 4) return header;
  return Buffer.concat([header, ...(report === '1.5' ? [u16(3), u32(648)] : [u16(2), u32(584)])]);
}

const honestTd: TdFields = {
  teeTcbSvn: honest.teeTcbSvn,
  mrSignerSeam: honest.mrSignerSeam,
  seamAttributes: honest.seamAttributes,
  // SEPT_VE_DISABLE and nothing else: no debugging.
  tdAttributes: '0000001000000000',
  mrServiceTd: '00'.repeat(48),
};

function tdReport(
  { mrTd, mrConfigId, rtmrs }: Measurements,
  reportData: Uint8Array,
  { format = 4, report = '1.0', td }: SimulatedPlatform,
): Buffer {
  const fields = { ...honestTd, ...td };
  const field = (length: number, digits: string) => exactly(length, Buffer.from(digits, 'hex'));
  const version1 = Buffer.concat([
    field(16, fields.teeTcbSvn),
    createHash('sha384').update('SIMULATED TDX module').digest(),
    field(48, fields.mrSignerSeam),
    field(8, fields.seamAttributes),
    field(8, fields.tdAttributes),
    Buffer.from('e702060000000000', 'hex'),
    field(48, mrTd),
    field(48, mrConfigId),
    Buffer.alloc(48 + 48),
    ...rtmrs.map((register) => field(48, register)),
    exactly(64, reportData),
  ]);
  if (format === 4 || report === '1.0') return version1;
  return Buffer.concat([version1, field(16, fields.teeTcbSvn), field(48, fields.mrServiceTd)]);
}

/** The quoting enclave's own report, which binds the attestation key. */
function enclaveReport(
  attestationKey: Buffer,
  authenticationData: Buffer,
  given: Partial<EnclaveFields>,
): Buffer {
  const bound = createHash('sha256').update(attestationKey).update(authenticationData).digest();
  return Buffer.concat([
    Buffer.from(honest.cpuSvn, 'hex'),
    exactly(4, Buffer.from(given.miscSelect ?? '00000000', 'hex')),
    Buffer.alloc(28),
    exactly(16, Buffer.from(given.attributes ?? honest.qeAttributes, 'hex')),
    createHash('sha256').update('SIMULATED quoting enclave code').digest(),
    Buffer.alloc(32),
    exactly(32, Buffer.from(given.mrSigner ?? honest.qeMrSigner, 'hex')),
    Buffer.alloc(96),
    u16(given.prodId ?? honest.qeProdId),
    u16(given.svn ?? honest.qeSvn),
    Buffer.alloc(60),
    bound,
    Buffer.alloc(32),
  ]);
}

function sized(type: number, body: Buffer): Buffer {
  return Buffer.concat([u16(type), u32(body.length), body]);
}

function rawPublicKey(key: KeyObject): Buffer {
  const { x, y } = key.export({ format: 'jwk' }) as { x: string; y: string };
  return Buffer.concat([Buffer.from(x, 'base64url'), Buffer.from(y, 'base64url')]);
}

function exactly(length: number, bytes: Uint8Array): Uint8Array {
  if (bytes.length !== length) throw new RangeError(`expected ${length} bytes, got ${bytes.length}`);
  return bytes;
}

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}
