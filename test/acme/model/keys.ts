// Keys and certificates that a search can make again: the program's own generator hands out the same ones in each run.

import 'reflect-metadata';

import nodeCrypto, { createPrivateKey, createPublicKey, type KeyObject, webcrypto } from 'node:crypto';
import { syncBuiltinESMExports } from 'node:module';
import { mock } from 'node:test';
import {
  AuthorityKeyIdentifierExtension,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
} from '@peculiar/x509';
import { crypto as csrs } from 'acme-client';

const generate = nodeCrypto.generateKeyPairSync;
const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;

/** Where the model's time begins. */
export const START = Math.floor(Date.now() / 1000) * 1000;
const DAY_MS = 86_400_000;

interface Made {
  readonly name: string;
  readonly key: KeyObject;
  readonly pem: string;
  readonly csr: string;
}

const byName = new Map<string, Made>();
const byPem = new Map<string, Made>();
const byCsr = new Map<string, Made>();

/** The key of this name: always the same one in this process. */
export function keyNamed(name: string): Made {
  const known = byName.get(name);
  if (known !== undefined) return known;
  const { privateKey: key } = generate('ec', { namedCurve: 'P-256' });
  const pem = key.export({ type: 'pkcs8', format: 'pem' }).toString();
  const made = { name, key, pem, csr: Buffer.from(`csr of ${name}`).toString('base64') };
  byName.set(name, made);
  byPem.set(pem, made);
  byCsr.set(Buffer.from(made.csr, 'base64').toString('base64url'), made);
  return made;
}

export const nameOfKey = (pem: string) => byPem.get(pem)!.name;
export const nameOfCsr = (csr: string) => byCsr.get(csr)!.name;

/**
 * Until `restore` the program's key generator asks `next` for the name of the key to hand out. A request for a certificate
 * is made up as well: it holds nothing that a replica decides by, and its real making would wait for other threads.
 */
export function supplyKeys(next: () => string): { restore(): void } {
  const keys = mock.method(nodeCrypto, 'generateKeyPairSync', () => ({ privateKey: keyNamed(next()).key }));
  const requests = mock.method(csrs, 'createCsr', async (_data: unknown, key: string) => [
    key,
    `-----BEGIN CERTIFICATE REQUEST-----\n${byPem.get(key)!.csr}\n-----END CERTIFICATE REQUEST-----\n`,
  ]);
  syncBuiltinESMExports();
  return {
    restore() {
      keys.mock.restore();
      requests.mock.restore();
      syncBuiltinESMExports();
    },
  };
}

let authority: ReturnType<typeof makeAuthority> | undefined;
const makeAuthority = () => webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
const certificates = new Map<string, Promise<string>>();

/** The chain for this key, issued `age` days before the model's time begins, later by a second for each `turn`; for 90 days. */
export function certificateFor(keyName: string, domain: string, age: number, turn: number): Promise<string> {
  const id = `${keyName} ${domain} ${age} ${turn}`;
  const known = certificates.get(id) ?? issue(keyName, domain, age, turn);
  certificates.set(id, known);
  return known;
}

async function issue(keyName: string, domain: string, age: number, turn: number): Promise<string> {
  authority ??= makeAuthority();
  const keys = await authority;
  const notBefore = new Date(START - age * DAY_MS - 3_600_000 + turn * 1000);
  const spki = createPublicKey(createPrivateKey(keyNamed(keyName).pem)).export({
    type: 'spki',
    format: 'der',
  });
  const publicKey = await webcrypto.subtle.importKey('spki', spki, algorithm, true, ['verify']);
  const made = await X509CertificateGenerator.create({
    subject: `CN=${domain}`,
    issuer: 'CN=the CA of the model',
    serialNumber: Buffer.from(id32(keyName, turn)).toString('hex'),
    notBefore,
    notAfter: new Date(notBefore.getTime() + 90 * DAY_MS),
    publicKey,
    signingKey: keys.privateKey,
    signingAlgorithm: algorithm,
    extensions: [
      new SubjectAlternativeNameExtension([{ type: 'dns', value: domain }]),
      await AuthorityKeyIdentifierExtension.create(keys.publicKey, false, webcrypto),
    ],
  });
  return `${made.toString('pem')}\n`;
}

function id32(keyName: string, turn: number): Uint8Array {
  const hash = nodeCrypto.createHash('sha256').update(`${keyName} ${turn}`).digest();
  hash[0] = (hash[0]! & 0x3f) | 0x40;
  return hash.subarray(0, 12);
}
