// What the vendor signs as JSON: the patch levels of a platform and of its TDX module, and the identity of the quoting enclave.

import * as z from 'zod';
import { CollateralError } from './collateral.ts';

/** In order, the better first (Intel's words). */
export const tcbStatuses = [
  'UpToDate',
  'SWHardeningNeeded',
  'ConfigurationNeeded',
  'ConfigurationAndSWHardeningNeeded',
  'OutOfDate',
  'OutOfDateConfigurationNeeded',
  'Revoked',
] as const;
export type TcbStatus = (typeof tcbStatuses)[number];

const hexOf = (byteCount: number) =>
  z
    .string()
    .regex(new RegExp(`^[0-9a-f]{${byteCount * 2}}$`, 'i'), `must be ${byteCount} bytes in hex`)
    .transform((digits) => digits.toLowerCase());

const date = z.iso.datetime({ offset: false }).transform((text) => new Date(text));
const svn = z.int().min(0).max(255);
const components = z.array(z.object({ svn }).transform((component) => component.svn)).length(16);
const judged = {
  tcbDate: date,
  tcbStatus: z.enum(tcbStatuses),
  advisoryIDs: z.array(z.string().max(100)).max(1000).default([]),
};
const enclaveLevel = z.object({ tcb: z.object({ isvsvn: z.int().min(0).max(65_535) }), ...judged });
const moduleFields = { mrsigner: hexOf(48), attributes: hexOf(8), attributesMask: hexOf(8) };

/** Version 3, the one that has TDX. */
const tcbInfoSchema = z.object({
  id: z.literal('TDX'),
  version: z.literal(3),
  issueDate: date,
  nextUpdate: date,
  fmspc: hexOf(6),
  pceId: hexOf(2),
  tdxModule: z.object(moduleFields),
  tdxModuleIdentities: z
    .array(z.object({ id: z.string().max(100), ...moduleFields, tcbLevels: z.array(enclaveLevel).max(1000) }))
    .max(1000)
    .default([]),
  tcbLevels: z
    .array(
      z.object({
        tcb: z.object({
          sgxtcbcomponents: components,
          pcesvn: z.int().min(0).max(65_535),
          tdxtcbcomponents: components,
        }),
        ...judged,
      }),
    )
    .max(1000),
});

/** Version 2 of the identity of the enclave that quotes TDs; the library that verifies beside us knows 3 as well. */
const qeIdentitySchema = z.object({
  id: z.literal('TD_QE'),
  version: z.union([z.literal(2), z.literal(3)]),
  issueDate: date,
  nextUpdate: date,
  miscselect: hexOf(4),
  miscselectMask: hexOf(4),
  attributes: hexOf(16),
  attributesMask: hexOf(16),
  mrsigner: hexOf(32),
  isvprodid: z.int().min(0).max(65_535),
  tcbLevels: z.array(enclaveLevel).max(1000),
});

export type TcbInfo = Readonly<z.infer<typeof tcbInfoSchema>>;
export type QeIdentity = Readonly<z.infer<typeof qeIdentitySchema>>;
export type EnclaveLevel = Readonly<z.infer<typeof enclaveLevel>>;

/** Hex in lower case. Throws CollateralError. */
export function readTcbInfo(json: string): TcbInfo {
  return read('the TCB info', tcbInfoSchema, json);
}

/** Hex in lower case. Throws CollateralError. */
export function readQeIdentity(json: string): QeIdentity {
  return read('the QE identity', qeIdentitySchema, json);
}

function read<T>(subject: string, schema: z.ZodType<T>, json: string): T {
  try {
    return schema.parse(JSON.parse(json));
  } catch (cause) {
    const issue = cause instanceof z.ZodError ? cause.issues[0] : undefined;
    const why = issue === undefined ? 'it is not JSON' : `${issue.path.join('.')}: ${issue.message}`;
    throw new CollateralError('unintelligible', `${subject} cannot be read: ${why}`, { cause });
  }
}
