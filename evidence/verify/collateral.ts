// The collateral of a quote: what the vendor signed of its platforms, and its revocation lists, in the JSON of the PCCS clients.

import * as z from 'zod';
import { CodedError } from '../../src/lib/coded-error.ts';

/** Read, not judged: nothing in it is trustworthy before its signatures are verified. Binary fields are lower-case hex. */
export interface Collateral {
  readonly pck_crl_issuer_chain: string;
  readonly root_ca_crl: string;
  readonly pck_crl: string;
  readonly tcb_info_issuer_chain: string;
  /** The JSON text that was signed, byte for byte. */
  readonly tcb_info: string;
  readonly tcb_info_signature: string;
  readonly qe_identity_issuer_chain: string;
  readonly qe_identity: string;
  readonly qe_identity_signature: string;
  /** Of platforms whose quotes do not carry it. */
  readonly pck_certificate_chain?: string;
}

export type CollateralErrorCode = 'unintelligible' | 'too-large';

export class CollateralError extends CodedError<CollateralErrorCode> {
  override readonly name = 'CollateralError';
}

/** Real collateral has 16 to 20 KiB; revocation lists grow. */
export const LARGEST_COLLATERAL = 1024 * 1024;

const text = z.string().max(LARGEST_COLLATERAL);
const chain = z.string().max(64 * 1024);
const hex = z
  .string()
  .regex(/^([0-9a-f]{2})*$/i, 'must be hexadecimal')
  .transform((digits) => digits.toLowerCase());
/** Clients write bytes as hex or as a list of numbers. */
const bytes = z.union([hex, z.array(z.int().min(0).max(255)).transform((list) => list.map(hexOf).join(''))]);

const schema = z.object({
  pck_crl_issuer_chain: chain,
  root_ca_crl: bytes,
  pck_crl: bytes,
  tcb_info_issuer_chain: chain,
  tcb_info: text,
  tcb_info_signature: bytes,
  qe_identity_issuer_chain: chain,
  qe_identity: text,
  qe_identity_signature: bytes,
  pck_certificate_chain: chain.nullish(),
});

/** Takes the text of a quote-collateral.json. Throws CollateralError. */
export function parseCollateral(json: string): Collateral {
  if (json.length > LARGEST_COLLATERAL)
    throw new CollateralError('too-large', `the collateral has more than ${LARGEST_COLLATERAL} characters`);
  const parsed = schema.safeParse(jsonIn(json));
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0]!;
    const place = path.slice(0, 1).join('');
    throw new CollateralError(
      'unintelligible',
      `the collateral is not what PCCS clients write: ${place === '' ? '' : `${place}: `}${message}`,
    );
  }
  const { pck_certificate_chain, ...fields } = parsed.data;
  return pck_certificate_chain ? { ...fields, pck_certificate_chain } : fields;
}

function jsonIn(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch (cause) {
    throw new CollateralError('unintelligible', 'the collateral is not JSON', { cause });
  }
}

function hexOf(byte: number): string {
  return byte.toString(16).padStart(2, '0');
}
