// What a fresh quote says of one connection: the claims, their place in the tree of all that asked, and the proof of the key.

import { constants, createHash, createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import { promisify } from 'node:util';
import * as z from 'zod';
import { canonicalJson } from './canonical-json.ts';

/** Of one connection. All three are lower-case hex. */
export interface AttestClaims {
  /** Chosen by whoever asks, 16 to 64 bytes: so the quote is younger than the question. */
  readonly nonce: string;
  /** SHA-256 of the DER of the public key that the certificate of the connection has. */
  readonly spki: string;
  /** The keying material of the connection: so the answer is for this connection and for no other. */
  readonly exporter: string;
}

/** RFC 8446 §7.5, with a context of no bytes. */
export const EXPORTER_LABEL = 'EXPORTER-dstack-ingress-attest';
export const EXPORTER_BYTES = 32;

const LEAF_TYPE = 'dstack-ingress/attest-leaf/v1';
const QUOTE_PREFIX = 'dstack-ingress/attest/v1\n';
const KEY_PREFIX = 'dstack-ingress/attest-key/v1\n';

/** RFC 6962 §2.1: what is hashed says whether it is a leaf or a node, so that none can be taken for the other. */
const LEAF = Buffer.of(0);
const NODE = Buffer.of(1);

/** A tree of four thousand million leaves. */
export const LONGEST_PATH = 32;

const hash = z.string().regex(/^[0-9a-f]{64}$/, 'must be 32 bytes of lower-case hex');
const hex = z.string().regex(/^([0-9a-f]{2})+$/, 'must be lower-case hex');

/** One turn on the way from the leaf to the root: the other hash, and on which side of ours it stands. */
const stepSchema = z.strictObject({ side: z.enum(['left', 'right']), hash });

export const attestNonceSchema = z
  .string()
  .regex(/^([0-9a-f]{2}){16,64}$/, 'must be 16 to 64 bytes of lower-case hex');

/** The answer of `/evidences/attest`. Fields that are not known yet are for readers of a later version to know. */
export const attestAnswerSchema = z.looseObject({
  version: z.literal(1),
  nonce: attestNonceSchema,
  spki: hash,
  exporter: hash,
  path: z.array(stepSchema).max(LONGEST_PATH),
  root: hash,
  signature: hex,
  quote: z.string().regex(/^([0-9a-f]{2})+$/i, 'must be hex'),
  event_log: z.string(),
  report_data: z.string().regex(/^[0-9a-f]{128}$/i, 'must be 64 bytes of hex'),
  vm_config: z.string().optional(),
});

export type AttestAnswer = z.infer<typeof attestAnswerSchema>;
export type PathStep = z.infer<typeof stepSchema>;

/** 32 bytes. */
export function attestLeaf({ nonce, spki, exporter }: AttestClaims): Buffer {
  return sha256(LEAF, Buffer.from(canonicalJson({ exporter, nonce, spki, type: LEAF_TYPE })));
}

/** 32 bytes: two hashes become one, in the order in which they stand. */
export function attestNode(left: Uint8Array, right: Uint8Array): Buffer {
  return sha256(NODE, left, right);
}

/** The root to which a path leads from a leaf; the leaf itself if nobody else asked. */
export function foldPath(leaf: Uint8Array, path: readonly PathStep[]): Buffer {
  return path.reduce<Buffer>((ours, { side, hash: theirs }) => {
    const other = Buffer.from(theirs, 'hex');
    return side === 'left' ? attestNode(other, ours) : attestNode(ours, other);
  }, Buffer.from(leaf));
}

/** The 64 bytes that a quote over this root is for. A bundle's end in 32 zero bytes; these are a hash to the last. */
export function attestReportData(root: Uint8Array): Buffer {
  return createHash('sha512').update(QUOTE_PREFIX).update(root).digest();
}

/** SHA-256 of a public key as a certificate has it, lower-case hex. */
export function spkiDigest(key: KeyObject): string {
  return sha256(key.export({ type: 'spki', format: 'der' })).toString('hex');
}

/**
 * Made with the key of the certificate, so that whoever answers is known to have it: ECDSA in DER, or RSASSA-PSS with a
 * salt as long as the digest (RFC 8446 §4.2.3). Both with SHA-256. The prefix keeps it from meaning anything elsewhere: what
 * a handshake signs begins with 64 spaces (RFC 8446 §4.4.3).
 */
export async function signKeyProof(leaf: Uint8Array, key: KeyObject): Promise<Buffer> {
  const message = keyProofMessage(leaf);
  // With RSA it takes a millisecond, which a thread beside has. With a curve it takes less than to hand it over.
  return key.asymmetricKeyType === 'ec'
    ? sign('sha256', message, key)
    : signBeside('sha256', message, { key, ...PSS });
}

export function verifyKeyProof(leaf: Uint8Array, spkiDer: Uint8Array, signature: Uint8Array): boolean {
  try {
    const key = createPublicKey({ key: Buffer.from(spkiDer), format: 'der', type: 'spki' });
    return verify('sha256', keyProofMessage(leaf), { key, ...PSS }, signature);
  } catch {
    // A key that cannot be read, or is of a kind that signs otherwise.
    return false;
  }
}

const PSS = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST };

const signBeside = promisify(sign);

function keyProofMessage(leaf: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from(KEY_PREFIX), leaf]);
}

function sha256(...parts: Uint8Array[]): Buffer {
  const digest = createHash('sha256');
  for (const part of parts) digest.update(part);
  return digest.digest();
}
