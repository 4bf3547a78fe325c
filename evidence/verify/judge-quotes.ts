// The quotes of a host under one set of rules: that of the bundle check by check, the others as a whole.

import type { Verdicts } from './checks.ts';
import type { Collateral } from './collateral.ts';
import { judgeQuote, type QuoteRules, type QuoteVerdicts } from './quote-rules.ts';
import { fail, notRun, pass, type Verdict } from './verdict.ts';

type QuoteChecks = Pick<
  Verdicts,
  'quote.collateral' | 'quote.signature' | 'quote.revocation' | 'quote.tcb' | 'quote.attributes'
>;

export interface QuoteJudge {
  readonly verdicts: QuoteChecks;
  /** Whether another quote is sound by all rules. */
  judge(quote: string): Promise<Verdict>;
}

const rules = ['collateral', 'signature', 'revocation', 'tcb', 'attributes'] as const;

export async function judgeQuotes(
  own: string | undefined,
  collateral: Collateral | undefined,
  quoteRules: QuoteRules,
  without: string | undefined,
): Promise<QuoteJudge> {
  const ofBundle = own === undefined ? undefined : await judgeQuote(own, collateral, quoteRules);
  return {
    verdicts: ofBundle === undefined ? missing() : named(ofBundle, without),
    async judge(quote) {
      return summed(await judgeQuote(quote, collateral, quoteRules), ofBundle);
    },
  };
}

function missing(): QuoteChecks {
  const none = notRun('there is no quote');
  return {
    'quote.collateral': none,
    'quote.signature': none,
    'quote.revocation': none,
    'quote.tcb': none,
    'quote.attributes': none,
  };
}

function named(verdicts: QuoteVerdicts, without: string | undefined): QuoteChecks {
  const { collateral } = verdicts;
  return {
    'quote.collateral':
      collateral.verdict === 'not-run' && without !== undefined ? notRun(without) : collateral,
    'quote.signature': verdicts.signature,
    'quote.revocation': verdicts.revocation,
    'quote.tcb': verdicts.tcb,
    'quote.attributes': verdicts.attributes,
  };
}

/** What fails for the bundle's quote as well, the platform's patch level say, has one cause and is told there. */
function summed(verdicts: QuoteVerdicts, ofBundle: QuoteVerdicts | undefined): Verdict {
  const failed = rules.filter((rule) => verdicts[rule].verdict === 'fail');
  const own = failed.find((rule) => ofBundle?.[rule].verdict !== 'fail');
  if (own !== undefined) return fail(`its quote is not sound: ${own}: ${verdicts[own].reason}`);
  if (failed.length > 0) return notRun(`its quote fails for the same reason: see quote.${failed[0]}`);
  const open = rules.find((rule) => verdicts[rule].verdict === 'not-run');
  if (open !== undefined) return notRun(`its quote is not proven: ${open}: ${verdicts[open].reason}`);
  return pass('its quote is sound by all rules');
}
