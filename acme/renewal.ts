// When a certificate is due: by the CA's suggestion (ARI, RFC 9773) or by its age.

import 'reflect-metadata';

import { X509Certificate } from 'node:crypto';
import { X509Certificate as ParsedCertificate } from '@peculiar/x509';
import * as z from 'zod';
import { type Certificate, splitChain } from '../src/lib/certificate.ts';
import { absentIfNull, readObject } from './answer.ts';
import type { Transport } from './transport.ts';

/** The CA's suggestion, and the moment that we chose within it. */
export interface RenewalWindow {
  readonly start: Date;
  readonly end: Date;
  readonly chosen: Date;
}

export interface RenewalSettings {
  /** RENEW_DAYS_BEFORE. Ignored where it would renew a certificate before it is half used. */
  daysBefore?: number | undefined;
}

export interface Renewal {
  readonly at: Date;
  readonly reason: string;
}

const DAY_MS = 86_400_000;
const SHORT_LIFE_MS = 10 * DAY_MS;

/**
 * The moment to renew, which may lie in the past. Without a window it comes when a third of the life is left, or half of a
 * life under ten days. In the last twentieth of the life the moment is `now`, whatever else holds.
 */
export function renewAt(
  certificate: Pick<Certificate, 'notBefore' | 'notAfter' | 'sha256'>,
  window: RenewalWindow | undefined,
  now: Date,
  settings: RenewalSettings = {},
): Renewal {
  const start = certificate.notBefore.getTime();
  const end = certificate.notAfter.getTime();
  const lifeMs = end - start;
  if (now.getTime() >= end) return { at: now, reason: 'expired' };
  if (now.getTime() >= end - lifeMs / 20) return { at: now, reason: 'last twentieth of its life' };
  const candidates: Renewal[] = [];
  const days = settings.daysBefore;
  const fixed = days !== undefined && days > 0 && days * DAY_MS <= lifeMs / 2;
  if (fixed) candidates.push({ at: new Date(end - days * DAY_MS), reason: `${days} days before its end` });
  if (window !== undefined) candidates.push({ at: window.chosen, reason: 'suggested by the ca' });
  if (candidates.length > 0) return candidates.reduce((a, b) => (b.at < a.at ? b : a));
  const short = lifeMs < SHORT_LIFE_MS;
  const left = short ? lifeMs / 2 : lifeMs / 3;
  const at = new Date(Math.round(end - left - (lifeMs / 50) * spread(certificate.sha256)));
  return { at, reason: short ? 'half of its life left' : 'a third of its life left' };
}

/** A uniformly random moment within the window (RFC 9773 §4.2). `random` is in [0, 1). */
export function chooseWithin(start: Date, end: Date, random: number): Date {
  return new Date(start.getTime() + Math.floor((end.getTime() - start.getTime()) * random));
}

export interface SuggestedWindow {
  readonly start: Date;
  readonly end: Date;
  readonly explanationUrl: string | undefined;
  /** When to ask again; undefined if the CA did not say. */
  readonly retryAfterMs: number | undefined;
}

const RenewalInfoSchema = z.object({
  suggestedWindow: z.object({
    start: z.iso.datetime({ offset: true }),
    end: z.iso.datetime({ offset: true }),
  }),
  explanationURL: absentIfNull(z.string()).catch(undefined).optional(),
});

/** RFC 9773 §4.1. Undefined if the CA offers none or the certificate cannot be named; rejects as Transport.get does. */
export async function fetchRenewalInfo(
  transport: Transport,
  certificate: Certificate,
  signal: AbortSignal,
): Promise<SuggestedWindow | undefined> {
  const { renewalInfo } = await transport.directory(signal);
  const id = renewalInfoId(certificate);
  if (renewalInfo === undefined || id === undefined) return undefined;
  const url = `${renewalInfo.replace(/\/$/, '')}/${id}`;
  const { data, retryAfterMs } = await transport.get(url, signal);
  const { suggestedWindow, explanationURL } = readObject(
    RenewalInfoSchema,
    data,
    `the renewal information at ${url}`,
  );
  const start = new Date(suggestedWindow.start);
  const end = new Date(suggestedWindow.end);
  // RFC 9773 §4.2: an end that is not after the start makes the answer void.
  if (end <= start) return undefined;
  return { start, end, explanationUrl: explanationURL, retryAfterMs };
}

/** RFC 9773 §4.1: base64url(authority key identifier) "." base64url(serial number's DER content). */
export function renewalInfoId(certificate: Pick<Certificate, 'chain'>): string | undefined {
  const leaf = splitChain(certificate.chain)[0];
  if (leaf === undefined) return undefined;
  const authority = new ParsedCertificate(leaf).getExtension('2.5.29.35') as { keyId?: string } | null;
  if (!authority?.keyId) return undefined;
  const keyId = Buffer.from(authority.keyId, 'hex').toString('base64url');
  return `${keyId}.${derInteger(new X509Certificate(leaf).serialNumber).toString('base64url')}`;
}

/** The content of a positive INTEGER: a zero goes before a first byte of 0x80 or more. */
function derInteger(hex: string): Buffer {
  const bytes = Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, 'hex');
  return (bytes[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.from([0]), bytes]) : bytes;
}

/** In [0, 1), always the same for a certificate, and different for others, so that not all are due at once. */
function spread(sha256: string): number {
  return Number.parseInt(sha256.slice(0, 8), 16) / 2 ** 32;
}
