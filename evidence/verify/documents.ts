// The documents that carry a quote, read strictly: what is wrong with one is a sentence. The command and the page read them here.

import { createHash } from 'node:crypto';
import * as z from 'zod';
import { parseQuote, type Quote, QuoteError } from '../quote.ts';
import { attestationSchema, type Statement, statementReportData } from '../statement.ts';
import { parseStrictJson } from '../strict-json.ts';
import { fail, pass, type Verdict } from './verdict.ts';

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** A quote with what is published beside it. */
export interface QuoteDocument {
  /** As published, hex. */
  readonly quote: string;
  readonly parsed: Quote;
  /** JSON text, not looked at yet. */
  readonly eventLog: string;
}

const quoteSchema = z.looseObject({
  quote: z.string(),
  event_log: z.string(),
  report_data: z.string().optional(),
});

/** A text instead says what is wrong. */
export function readQuoteDocument(body: Uint8Array): QuoteDocument | string {
  const read = quoteSchema.safeParse(jsonIn(body));
  if (!read.success) return 'quote.json is not JSON with the texts "quote" and "event_log"';
  return readQuoteFields(read.data);
}

/** The same for any document that carries a quote. */
export function readQuoteFields(fields: {
  readonly quote: string;
  readonly event_log: string;
  readonly report_data?: string | undefined;
}): QuoteDocument | string {
  const { quote, event_log: eventLog, report_data: claimed } = fields;
  try {
    const parsed = parseQuote(quote);
    if (claimed !== undefined && claimed.replace(/^0x/, '').toLowerCase() !== parsed.reportData)
      return 'the report_data beside the quote is not that of the quote';
    return { quote, parsed, eventLog };
  } catch (error) {
    if (error instanceof QuoteError) return error.message;
    throw error;
  }
}

export function jsonIn(body: Uint8Array): unknown {
  try {
    return parseStrictJson(textIn(body) ?? '');
  } catch {
    return undefined;
  }
}

/** Undefined: it is not UTF-8, and two readers may see two texts in it. */
export function textIn(body: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(body);
  } catch {
    return undefined;
  }
}

/** A statement, and the quote that is for it. */
export interface StatedQuote {
  readonly statement: Statement;
  readonly document: QuoteDocument;
}

/** attestation.json, whose quote has to be for its statement. A text instead says what is wrong. */
export function readAttestation(body: Uint8Array): StatedQuote | string {
  const read = attestationSchema.safeParse(jsonIn(body));
  if (!read.success) return 'attestation.json is not a statement with its quote';
  const { statement } = read.data;
  const document = readQuoteFields(read.data);
  if (typeof document === 'string') return `attestation.json: ${document}`;
  if (!isFor(document, statement))
    return `the quote of attestation.json is for report data ${document.parsed.reportData}, the statement has ${reportDataOf(statement)}`;
  return { statement, document };
}

/** Whether the quote was made over the statement. */
export function isFor({ parsed }: QuoteDocument, statement: Statement): boolean {
  return parsed.reportData === reportDataOf(statement);
}

/** A statement with half a surrogate pair in it has no canonical form, and so no report data. */
function reportDataOf(statement: Statement): string {
  try {
    return statementReportData(statement).toString('hex');
  } catch {
    return 'none, as it has no canonical form';
  }
}

/** What the report data of a bundle's quote has to be: the SHA-256 of the sums, then zeros; hex. */
export function bundleReportData(sums: Uint8Array): string {
  return sha256(sums).padEnd(128, '0');
}

/** Whether the quote of a bundle is for its sums. */
export function judgeBinding({ reportData }: Quote, sums: Uint8Array): Verdict {
  if (reportData !== bundleReportData(sums))
    return fail(`the quote is for report data ${reportData}, the sums have the digest ${sha256(sums)}`);
  return pass(`the report data is the digest of sha256sum.txt, ${sha256(sums)}, then zeros`);
}
