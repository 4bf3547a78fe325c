// One ACME request as the demo's CA accepts it: a JWS whose algorithm, nonce, URL, key and signature are right (RFC 8555 §6).

import { createHash, createPublicKey, type KeyObject, verify } from 'node:crypto';
import * as z from 'zod';
import { AcmeRefusal } from './acme-refusal.ts';

export interface AccountKey {
  readonly key: KeyObject;
  readonly algorithm: Algorithm;
  /** RFC 7638, base64url. */
  readonly thumbprint: string;
}

export interface SignedRequest {
  /** Whose signature it bears. */
  readonly signer: AccountKey;
  /** The account's URL if the request names it, undefined if it brings the key itself. */
  readonly accountUrl: string | undefined;
  /** The payload's JSON, undefined for POST-as-GET (§6.3). */
  readonly payload: unknown;
}

export interface Expectations {
  /** The URL that was asked, as clients know it. */
  readonly url: string;
  /** True once for every nonce given out. */
  spendNonce(nonce: string): boolean;
  /** The key of an account, by the account's URL. */
  accountKey(url: string): AccountKey | undefined;
}

type Algorithm = 'ES256' | 'RS256';

const algorithms: readonly Algorithm[] = ['ES256', 'RS256'];

const base64url = z.string().regex(/^[A-Za-z0-9_-]*$/);
const Envelope = z.strictObject({ protected: base64url, payload: base64url, signature: base64url });
const Header = z.object({
  alg: z.string(),
  nonce: z.string(),
  url: z.string(),
  jwk: z.record(z.string(), z.unknown()).optional(),
  kid: z.string().optional(),
});
const EcJwk = z.object({ kty: z.literal('EC'), crv: z.literal('P-256'), x: base64url, y: base64url });
const RsaJwk = z.object({ kty: z.literal('RSA'), n: base64url, e: base64url });

/** Throws AcmeRefusal with the problem type that RFC 8555 gives to each fault. */
export function readSignedRequest(body: string, expected: Expectations): SignedRequest {
  const envelope = parseAs(Envelope, body, 'the body is not a flattened JWS');
  const header = parseAs(Header, decode(envelope.protected), 'the protected header is incomplete');
  if (!algorithms.includes(header.alg as Algorithm)) {
    throw new AcmeRefusal('badSignatureAlgorithm', `${header.alg} is not among ${algorithms.join(', ')}`);
  }
  // §6.4: a signature meant for another URL must not count here.
  if (header.url !== expected.url) {
    throw new AcmeRefusal('unauthorized', `the request is signed for ${header.url}`, 401);
  }
  const signer = signerOf(header, expected);
  if (signer.algorithm !== header.alg) {
    throw new AcmeRefusal('malformed', `the key does not go with ${header.alg}`);
  }
  if (!isSignedBy(signer, envelope)) throw new AcmeRefusal('malformed', 'the signature does not verify');
  if (!expected.spendNonce(header.nonce)) {
    throw new AcmeRefusal('badNonce', 'the nonce is not one of ours, or was used before');
  }
  const payload = decode(envelope.payload);
  return {
    signer,
    accountUrl: header.kid,
    payload: payload === '' ? undefined : parseJson(payload, 'the payload is not JSON'),
  };
}

/** §6.2: either the key or the account's URL, never both. */
function signerOf(header: z.infer<typeof Header>, expected: Expectations): AccountKey {
  if ((header.jwk === undefined) === (header.kid === undefined)) {
    throw new AcmeRefusal('malformed', 'the protected header needs either jwk or kid');
  }
  if (header.jwk !== undefined) return readJwk(header.jwk);
  const key = expected.accountKey(header.kid!);
  if (key === undefined) throw new AcmeRefusal('accountDoesNotExist', `no account has the URL ${header.kid}`);
  return key;
}

function readJwk(jwk: Record<string, unknown>): AccountKey {
  const parsed = z.union([EcJwk, RsaJwk]).safeParse(jwk);
  if (!parsed.success) throw new AcmeRefusal('badPublicKey', 'account keys are P-256 or RSA keys');
  try {
    return {
      key: createPublicKey({ key: parsed.data, format: 'jwk' }),
      algorithm: parsed.data.kty === 'EC' ? 'ES256' : 'RS256',
      thumbprint: thumbprintOf(parsed.data),
    };
  } catch {
    throw new AcmeRefusal('badPublicKey', 'the account key cannot be parsed');
  }
}

/** RFC 7638 §3: the required members only, in alphabetical order, without white space. */
function thumbprintOf(jwk: z.infer<typeof EcJwk> | z.infer<typeof RsaJwk>): string {
  const members =
    jwk.kty === 'EC'
      ? { crv: jwk.crv, kty: jwk.kty, x: jwk.x, y: jwk.y }
      : { e: jwk.e, kty: jwk.kty, n: jwk.n };
  return createHash('sha256').update(JSON.stringify(members)).digest('base64url');
}

function isSignedBy(signer: AccountKey, envelope: z.infer<typeof Envelope>): boolean {
  const signed = Buffer.from(`${envelope.protected}.${envelope.payload}`);
  const signature = Buffer.from(envelope.signature, 'base64url');
  // RFC 7518 §3.4: ECDSA signatures are R and S side by side; the setting means nothing to RSA.
  return verify('sha256', signed, { key: signer.key, dsaEncoding: 'ieee-p1363' }, signature);
}

function decode(text: string): string {
  return Buffer.from(text, 'base64url').toString('utf8');
}

function parseAs<T extends z.ZodType>(schema: T, text: string, problem: string): z.infer<T> {
  const parsed = schema.safeParse(parseJson(text, problem));
  if (!parsed.success) throw new AcmeRefusal('malformed', problem);
  return parsed.data;
}

function parseJson(text: string, problem: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new AcmeRefusal('malformed', problem);
  }
}
