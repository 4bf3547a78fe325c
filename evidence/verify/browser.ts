// What a page can verify by itself of the files that it has fetched: the quotes, what they bind, and their event logs.

import './browser-settings.ts';
import { type Collateral, CollateralError, parseCollateral } from './collateral.ts';
import { judgeBinding, readAttestation, readQuoteDocument } from './documents.ts';
import { judgeWithLog, readLog } from './identity.ts';
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

/** Rejects with CollateralError if `root` is no certificate. */
export async function verifyFiles(files: FetchedFiles): Promise<FileVerdicts> {
  const read = within('quote.json', files.quote, readQuoteDocument);
  if (typeof read === 'string') return unreadable(read);
  return {
    ...named(await judgeUnder(files, read.quote)),
    'quote.binding': judgeBinding(read.parsed, files.sums),
    'log.replay': readLog(read).replay,
  };
}

/**
 * Whether attestation.json has a statement and a sound quote over it: the check `statement.quote`. Rejects with
 * CollateralError if `root` is no certificate.
 */
export async function verifyStatement(files: FetchedStatement): Promise<Verdict> {
  const read = within('attestation.json', files.attestation, readAttestation);
  if (typeof read === 'string') return fail(read);
  return judgeWithLog(read.document, async (quote) => worstOf(await judgeUnder(files, quote)));
}

function worstOf(verdicts: QuoteVerdicts): Verdict {
  const all = Object.values(verdicts) as Verdict[];
  return (
    all.find(({ verdict }) => verdict === 'fail') ??
    all.find(({ verdict }) => verdict === 'not-run') ??
    pass('a sound quote is over the digest of the statement')
  );
}

function within<T>(name: string, text: string, read: (body: Uint8Array) => T | string): T | string {
  if (text.length > LARGEST_FILE) return `${name} has more than ${LARGEST_FILE} characters`;
  return read(new TextEncoder().encode(text));
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
