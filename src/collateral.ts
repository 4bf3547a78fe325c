// Publishes beside the quote what its vendor says of the processor, so that a page can verify with it, and readers keep it.

import { type BundleFile, fileOf } from '../evidence/bundle.ts';
import type { Collateral } from '../evidence/verify/collateral.ts';
import { type Clock, systemClock } from './lib/clock.ts';
import type { Log } from './lib/log.ts';

export interface CollateralOptions {
  /** Of the evidence that is shown, hex; undefined: there is none yet. */
  quote(): string | undefined;
  /** Shown beside it from now on; undefined: no longer. */
  publish(file: BundleFile | undefined): Promise<void>;
  /** Undefined: the usual ones. */
  readonly services: readonly string[] | undefined;
  readonly log: Log;
  readonly clock?: Clock;
  /** DER. Default: Intel's. */
  readonly root?: Uint8Array;
}

export const COLLATERAL_FILE = 'quote-collateral.json';

/** Of the thirty days that collateral is in force. */
const EVERY_MS = 24 * 3_600_000;
const FIRST_RETRY_MS = 60_000;

/** Until aborted. Never rejects: without collateral the evidence is what it was. */
export async function keepCollateral(options: CollateralOptions, signal: AbortSignal): Promise<void> {
  const { clock = systemClock, log } = options;
  let retryMs = FIRST_RETRY_MS;
  let shown: Collateral | undefined;
  while (!signal.aborted) {
    const found = await obtain(options, signal).catch((error: unknown) => error as Error);
    if (signal.aborted) return;
    if (found === 'not-a-processor') {
      log.info({}, 'the quote is not of a processor that collateral could be had for');
      return;
    }
    if (found instanceof Error) {
      log.warn({ err: found, retryMs }, 'the collateral of the quote cannot be had');
      // What has run out would make a sound quote look unsound.
      if (shown !== undefined && (await isPast(shown, options))) {
        shown = undefined;
        await publish(options, undefined);
      }
    } else {
      shown = found;
      await publish(options, found);
    }
    const pauseMs = found instanceof Error ? retryMs : EVERY_MS;
    retryMs = found instanceof Error ? Math.min(retryMs * 2, EVERY_MS) : FIRST_RETRY_MS;
    await clock.sleep(pauseMs, signal).catch(() => {});
  }
}

/** Rejects if no service has it, or not as its vendor signed it. Nobody is asked about a platform that is simulated. */
async function obtain(
  { quote, services, clock = systemClock, root: given }: CollateralOptions,
  signal: AbortSignal,
): Promise<Collateral | 'not-a-processor'> {
  const own = quote();
  if (own === undefined) throw new Error('there is no quote yet');
  const { intelRoot, judgeQuote } = await import('../evidence/verify/quote-rules.ts');
  const { fetchCollateral } = await import('../evidence/verify/fetch-collateral.ts');
  const root = given ?? (await intelRoot());
  const rules = { root, at: clock.now() };
  if ((await judgeQuote(own, undefined, rules)).signature.verdict === 'fail') return 'not-a-processor';
  const found = await fetchCollateral(own, {
    root,
    signal,
    clock,
    ...(services !== undefined && { services }),
  });
  const { collateral } = await judgeQuote(own, found, rules);
  if (collateral.verdict !== 'pass') throw new Error(`what came is not sound: ${collateral.reason}`);
  return found;
}

async function isPast(
  collateral: Collateral,
  { quote, clock = systemClock, root: given }: CollateralOptions,
) {
  const { intelRoot, judgeQuote } = await import('../evidence/verify/quote-rules.ts');
  const rules = { root: given ?? (await intelRoot()), at: clock.now() };
  return (await judgeQuote(quote() ?? '', collateral, rules)).collateral.verdict !== 'pass';
}

async function publish({ publish: show, log }: CollateralOptions, collateral: Collateral | undefined) {
  const file =
    collateral &&
    fileOf(
      COLLATERAL_FILE,
      'application/json',
      `${JSON.stringify(collateral)}\n`,
      'what Intel says of the processor and its firmware, signed by Intel: what the quotes are judged by',
    );
  await show(file).catch((err: unknown) => {
    log.error({ err }, 'the collateral of the quote cannot be published');
  });
}
