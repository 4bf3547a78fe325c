// A simulated confidential machine: quotes whose whole chain verifies, under a root that was made on the spot.

import 'reflect-metadata';
import {
  createHash,
  createPrivateKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  webcrypto,
} from 'node:crypto';
import {
  BasicConstraintsExtension,
  Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  type X509Certificate,
  X509CertificateGenerator,
  X509CrlGenerator,
} from '@peculiar/x509';

/** What a verifier fetches beside the quote, in the names and encodings of the PCCS clients. */
export interface Collateral {
  readonly pck_crl_issuer_chain: string;
  readonly root_ca_crl: string;
  readonly pck_crl: string;
  readonly tcb_info_issuer_chain: string;
  readonly tcb_info: string;
  readonly tcb_info_signature: string;
  readonly qe_identity_issuer_chain: string;
  readonly qe_identity: string;
  readonly qe_identity_signature: string;
}

/** Hex, 48 bytes each. */
export interface Measurements {
  readonly mrTd: string;
  readonly mrConfigId: string;
  readonly rtmrs: readonly [string, string, string, string];
}

export interface SimulatedProcessor {
  /** Trust this root and the quotes verify; the true one of Intel refuses them. */
  readonly rootDer: Buffer;
  readonly collateral: Collateral;
  /** `reportData` must have 64 bytes. */
  quote(measurements: Measurements, reportData: Uint8Array): Buffer;
}

const DAY_MS = 24 * 60 * 60 * 1000;
const COLLATERAL_DAYS = 30;
const CERTIFICATE_DAYS = 365;
/** The letters SIMULA: no such platform exists. */
const FMSPC = Buffer.from('SIMULA').toString('hex').toUpperCase();
const PCE_ID = '0000';
const PCE_SVN = 13;
const CPU_SVN = Buffer.from('03030202040100050000000000000000', 'hex');
const TEE_TCB_SVN = Buffer.from('05010200000000000000000000000000', 'hex');
const QE_MRSIGNER = createHash('sha256').update('SIMULATED quoting enclave').digest();
const QE_PROD_ID = 2;
const QE_SVN = 4;
const EC = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;

/** Makes the PKI and its collateral, valid from an hour before `now`: collateral for 30 days, certificates for a year. */
export async function createSimulatedProcessor(now = new Date()): Promise<SimulatedProcessor> {
  const validity = validityFrom(now);
  const root = await makeRoot(validity);
  const pckCa = await makeCa('SIMULATED SGX PCK Platform CA', root, validity);
  const pck = await makeLeaf('SIMULATED SGX PCK Certificate', pckCa, validity, [sgxExtension()]);
  const tcbSigner = await makeLeaf('SIMULATED SGX TCB Signing', root, validity);
  return {
    rootDer: Buffer.from(root.certificate.rawData),
    collateral: await makeCollateral({ root, pckCa, tcbSigner }, validity),
    quote: createQuoter(pck, [pck, pckCa, root].map(pemOf).join('')),
  };
}

interface Validity {
  readonly from: Date;
  readonly collateralUntil: Date;
  readonly certificatesUntil: Date;
}

function validityFrom(now: Date): Validity {
  const from = new Date(now.getTime() - DAY_MS / 24);
  const after = (days: number) => new Date(from.getTime() + days * DAY_MS);
  return { from, collateralUntil: after(COLLATERAL_DAYS), certificatesUntil: after(CERTIFICATE_DAYS) };
}

// The certificates: a root, a CA for processors with one processor, and a signer of TCB information.

interface Authority {
  readonly certificate: X509Certificate;
  readonly keys: webcrypto.CryptoKeyPair;
  readonly privateKey: KeyObject;
}

async function makeRoot(validity: Validity): Promise<Authority> {
  const { keys, privateKey } = await makeKeys();
  const certificate = await X509CertificateGenerator.createSelfSigned({
    name: distinguishedName('SIMULATED SGX Root CA'),
    keys,
    ...certificateDates(validity),
    signingAlgorithm: EC,
    extensions: caExtensions(),
  });
  return { certificate, keys, privateKey };
}

function makeCa(name: string, issuer: Authority, validity: Validity): Promise<Authority> {
  return certify(name, issuer, validity, caExtensions());
}

function makeLeaf(
  name: string,
  issuer: Authority,
  validity: Validity,
  more: Extension[] = [],
): Promise<Authority> {
  const usage = new KeyUsagesExtension(KeyUsageFlags.digitalSignature | KeyUsageFlags.nonRepudiation, true);
  return certify(name, issuer, validity, [
    new BasicConstraintsExtension(false, undefined, true),
    usage,
    ...more,
  ]);
}

async function certify(
  name: string,
  issuer: Authority,
  validity: Validity,
  extensions: Extension[],
): Promise<Authority> {
  const { keys, privateKey } = await makeKeys();
  const certificate = await X509CertificateGenerator.create({
    subject: distinguishedName(name),
    issuer: issuer.certificate.subject,
    publicKey: keys.publicKey,
    signingKey: issuer.keys.privateKey,
    ...certificateDates(validity),
    signingAlgorithm: EC,
    extensions,
  });
  return { certificate, keys, privateKey };
}

async function makeKeys() {
  const keys = await webcrypto.subtle.generateKey(EC, true, ['sign', 'verify']);
  const pkcs8 = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey);
  return { keys, privateKey: createPrivateKey({ key: Buffer.from(pkcs8), format: 'der', type: 'pkcs8' }) };
}

function caExtensions(): Extension[] {
  return [
    new BasicConstraintsExtension(true, undefined, true),
    new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
  ];
}

function certificateDates({ from, certificatesUntil }: Validity) {
  return { notBefore: from, notAfter: certificatesUntil };
}

function distinguishedName(commonName: string): string {
  return `CN=${commonName}, O=SIMULATED not Intel`;
}

function pemOf({ certificate }: Authority): string {
  return `${certificate.toString('pem')}\n`;
}

// The extension by which a processor's certificate tells its platform and patch level (Intel SGX PCK Certificate
// and CRL Profile Specification, §1.3.5).

const SGX = '1.2.840.113741.1.13.1';

function sgxExtension(): Extension {
  const components = [...CPU_SVN].map((svn, index) => entry(`${SGX}.2.${index + 1}`, integer(svn)));
  const tcb = [...components, entry(`${SGX}.2.17`, integer(PCE_SVN)), entry(`${SGX}.2.18`, octets(CPU_SVN))];
  return new Extension(
    SGX,
    false,
    sequence([
      entry(`${SGX}.1`, octets(Buffer.alloc(16))),
      entry(`${SGX}.2`, sequence(tcb)),
      entry(`${SGX}.3`, octets(Buffer.from(PCE_ID, 'hex'))),
      entry(`${SGX}.4`, octets(Buffer.from(FMSPC, 'hex'))),
      entry(`${SGX}.5`, der(0x0a, Buffer.from([1]))),
    ]),
  );
}

function entry(oid: string, value: Buffer): Buffer {
  return sequence([objectIdentifier(oid), value]);
}

function sequence(parts: readonly Buffer[]): Buffer {
  return der(0x30, Buffer.concat(parts));
}

function octets(value: Buffer): Buffer {
  return der(0x04, value);
}

/** Of one byte below 128. */
function integer(value: number): Buffer {
  return der(0x02, Buffer.from([value]));
}

function objectIdentifier(oid: string): Buffer {
  const [first, second, ...rest] = oid.split('.').map(Number) as [number, number, ...number[]];
  return der(0x06, Buffer.from([first * 40 + second, ...rest.flatMap(base128)]));
}

function base128(arc: number): number[] {
  const septets = [arc & 0x7f];
  for (let left = arc >> 7; left > 0; left >>= 7) septets.unshift((left & 0x7f) | 0x80);
  return septets;
}

/** Content of up to 65,535 bytes. */
function der(tag: number, content: Buffer): Buffer {
  const { length } = content;
  const size =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), content]);
}

// The collateral: what the vendor says of patch levels and of its quoting enclave, signed, and the revocation lists.

interface Pki {
  readonly root: Authority;
  readonly pckCa: Authority;
  readonly tcbSigner: Authority;
}

async function makeCollateral({ root, pckCa, tcbSigner }: Pki, validity: Validity): Promise<Collateral> {
  const signerChain = pemOf(tcbSigner) + pemOf(root);
  const tcbInfo = JSON.stringify(describeTcb(validity));
  const qeIdentity = JSON.stringify(describeQuotingEnclave(validity));
  return {
    pck_crl_issuer_chain: pemOf(pckCa) + pemOf(root),
    root_ca_crl: await makeCrl(root, validity),
    pck_crl: await makeCrl(pckCa, validity),
    tcb_info_issuer_chain: signerChain,
    tcb_info: tcbInfo,
    tcb_info_signature: signRaw(Buffer.from(tcbInfo), tcbSigner.privateKey).toString('hex'),
    qe_identity_issuer_chain: signerChain,
    qe_identity: qeIdentity,
    qe_identity_signature: signRaw(Buffer.from(qeIdentity), tcbSigner.privateKey).toString('hex'),
  };
}

async function makeCrl(issuer: Authority, { from, collateralUntil }: Validity): Promise<string> {
  const crl = await X509CrlGenerator.create({
    issuer: issuer.certificate.subject,
    thisUpdate: from,
    nextUpdate: collateralUntil,
    signingAlgorithm: EC,
    signingKey: issuer.keys.privateKey,
  });
  return Buffer.from(crl.rawData).toString('hex');
}

function describeTcb(validity: Validity) {
  const module = { mrsigner: '00'.repeat(48), attributes: '00'.repeat(8), attributesMask: 'FF'.repeat(8) };
  const svns = (bytes: Buffer) => [...bytes].map((svn) => ({ svn }));
  return {
    id: 'TDX',
    version: 3,
    ...collateralDates(validity),
    fmspc: FMSPC,
    pceId: PCE_ID,
    tcbType: 0,
    tcbEvaluationDataNumber: 1,
    tdxModule: module,
    tdxModuleIdentities: [
      { id: 'TDX_01', ...module, tcbLevels: [{ tcb: { isvsvn: TEE_TCB_SVN[0] }, ...upToDate(validity) }] },
    ],
    tcbLevels: [
      {
        tcb: { sgxtcbcomponents: svns(CPU_SVN), pcesvn: PCE_SVN, tdxtcbcomponents: svns(TEE_TCB_SVN) },
        ...upToDate(validity),
      },
    ],
  };
}

function describeQuotingEnclave(validity: Validity) {
  return {
    id: 'TD_QE',
    version: 2,
    ...collateralDates(validity),
    tcbEvaluationDataNumber: 1,
    miscselect: '00000000',
    miscselectMask: 'FFFFFFFF',
    attributes: '11000000000000000000000000000000',
    attributesMask: 'FBFFFFFFFFFFFFFF0000000000000000',
    mrsigner: QE_MRSIGNER.toString('hex').toUpperCase(),
    isvprodid: QE_PROD_ID,
    tcbLevels: [{ tcb: { isvsvn: QE_SVN }, ...upToDate(validity) }],
  };
}

function collateralDates({ from, collateralUntil }: Validity) {
  return { issueDate: seconds(from), nextUpdate: seconds(collateralUntil) };
}

function upToDate({ from }: Validity) {
  return { tcbDate: seconds(from), tcbStatus: 'UpToDate' };
}

function seconds(date: Date): string {
  return date.toISOString().replace(/\.\d+Z$/, 'Z');
}

// The quote (format 4): header, TD report, and the chain of signatures from the attestation key to the root.

function createQuoter(pck: Authority, chain: string) {
  const attestation = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const attestationKey = rawPublicKey(attestation.publicKey);
  const authenticationData = randomBytes(32);
  const enclave = enclaveReport(attestationKey, authenticationData);
  const certification = Buffer.concat([
    enclave,
    signRaw(enclave, pck.privateKey),
    u16(authenticationData.length),
    authenticationData,
    sized(5, Buffer.from(chain)),
  ]);
  return (measurements: Measurements, reportData: Uint8Array): Buffer => {
    const signed = Buffer.concat([header(), tdReport(measurements, reportData)]);
    const signature = signRaw(signed, attestation.privateKey);
    const authentication = Buffer.concat([signature, attestationKey, sized(6, certification)]);
    return Buffer.concat([signed, u32(authentication.length), authentication]);
  };
}

function header(): Buffer {
  const vendor = Buffer.from('939a7233f79c4ca9940a0db3957f0607', 'hex');
  const userData = Buffer.from('SIMULATED'.padEnd(20, '\0'));
  return Buffer.concat([u16(4), u16(2), u32(0x81), u16(0), u16(0), vendor, userData]);
}

function tdReport({ mrTd, mrConfigId, rtmrs }: Measurements, reportData: Uint8Array): Buffer {
  const zeros = (length: number) => Buffer.alloc(length);
  const register = (hex: string) => exactly(48, Buffer.from(hex, 'hex'));
  return Buffer.concat([
    TEE_TCB_SVN,
    createHash('sha384').update('SIMULATED TDX module').digest(),
    zeros(48 + 8),
    // SEPT_VE_DISABLE and nothing else: no debugging.
    Buffer.from('0000001000000000', 'hex'),
    Buffer.from('e702060000000000', 'hex'),
    register(mrTd),
    register(mrConfigId),
    zeros(48 + 48),
    ...rtmrs.map(register),
    exactly(64, reportData),
  ]);
}

/** The quoting enclave's own report, which binds the attestation key. */
function enclaveReport(attestationKey: Buffer, authenticationData: Buffer): Buffer {
  const bound = createHash('sha256').update(attestationKey).update(authenticationData).digest();
  return Buffer.concat([
    CPU_SVN,
    Buffer.alloc(4 + 28),
    Buffer.from('11000000000000000000000000000000', 'hex'),
    createHash('sha256').update('SIMULATED quoting enclave code').digest(),
    Buffer.alloc(32),
    QE_MRSIGNER,
    Buffer.alloc(96),
    u16(QE_PROD_ID),
    u16(QE_SVN),
    Buffer.alloc(60),
    bound,
    Buffer.alloc(32),
  ]);
}

function sized(type: number, body: Buffer): Buffer {
  return Buffer.concat([u16(type), u32(body.length), body]);
}

function signRaw(data: Buffer, key: KeyObject): Buffer {
  return sign('sha256', data, { key, dsaEncoding: 'ieee-p1363' });
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
