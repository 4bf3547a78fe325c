// What a page can verify by itself of the files that it has fetched: the quotes, what they bind, and their event logs.

import { createHash } from 'node:crypto';
import * as z from 'zod';
import { EventLogError, parseEventLog, replay } from '../event-log.ts';
import { parseQuote, type Quote, QuoteError } from '../quote.ts';
import { attestationSchema, type Statement, statementReportData } from '../statement.ts';
import { type Collateral, CollateralError, parseCollateral } from './collateral.ts';
import { intelRoot, judgeQuote, parseRoot, type QuoteVerdicts } from './quote-rules.ts';
import { fail, notRun, pass, type Verdict } from './verdict.ts';

interface Given {
  /** quote-collateral.json as text, from wherever the page has it. */
  readonly collateral?: string;
  /** PEM. Default: Intel's. */
  readonly root?: string;
  /** Default: the present. */
  readonly at?: Date;
}

/** A connection cannot be looked at from within a page: whose key it has is for another program to say. */
export interface FetchedFiles extends Given {
  /** sha256sum.txt, byte for byte. */
  readonly sums: Uint8Array;
  /** quote.json as text. */
  readonly quote: string;
}

export interface FetchedStatement extends Given {
  /** attestation.json as text. */
  readonly attestation: string;
}

/** Of the checks of `verify` those that need nothing but the files. */
export interface FileVerdicts {
  readonly 'quote.collateral': Verdict;
  readonly 'quote.signature': Verdict;
  readonly 'quote.revocation': Verdict;
  readonly 'quote.tcb': Verdict;
  readonly 'quote.attributes': Verdict;
  readonly 'quote.binding': Verdict;
  readonly 'log.replay': Verdict;
}

const LARGEST_FILE = 1024 * 1024;
const quoteSchema = z.object({ quote: z.string(), event_log: z.string() });

/** Rejects with CollateralError if `root` is no certificate. */
export async function verifyFiles(files: FetchedFiles): Promise<FileVerdicts> {
  const read = readQuoteJson(files.quote);
  if (typeof read === 'string') return unreadable(read);
  return {
    ...named(await judgeUnder(files, read.hex)),
    'quote.binding': judgeBinding(read.quote, files.sums),
    'log.replay': judgeLog(read.quote, read.log),
  };
}

/**
 * Whether attestation.json has a statement and a sound quote over it: the check `statement.quote`. Rejects with
 * CollateralError if `root` is no certificate.
 */
export async function verifyStatement(files: FetchedStatement): Promise<Verdict> {
  const read = readQuoteJson(files.attestation, 'attestation.json');
  if (typeof read === 'string') return fail(read);
  const attestation = attestationSchema.safeParse(JSON.parse(files.attestation));
  if (!attestation.success) return fail('attestation.json does not have the fields of a statement');
  const wanted = digestOf(attestation.data.statement);
  if (read.quote.reportData !== wanted)
    return fail(`the quote is over ${read.quote.reportData}, the statement has the digest ${wanted}`);
  const verdicts = [...Object.values(await judgeUnder(files, read.hex)), judgeLog(read.quote, read.log)];
  const worst =
    verdicts.find(({ verdict }) => verdict === 'fail') ??
    verdicts.find(({ verdict }) => verdict === 'not-run');
  return worst ?? pass('a sound quote is over the digest of the statement');
}

/** Half a surrogate pair has no canonical form: a quote cannot be over it. */
function digestOf(statement: Statement): string {
  try {
    return statementReportData(statement).toString('hex');
  } catch {
    return 'none, as it has no canonical form';
  }
}

async function judgeUnder(given: Given, quote: string): Promise<QuoteVerdicts> {
  const root = given.root === undefined ? await intelRoot() : parseRoot(given.root);
  const collateral = readCollateral(given.collateral);
  const rules = { root, at: given.at ?? new Date() };
  if (typeof collateral !== 'string') return judgeQuote(quote, collateral, rules);
  return { ...(await judgeQuote(quote, undefined, rules)), collateral: fail(collateral) };
}

function named(verdicts: QuoteVerdicts) {
  return {
    'quote.collateral': verdicts.collateral,
    'quote.signature': verdicts.signature,
    'quote.revocation': verdicts.revocation,
    'quote.tcb': verdicts.tcb,
    'quote.attributes': verdicts.attributes,
  };
}

function unreadable(why: string): FileVerdicts {
  const unread = notRun('quote.json cannot be read');
  return {
    ...named({
      collateral: unread,
      signature: fail(why),
      revocation: unread,
      tcb: unread,
      attributes: unread,
    }),
    'quote.binding': unread,
    'log.replay': unread,
  };
}

interface QuoteJson {
  readonly hex: string;
  readonly quote: Quote;
  readonly log: string;
}

function readQuoteJson(text: string, name = 'quote.json'): QuoteJson | string {
  if (text.length > LARGEST_FILE) return `${name} has more than ${LARGEST_FILE} characters`;
  try {
    const { quote, event_log } = quoteSchema.parse(JSON.parse(text));
    return { hex: quote, quote: parseQuote(quote), log: event_log };
  } catch (error) {
    return error instanceof QuoteError ? error.message : `${name} is not what a guest agent answers`;
  }
}

/** A text says what is wrong with it. */
function readCollateral(text: string | undefined): Collateral | undefined | string {
  if (text === undefined) return undefined;
  try {
    return parseCollateral(text);
  } catch (error) {
    if (error instanceof CollateralError) return error.message;
    throw error;
  }
}

/** The report data is the digest of the list of sums, then zeros. */
function judgeBinding({ reportData }: Quote, sums: Uint8Array): Verdict {
  const digest = createHash('sha256').update(sums).digest('hex');
  return reportData === digest.padEnd(128, '0')
    ? pass('the report data is the digest of sha256sum.txt')
    : fail(`the report data is ${reportData}, sha256sum.txt has the digest ${digest}`);
}

function judgeLog({ rtmrs }: Quote, log: string): Verdict {
  try {
    const wrong = replay(parseEventLog(log)).flatMap((value, index) =>
      value === rtmrs[index] ? [] : [`RTMR${index}`],
    );
    return wrong.length === 0
      ? pass('the events add up to RTMR0, RTMR1, RTMR2 and RTMR3')
      : fail(`the events do not add up to ${wrong.join(', ')}`);
  } catch (error) {
    if (error instanceof EventLogError) return fail(error.message);
    throw error;
  }
}
