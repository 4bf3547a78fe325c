// The ACME directory (RFC 8555 §7.1.1): where the CA wants to be asked, and what it says of itself.

import * as z from 'zod';
import { absentIfNull, readObject } from './answer.ts';

/** A member that is not required counts as absent when it is malformed: it must not cost the certificate. */
const extra = <T extends z.ZodType>(schema: T) => absentIfNull(schema).catch(undefined).optional();

const MetaSchema = z.object({
  termsOfService: extra(z.string()),
  externalAccountRequired: extra(z.boolean()),
  caaIdentities: extra(z.array(z.string())),
  profiles: extra(z.record(z.string(), z.unknown())),
  issuerDomainNames: extra(z.array(z.string())),
  accountHashPrefix: extra(z.string()),
});
const DirectorySchema = z.object({
  newNonce: z.string(),
  newAccount: z.string(),
  newOrder: z.string(),
  keyChange: extra(z.string()),
  revokeCert: extra(z.string()),
  renewalInfo: extra(z.string()),
  meta: extra(MetaSchema),
});
/** RFC 8555 §7.1.1, with renewalInfo of RFC 9773 §3, meta.profiles, and what draft-ietf-acme-dns-persist §3.2 and §4.1 add. */
export type Directory = Omit<z.infer<typeof DirectorySchema>, 'meta'> & { meta: z.infer<typeof MetaSchema> };

/** Throws AcmeTransportError where it is no directory. */
export function readDirectory(data: unknown, directoryUrl: string): Directory {
  const read = readObject(DirectorySchema, data, `the ACME directory at ${directoryUrl}`);
  return { ...read, meta: read.meta ?? {} };
}
