// What the certificate of a processor says of its platform (Intel SGX PCK Certificate and CRL Profile Specification, §1.3.5).

import type { X509Certificate } from '@peculiar/x509';
import { contentOf, encodeOid, numberIn, readOnly, type Value, valuesIn } from './der.ts';

export interface Platform {
  /** Lower-case hex: the family, model and stepping that TCB infos are made for. */
  readonly fmspc: string;
  readonly pceId: string;
  /** 16 of them. */
  readonly sgxSvns: readonly number[];
  readonly pceSvn: number;
}

const SGX = '1.2.840.113741.1.13.1';
const [SEQUENCE, INTEGER, OCTETS, OBJECT_IDENTIFIER] = [0x30, 0x02, 0x04, 0x06];

/** undefined if the certificate is not of a processor, or says it in no way that is known. */
export function platformOf(certificate: X509Certificate): Platform | undefined {
  const extension = certificate.getExtension(SGX);
  if (extension === null) return undefined;
  try {
    const fields = entriesIn(contentOf(SEQUENCE, readOnly(new Uint8Array(extension.value))));
    const tcb = entriesIn(contentOf(SEQUENCE, field(fields, `${SGX}.2`)));
    const svn = (index: number) => numberIn(contentOf(INTEGER, field(tcb, `${SGX}.2.${index}`)));
    return {
      fmspc: hex(contentOf(OCTETS, field(fields, `${SGX}.4`)), 6),
      pceId: hex(contentOf(OCTETS, field(fields, `${SGX}.3`)), 2),
      sgxSvns: Array.from({ length: 16 }, (_, index) => svn(index + 1)),
      pceSvn: svn(17),
    };
  } catch {
    return undefined;
  }
}

function entriesIn(sequence: Uint8Array): Map<string, Value> {
  const entries = valuesIn(sequence).map((entry): [string, Value] => {
    const [oid, value] = valuesIn(contentOf(SEQUENCE, entry));
    return [hexOf(contentOf(OBJECT_IDENTIFIER, oid)), value!];
  });
  return new Map(entries);
}

function field(entries: ReadonlyMap<string, Value>, oid: string): Value {
  const value = entries.get(hexOf(encodeOid(oid)));
  if (value === undefined) throw new RangeError(`no ${oid}`);
  return value;
}

function hex(bytes: Uint8Array, length: number): string {
  if (bytes.length !== length) throw new RangeError(`not ${length} bytes`);
  return hexOf(bytes);
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
