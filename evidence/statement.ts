// The statement: what this instance serves, under which account and in which machine, linked to the statement before it.

import { createHash } from 'node:crypto';
import * as z from 'zod';
import { canonicalJson } from './canonical-json.ts';

export const STATEMENT_TYPE = 'dstack-ingress/statement/v1';

const digest = z.string().regex(/^[0-9a-f]{64}$/, 'must be 32 bytes of lower-case hex');
const hex = z.string().regex(/^([0-9a-f]{2})*$/, 'must be lower-case hex');
const time = z.iso.datetime();

const certificateSchema = z.strictObject({
  names: z.array(z.string().min(1)).min(1),
  serial: z.string().regex(/^[0-9a-f]+$/i, 'must be hex'),
  issuer: z.string(),
  /** SHA-256 of the DER of the public key. */
  spki: digest,
  /** SHA-256 of the DER of the certificate. */
  sha256: digest,
  notBefore: time,
  notAfter: time,
});

export const statementSchema = z.strictObject({
  type: z.literal(STATEMENT_TYPE),
  /** When it was made, by the clock of the machine: the order of statements is that of their links, not that of time. */
  time,
  domains: z.array(z.string().min(1)),
  /** All that is served. */
  certificates: z.array(certificateSchema),
  /** The thumbprint of RFC 7638, base64url. */
  account: z.strictObject({ uri: z.url({ protocol: /^https?$/ }), thumbprint: z.string() }),
  /** Domain -> the CAA records that let this account alone issue for it, each as in a zone file. */
  caa: z.record(z.string(), z.array(z.string())),
  /** The next three as the guest agent has them; empty where it does not say. */
  appId: hex,
  instanceId: hex,
  composeHash: hex,
  /** Of the kernel: another one after every boot. */
  bootId: z.string(),
  /** The version of this program, and the revision that it was built from. */
  revision: z.string(),
  /** The digest of the statement before; null: this is the first of its history. */
  previous: digest.nullable(),
});

export type Statement = z.infer<typeof statementSchema>;
export type StatedCertificate = z.infer<typeof certificateSchema>;

/** attestation.json: a statement and a quote over it. */
export const attestationSchema = z.looseObject({
  statement: statementSchema,
  quote: z.string().regex(/^([0-9a-f]{2})+$/i, 'must be hex'),
  event_log: z.string(),
  report_data: z.string().regex(/^[0-9a-f]{128}$/i, 'must be 64 bytes of hex'),
  vm_config: z.string().optional(),
});

export type Attestation = z.infer<typeof attestationSchema>;

const QUOTE_PREFIX = `${STATEMENT_TYPE}\n`;

/** What the next statement names as `previous`: SHA-256 of the canonical JSON, lower-case hex. */
export function statementDigest(statement: Statement): string {
  return createHash('sha256').update(canonicalJson(statement)).digest('hex');
}

/** The 64 bytes that a quote over this statement is for. */
export function statementReportData(statement: Statement): Buffer {
  return createHash('sha512').update(QUOTE_PREFIX).update(canonicalJson(statement)).digest();
}
