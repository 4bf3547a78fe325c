// The simulated vendor of processors: its root, the authorities and certificates below, its revocation lists, and what is wrong with them.

import 'reflect-metadata';
import { createPrivateKey, type KeyObject, sign, webcrypto } from 'node:crypto';
import {
  BasicConstraintsExtension,
  type Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  type X509Certificate,
  X509CertificateGenerator,
  X509CrlGenerator,
} from '@peculiar/x509';

/** From when until when; what is left out is as it should be. */
export interface Period {
  readonly from?: Date;
  readonly until?: Date;
}

export type CertificateName = 'root' | 'pckCa' | 'pck' | 'tcbSigner';
export type CrlName = 'rootCrl' | 'pckCrl';

export interface PkiOptions {
  readonly dates?: Readonly<Partial<Record<CertificateName | CrlName, Period>>>;
  /** Named on the list of whoever issued them. */
  readonly revoked?: readonly CertificateName[];
  /** Signed by someone who has the issuer's name and not its key. */
  readonly forged?: readonly (CertificateName | CrlName)[];
  /** The PCK authority's certificate says that it is none. */
  readonly pckCaIsNone?: boolean;
  /** The TCB signer stands below the PCK authority, where processors stand. */
  readonly tcbSignerBelowPckCa?: boolean;
}

export interface Authority {
  readonly certificate: X509Certificate;
  readonly keys: webcrypto.CryptoKeyPair;
  readonly privateKey: KeyObject;
}

export interface Pki {
  readonly root: Authority;
  readonly pck: Authority;
  readonly tcbSigner: Authority;
  /** PEM, leaf first and the root last. */
  readonly pckChain: string;
  readonly tcbSignerChain: string;
  readonly pckCaChain: string;
  /** DER in hex. */
  readonly rootCrl: string;
  readonly pckCrl: string;
}

export interface Lifetimes {
  readonly certificates: Required<Period>;
  readonly collateral: Required<Period>;
}

const EC = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;

/** Serial numbers as a reader may stumble over them: with the highest bit set, and with a zero first. */
const SERIALS: Readonly<Record<CertificateName, string>> = {
  root: '01',
  pckCa: 'f1c3a0000000000000000000000000000000cafe',
  pck: '00e5a0000000000000000000000000000000beef',
  tcbSigner: '7a00000000000000000000000000000000007cb5',
};

export async function createPki(
  lifetimes: Lifetimes,
  pckExtensions: readonly Extension[],
  options: PkiOptions,
): Promise<Pki> {
  const certify = certifier(lifetimes, options);
  const root = await certify('root', 'SIMULATED SGX Root CA', authorityExtensions());
  const caName = 'SIMULATED SGX PCK Platform CA';
  const caExtensions = options.pckCaIsNone ? leafExtensions() : authorityExtensions();
  const pckCa = await certify('pckCa', caName, caExtensions, root);
  // A machine can show a false authority; what the vendor publishes is beside the true one.
  const publishedCa = await certifier(lifetimes, {})('pckCa', caName, authorityExtensions(), root, pckCa);
  const spoiled = options.pckCaIsNone || options.forged?.includes('pckCa');
  const listedCa = spoiled ? publishedCa : pckCa;
  const pck = await certify(
    'pck',
    'SIMULATED SGX PCK Certificate',
    [...leafExtensions(), ...pckExtensions],
    pckCa,
  );
  const aboveSigner = options.tcbSignerBelowPckCa ? [pckCa, root] : [root];
  const tcbSigner = await certify('tcbSigner', 'SIMULATED SGX TCB Signing', leafExtensions(), aboveSigner[0]);
  const makeCrl = crlMaker(lifetimes, options);
  const chainOf = (...chain: readonly Authority[]) => chain.map(pemOf).join('');
  return {
    root,
    pck,
    tcbSigner,
    pckChain: chainOf(pck, pckCa, root),
    tcbSignerChain: chainOf(tcbSigner, ...aboveSigner),
    pckCaChain: chainOf(listedCa, root),
    rootCrl: await makeCrl('rootCrl', root, ['root', 'pckCa', 'tcbSigner']),
    pckCrl: await makeCrl('pckCrl', listedCa, ['pck']),
  };
}

function certifier({ certificates }: Lifetimes, { dates = {}, forged = [] }: PkiOptions) {
  return async (
    which: CertificateName,
    commonName: string,
    extensions: readonly Extension[],
    issuer?: Authority,
    keyOf?: Authority,
  ): Promise<Authority> => {
    const own = keyOf ?? (await makeKeys());
    const { from, until } = { ...certificates, ...dates[which] };
    const issuerKeys = forged.includes(which) ? (await makeKeys()).keys : (issuer ?? own).keys;
    const name = `CN=${commonName}, O=SIMULATED not Intel`;
    const certificate = await X509CertificateGenerator.create({
      serialNumber: SERIALS[which],
      subject: name,
      issuer: issuer?.certificate.subject ?? name,
      publicKey: own.keys.publicKey,
      signingKey: issuerKeys.privateKey,
      notBefore: from,
      notAfter: until,
      signingAlgorithm: EC,
      extensions: [...extensions],
    });
    return { certificate, keys: own.keys, privateKey: own.privateKey };
  };
}

function crlMaker({ collateral }: Lifetimes, { dates = {}, forged = [], revoked = [] }: PkiOptions) {
  return async (which: CrlName, issuer: Authority, issued: readonly CertificateName[]): Promise<string> => {
    const { from, until } = { ...collateral, ...dates[which] };
    const signer = forged.includes(which) ? (await makeKeys()).keys : issuer.keys;
    const crl = await X509CrlGenerator.create({
      issuer: issuer.certificate.subject,
      thisUpdate: from,
      nextUpdate: until,
      entries: revoked
        .filter((name) => issued.includes(name))
        .map((name) => ({ serialNumber: SERIALS[name], revocationDate: from })),
      signingAlgorithm: EC,
      signingKey: signer.privateKey,
    });
    return Buffer.from(crl.rawData).toString('hex');
  };
}

async function makeKeys() {
  const keys = await webcrypto.subtle.generateKey(EC, true, ['sign', 'verify']);
  const pkcs8 = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey);
  return { keys, privateKey: createPrivateKey({ key: Buffer.from(pkcs8), format: 'der', type: 'pkcs8' }) };
}

function authorityExtensions(): Extension[] {
  return [
    new BasicConstraintsExtension(true, undefined, true),
    new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
  ];
}

function leafExtensions(): Extension[] {
  return [
    new BasicConstraintsExtension(false, undefined, true),
    new KeyUsagesExtension(KeyUsageFlags.digitalSignature | KeyUsageFlags.nonRepudiation, true),
  ];
}

export function pemOf({ certificate }: Authority): string {
  return `${certificate.toString('pem')}\n`;
}

/** r and s, 32 bytes each, as quotes and collateral have it. */
export function signRaw(data: Buffer, key: KeyObject): Buffer {
  return sign('sha256', data, { key, dsaEncoding: 'ieee-p1363' });
}
