// What a page can verify by itself of the files that it has fetched: the quote, what it binds, and its event log.

import { createHash } from 'node:crypto';
import { z } from 'zod';
import { EventLogError, parseEventLog, replay } from '../event-log.ts';
import { parseQuote, type Quote, QuoteError } from '../quote.ts';
import { type Collateral, CollateralError, parseCollateral } from './collateral.ts';
import { intelRoot, judgeQuote, parseRoot, type QuoteVerdicts } from './quote-rules.ts';
import { fail, notRun, pass, type Verdict } from './verdict.ts';

/** A connection cannot be looked at from within a page: whose key it has is for another program to say. */
export interface FetchedFiles {
  /** sha256sum.txt, byte for byte. */
  readonly sums: Uint8Array;
  /** quote.json as text. */
  readonly quote: string;
  /** quote-collateral.json as text, from wherever the page has it. */
  readonly collateral?: string;
  /** PEM. Default: Intel's. */
  readonly root?: string;
  /** Default: the present. */
  readonly at?: Date;
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
  const root = files.root === undefined ? await intelRoot() : parseRoot(files.root);
  const read = readQuoteJson(files.quote);
  if (typeof read === 'string') return unreadable(read);
  const collateral = readCollateral(files.collateral);
  const rules = { root, at: files.at ?? new Date() };
  const isRead = typeof collateral !== 'string';
  const verdicts = await judgeQuote(read.hex, isRead ? collateral : undefined, rules);
  return {
    ...named(isRead ? verdicts : { ...verdicts, collateral: fail(collateral) }),
    'quote.binding': judgeBinding(read.quote, files.sums),
    'log.replay': judgeLog(read.quote, read.log),
  };
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

function readQuoteJson(text: string): QuoteJson | string {
  if (text.length > LARGEST_FILE) return `quote.json has more than ${LARGEST_FILE} characters`;
  try {
    const { quote, event_log } = quoteSchema.parse(JSON.parse(text));
    return { hex: quote, quote: parseQuote(quote), log: event_log };
  } catch (error) {
    return error instanceof QuoteError ? error.message : 'quote.json is not what a guest agent answers';
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
