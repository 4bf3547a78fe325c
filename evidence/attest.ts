// Answers /evidences/attest: a fresh quote over this connection and the nonce of whoever asks, and a proof of the key.

import { type KeyObject, X509Certificate } from 'node:crypto';
import type { LocalConnection, LocalReply, LocalRequest } from '../src/lib/local-handler.ts';
import {
  type AttestClaims,
  attestLeaf,
  attestNonceSchema,
  EXPORTER_BYTES,
  EXPORTER_LABEL,
  signKeyProof,
  spkiDigest,
} from './attest-claims.ts';
import { type AttestQueueOptions, createAttestQueue, type Proof } from './attest-queue.ts';
import { problem, publicHeaders } from './reply.ts';

export type AttestRequest = Pick<LocalRequest, 'method' | 'query' | 'connection' | 'signal'>;

export interface AttestOptions extends AttestQueueOptions {
  /** The key of the certificate with this PEM; undefined: it is served no more. */
  keyOf(pem: string): KeyObject | undefined;
}

export interface Attester {
  handle(request: AttestRequest): Promise<LocalReply>;
}

/** By then the next round has been. */
const RETRY_AFTER = { 'retry-after': '2' };
const METHODS = 'GET, OPTIONS';

/** Keeps nothing of a request that has been answered, or that nobody waits for any more. */
export function createAttester(options: AttestOptions): Attester {
  const queue = createAttestQueue(options);
  const identityOf = createIdentities(options.keyOf);
  return {
    async handle({ method, query, connection, signal }) {
      if (method !== 'GET') return problem(405, `${method} is not possible here`, { allow: METHODS });
      const nonce = nonceOf(query);
      if (nonce === undefined)
        return problem(400, 'ask with ?nonce= and 16 to 64 random bytes, lower-case hex');
      // RFC 9266 §4.2: without an extended master secret, of which Node does not tell, two connections of TLS 1.2 can be
      // made to have the same keying material.
      if (connection.secureVersion !== 'TLSv1.3') {
        return problem(
          400,
          'a fresh quote is for one connection, which only TLS 1.3 can tell from all others',
        );
      }
      if (queue.isFull(connection))
        return problem(429, 'too many wait for a fresh quote, ask again', RETRY_AFTER);
      const identity = identityOf(connection);
      if (identity === undefined) {
        return problem(421, 'the certificate of this connection is served no more, connect again');
      }
      const { spki, key } = identity;
      const claims = { nonce, spki, exporter: exporterOf(connection) };
      const leaf = attestLeaf(claims);
      const proof = await queue.proofOf(leaf, connection, signal);
      if (proof === undefined) return problem(503, 'the guest agent gives no quote', RETRY_AFTER);
      return answered(claims, proof, await signKeyProof(leaf, key));
    },
  };
}

function exporterOf(connection: LocalConnection): string {
  const material = connection.exportKeyingMaterial(EXPORTER_BYTES, EXPORTER_LABEL, new Uint8Array());
  return Buffer.from(material).toString('hex');
}

function answered(claims: AttestClaims, { path, quoted }: Proof, signature: Uint8Array): LocalReply {
  const members = {
    version: 1,
    ...claims,
    path: [...path, ...quoted.path],
    signature: Buffer.from(signature).toString('hex'),
  };
  return {
    status: 200,
    // An answer is for whoever asked, and for nobody else.
    headers: { ...publicHeaders, 'cache-control': 'no-store', 'content-type': 'application/json' },
    body: Buffer.from(`${JSON.stringify(members).slice(0, -1)},${quoted.json}\n`),
  };
}

/** Undefined unless there is one and it is as it should be. */
function nonceOf(query: string): string | undefined {
  const [nonce, ...more] = new URLSearchParams(query).getAll('nonce');
  return more.length === 0 ? attestNonceSchema.safeParse(nonce).data : undefined;
}

interface Identity {
  readonly spki: string;
  readonly key: KeyObject;
}

/** A connection keeps its certificate, and to look at that takes longer than all else. */
function createIdentities(keyOf: AttestOptions['keyOf']) {
  const known = new WeakMap<LocalConnection, Identity>();
  return (connection: LocalConnection): Identity | undefined => {
    const before = known.get(connection);
    if (before !== undefined) return before;
    const pem = connection.certificate?.pem;
    const key = pem === undefined ? undefined : keyOf(pem);
    if (pem === undefined || key === undefined) return undefined;
    const identity = { spki: spkiDigest(new X509Certificate(pem).publicKey), key };
    known.set(connection, identity);
    return identity;
  };
}
