// The signatures of a quote: from the TD report to the attestation key, its enclave, its processor, and the root.

import type { X509Certificate } from '@peculiar/x509';
import { QuoteError, type SignedQuote } from '../quote.ts';
import { type Authentication, type EnclaveReport, readAuthentication } from './authentication.ts';
import {
  type Chain,
  certificateDateFault,
  chainFault,
  isAuthority,
  isSignedRaw,
  nameOf,
  readChain,
} from './certificates.ts';
import { CollateralError } from './collateral.ts';
import { type Platform, platformOf } from './platform.ts';
import type { QeIdentity } from './tcb-info.ts';

/** What a quote says of where it comes from, as far as it can be read. */
export interface Origin {
  readonly authentication: Authentication;
  /** There if it leads to the root, in force or not. */
  readonly proven?: { readonly pckChain: Chain; readonly platform: Platform };
  /** Why the quote is not signed under the root; undefined if it is, save that the enclave may be anyone's. */
  readonly fault: string | undefined;
}

export interface OriginContext {
  readonly root: X509Certificate;
  readonly at: Date;
  /** PEM, for quotes that do not carry their chain. */
  readonly pckChain: string | undefined;
}

/** ECDSA with P-256, the only kind that quoting enclaves use. */
const ECDSA_P256 = 2;
/** The quoting enclave's own "under debug" bit (Intel SDM, ATTRIBUTES). */
const ENCLAVE_DEBUG = 0x02;

/** undefined: the signature part cannot be read. */
export async function traceOrigin(signed: SignedQuote, context: OriginContext): Promise<Origin | string> {
  let authentication: Authentication;
  try {
    authentication = readAuthentication(signed.signature);
  } catch (error) {
    if (error instanceof QuoteError) return error.message;
    throw error;
  }
  const processor = await traceProcessor(authentication, context);
  if (typeof processor === 'string') return { authentication, fault: processor };
  const { pckChain } = processor;
  const fault =
    certificateDateFault([...pckChain, context.root], context.at) ??
    (await signatureFault(signed, authentication, pckChain[0]));
  return { authentication, proven: processor, fault };
}

/** The processor's certificate, if it leads to the root. */
async function traceProcessor(
  authentication: Authentication,
  context: OriginContext,
): Promise<{ pckChain: Chain; platform: Platform } | string> {
  const pem = authentication.pckChain ?? context.pckChain;
  if (pem === undefined) return "neither the quote nor the collateral has the processor's certificate";
  let pckChain: Chain;
  try {
    pckChain = readChain("the processor's chain", pem, context.root);
  } catch (error) {
    if (error instanceof CollateralError) return error.message;
    throw error;
  }
  if (isAuthority(pckChain[0])) return `${nameOf(pckChain[0])} is a certificate authority, not a processor`;
  const fault = await chainFault(pckChain, context.root);
  if (fault !== undefined) return fault;
  const platform = platformOf(pckChain[0]);
  return platform === undefined
    ? `${nameOf(pckChain[0])} does not describe a platform`
    : { pckChain, platform };
}

async function signatureFault(
  { signed, attestationKeyType, after }: SignedQuote,
  { signature, attestationKey, enclave, enclaveSignature, authenticationData, leftOver }: Authentication,
  pck: X509Certificate,
): Promise<string | undefined> {
  if (attestationKeyType !== ECDSA_P256)
    return `attestation keys of type ${attestationKeyType} are not known`;
  if (!(await isSignedRaw(enclave.bytes, enclaveSignature, pck)))
    return "the processor's signature on the quoting enclave's report does not verify";
  if (!sameBytes(enclave.reportData, await bindingOf(attestationKey, authenticationData)))
    return 'the quoting enclave did not vouch for this attestation key';
  if (!(await isSignedRaw(signed, signature, attestationKey)))
    return "the attestation key's signature on the quote does not verify";
  // The enclave returns a buffer that is longer than what it filled.
  if ([...after, ...leftOver].some((byte) => byte !== 0))
    return 'there are bytes behind the signature, which nobody signed';
  return undefined;
}

/** SHA-256 over key and data, then zeros. */
async function bindingOf(attestationKey: Uint8Array, data: Uint8Array): Promise<Uint8Array> {
  const digest = await crypto.subtle.digest('SHA-256', Buffer.concat([attestationKey, data]));
  return Buffer.concat([new Uint8Array(digest), new Uint8Array(32)]);
}

/** Why this is not the vendor's quoting enclave; its patch level is another question. */
export function enclaveFault(enclave: EnclaveReport, identity: QeIdentity): string | undefined {
  if (hex(enclave.mrSigner) !== identity.mrsigner)
    return "the quoting enclave is not the vendor's (MRSIGNER)";
  if (enclave.isvProdId !== identity.isvprodid)
    return `the enclave is the vendor's product ${enclave.isvProdId}, not its quoting enclave`;
  if ((enclave.attributes[0]! & ENCLAVE_DEBUG) !== 0) return 'the quoting enclave runs under a debugger';
  if (!sameUnder(identity.attributesMask, hex(enclave.attributes), identity.attributes))
    return 'the attributes of the quoting enclave are not what they should be';
  // The vendor writes this number with its first byte first, reports have it last.
  const selected = hex(Uint8Array.from(enclave.miscSelect).reverse());
  if (!sameUnder(identity.miscselectMask, selected, identity.miscselect))
    return 'MISCSELECT of the quoting enclave is not what it should be';
  return undefined;
}

/** All three in hex, and of one length. */
export function sameUnder(mask: string, one: string, other: string): boolean {
  const [m, a, b] = [mask, one, other].map((digits) => BigInt(`0x${digits}`));
  return (m! & a!) === (m! & b!);
}

function sameBytes(one: Uint8Array, other: Uint8Array): boolean {
  return hex(one) === hex(other);
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
