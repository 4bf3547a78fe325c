// The signature part of a quote: who signed it, and what vouches for him (Intel TDX DCAP Quoting Library, quote format 4, §A.3).

import { QuoteError } from '../quote.ts';

/** Read, not verified. */
export interface Authentication {
  /** Over header and TD report, with the attestation key: r and s. */
  readonly signature: Uint8Array;
  /** x and y on P-256. */
  readonly attestationKey: Uint8Array;
  readonly enclave: EnclaveReport;
  /** Over the enclave's report, with the processor's key: r and s. */
  readonly enclaveSignature: Uint8Array;
  readonly authenticationData: Uint8Array;
  /** PEM, if the quote carries it. */
  readonly pckChain: string | undefined;
  /** What is left over at the ends of its parts, covered by no signature. */
  readonly leftOver: Uint8Array;
}

/** The report of the enclave that quotes. */
export interface EnclaveReport {
  readonly bytes: Uint8Array;
  readonly miscSelect: Uint8Array;
  readonly attributes: Uint8Array;
  readonly mrSigner: Uint8Array;
  readonly isvProdId: number;
  readonly isvSvn: number;
  readonly reportData: Uint8Array;
}

const ENCLAVE_REPORT_BYTES = 384;
/** The certification data that holds the enclave's report, and within it that which holds a chain in PEM. */
const [OF_ENCLAVE, OF_PCK_CHAIN] = [6, 5];

/** Throws QuoteError. */
export function readAuthentication(part: Uint8Array): Authentication {
  const outer = createReader(part, 'the signature');
  const [signature, attestationKey] = [outer.bytes(64), outer.bytes(64)];
  const type = outer.u16();
  if (type !== OF_ENCLAVE)
    throw new QuoteError('unsupported', `certification data of type ${type} is not ${OF_ENCLAVE}`);
  const inner = createReader(outer.bytes(outer.u32()), "the enclave's certification data");
  const enclave = readEnclaveReport(inner.bytes(ENCLAVE_REPORT_BYTES));
  const enclaveSignature = inner.bytes(64);
  const authenticationData = inner.bytes(inner.u16());
  const chainType = inner.u16();
  const chain = inner.bytes(inner.u32());
  return {
    signature,
    attestationKey,
    enclave,
    enclaveSignature,
    authenticationData,
    pckChain: chainType === OF_PCK_CHAIN ? Buffer.from(chain).toString('latin1') : undefined,
    leftOver: Buffer.concat([inner.rest(), outer.rest()]),
  };
}

function readEnclaveReport(bytes: Uint8Array): EnclaveReport {
  const u16 = (at: number) => bytes[at]! | (bytes[at + 1]! << 8);
  return {
    bytes,
    miscSelect: bytes.subarray(16, 20),
    attributes: bytes.subarray(48, 64),
    mrSigner: bytes.subarray(128, 160),
    isvProdId: u16(256),
    isvSvn: u16(258),
    reportData: bytes.subarray(320, 384),
  };
}

function createReader(from: Uint8Array, subject: string) {
  let offset = 0;
  const bytes = (length: number): Uint8Array => {
    if (offset + length > from.length) throw new QuoteError('truncated', `${subject} is cut short`);
    offset += length;
    return from.subarray(offset - length, offset);
  };
  const number = (length: number) => bytes(length).reduceRight((sum, byte) => sum * 256 + byte, 0);
  return { bytes, u16: () => number(2), u32: () => number(4), rest: () => from.subarray(offset) };
}
