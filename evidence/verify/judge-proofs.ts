// Whether a log has proven that it holds a certificate: its timestamp, its signed tree head, and the path between the two.

import { createPublicKey, type KeyObject, verify, X509Certificate } from 'node:crypto';
import { sha256 } from './documents.ts';
import { isIncluded, leafHash } from './merkle.ts';
import { type Timestamp, timestampsOf } from './sct.ts';
import type { SeenProof, TreeHead } from './seen.ts';

export interface ProofJudgement {
  /** How it was proven; undefined: no log has proven it. */
  readonly proven: string | undefined;
  /** What was given as proof and is none. */
  readonly faults: readonly string[];
}

/** `chain` is DER, the leaf first. */
export function judgeProofs(chain: readonly Buffer[], proofs: readonly SeenProof[]): ProofJudgement {
  const [leaf, issuer] = chain.map((der) => new X509Certificate(der));
  if (leaf === undefined || issuer === undefined) return { proven: undefined, faults: [] };
  const timestamps = timestampsOf(leaf, issuer);
  const faults: string[] = [];
  for (const proof of proofs) {
    const timestamp = timestamps.find(({ logId }) => logId === proof.logId);
    const { head, path, index } = proof;
    if (timestamp === undefined || head === undefined || path === undefined || index === undefined) continue;
    const fault = faultIn(timestamp, { key: proof.key, head, path, index });
    if (fault === undefined)
      return { proven: `entry ${index} of ${proof.log}, by its signed tree of ${head.size}`, faults };
    faults.push(`${proof.log}: ${fault}`);
  }
  return { proven: undefined, faults };
}

interface Whole {
  readonly key: string;
  readonly head: TreeHead;
  readonly path: readonly string[];
  readonly index: number;
}

function faultIn(
  { logId, entry, signature }: Timestamp,
  { key: base64, head, path, index }: Whole,
): string | undefined {
  const der = Buffer.from(base64, 'base64');
  const key = sha256(der) === logId ? publicKeyIn(der) : undefined;
  if (key === undefined) return 'the key in the list of logs is not that of the timestamp';
  if (!isSigned(entry, signature, key)) return 'it has not signed the timestamp in the certificate';
  if (!isHeadSigned(head, key)) return 'its tree head is not signed with its key';
  const proof = {
    index,
    size: head.size,
    root: Buffer.from(head.root, 'hex'),
    path: path.map((node) => Buffer.from(node, 'hex')),
  };
  return isIncluded(leafHash(entry), proof) ? undefined : 'the path does not lead to the root of its tree';
}

function publicKeyIn(der: Buffer): KeyObject | undefined {
  try {
    return createPublicKey({ key: der, format: 'der', type: 'spki' });
  } catch {
    return undefined;
  }
}

/** RFC 6962 §3.5. */
function isHeadSigned({ size, root, signatures }: TreeHead, key: KeyObject): boolean {
  const sizeBytes = Buffer.alloc(8);
  sizeBytes.writeBigUInt64BE(BigInt(size));
  return signatures.some(({ time, signature }) => {
    const signed = Buffer.concat([
      Buffer.of(0, 1),
      Buffer.from(time, 'hex'),
      sizeBytes,
      Buffer.from(root, 'hex'),
    ]);
    return isSigned(signed, Buffer.from(signature, 'hex'), key);
  });
}

const SHA256 = 4;
const HEADER_BYTES = 4;

/** With SHA-256, and ECDSA or RSA as the key is (RFC 6962 §2.1.4). */
function isSigned(data: Buffer, signature: Buffer, key: KeyObject): boolean {
  if (signature.length < HEADER_BYTES || signature[0] !== SHA256) return false;
  const bytes = signature.subarray(HEADER_BYTES);
  return signature.readUInt16BE(2) === bytes.length && verify('sha256', data, key, bytes);
}
