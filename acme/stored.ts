// The shapes of what is kept on disk: account, orders, ledger, renewal windows, CAA verdicts, challenges.

import * as z from 'zod';
import { isPrivateKey } from '../src/lib/private-key.ts';

export const AccountSchema = z.object({
  /** PEM, PKCS#8. Absent when the key is derived and never stored. */
  key: z.string().optional(),
  /** The key that is to follow, while the CA may know either. */
  nextKey: z.string().optional(),
  /** Absent until the CA has confirmed it. */
  url: z.string().optional(),
  publicKey: z.record(z.string(), z.string()).optional(),
});
export type StoredAccount = z.infer<typeof AccountSchema>;

const TimeSchema = z.iso.datetime();

export const OrderSchema = z.object({
  names: z.array(z.string()),
  /** Absent before the CA has named it: somebody means to order, and nobody else is to. */
  url: z.url().optional(),
  /** The future certificate's key: PEM, PKCS#8. An order without it can never be finished. */
  key: z.string().refine(isPrivateKey),
  account: z.string(),
  createdAt: TimeSchema,
});
/** An order that the CA knows, and the key that its certificate will have. */
export type StoredOrder = z.infer<typeof OrderSchema>;

export const LedgerEntrySchema = z.object({
  /** The names it was for: other names start afresh. */
  names: z.array(z.string()),
  /** Attempts that ended in a failure, in a row. */
  failures: z.number().int().min(0),
  /** Attempts that did not end at all: the process was killed. */
  crashes: z.number().int().min(0),
  /** No attempt before this. */
  notBefore: TimeSchema,
  reason: z.string(),
  /** When what `reason` says went wrong; absent where nothing did. */
  failedAt: TimeSchema.optional(),
});
export type LedgerEntry = z.infer<typeof LedgerEntrySchema>;
/** By the certificate's first name. */
export type Ledger = Record<string, LedgerEntry>;

export const WindowSchema = z
  .object({
    /** SHA-256 of the certificate that it is about. */
    certificate: z.string(),
    start: TimeSchema,
    end: TimeSchema,
    chosen: TimeSchema,
  })
  // A moment outside of the window could put the renewal off for ever.
  .refine(
    ({ start, end, chosen }) => new Date(start) <= new Date(chosen) && new Date(chosen) <= new Date(end),
  );
export type StoredWindow = z.infer<typeof WindowSchema>;

export const VerdictSchema = z.object({
  allowed: z.boolean(),
  pinned: z.boolean(),
  decidedBy: z.string().optional(),
  findings: z.array(z.string()),
  /** Those that the records were compared with. */
  identities: z.array(z.string()),
  checkedAt: TimeSchema,
  /** Why what was seen need not be what the CA sees. */
  unsure: z.string().optional(),
  /** What to do about it, unless the account is pinned. */
  cure: z.string().optional(),
});
/** What CAA said about a domain when it was looked at last. */
export type StoredVerdict = z.infer<typeof VerdictSchema>;

export const TxtSchema = z.object({ name: z.string(), value: z.string() });
export type ChallengeTxt = z.infer<typeof TxtSchema>;

export const ValidationSchema = z.object({ keyAuthorization: z.string(), at: TimeSchema });
