// Quote, log and what the reader expects -> verdicts on the app, its configuration, the system and the source of keys.

import type { Quote } from '../quote.ts';
import type { Verdicts } from './checks.ts';
import type { QuoteDocument } from './documents.ts';
import type { Expected, KeyProvider, TrustedSystem } from './expected.ts';
import { type Identity, type LogReading, readLog } from './identity.ts';
import { readKeyProvider } from './key-provider.ts';
import { judgeConfig } from './mr-config.ts';
import { fail, notRun, pass, type Verdict } from './verdict.ts';

type MachineChecks = Pick<
  Verdicts,
  'log.replay' | 'log.system' | 'app.id' | 'app.compose' | 'app.config' | 'os.image' | 'key.provider'
>;

export interface MachineJudgement {
  readonly verdicts: MachineChecks;
  /** Of the quote in the bundle; undefined if it is not proven. */
  readonly identity: Identity | undefined;
}

export function judgeMachine(quote: QuoteDocument | undefined, expected: Expected): MachineJudgement {
  const log = quote === undefined ? undefined : readLog(quote);
  const identity = log?.identity;
  const proven = (judge: (identity: Identity) => Verdict) =>
    identity === undefined
      ? notRun('the event log does not say for sure who the machine is')
      : judge(identity);
  return {
    identity,
    verdicts: {
      ...judgeLog(log),
      'app.id': proven((one) => judgeAppId(one, expected.appId)),
      'app.compose': proven(({ composeHash }) => judgeCompose(composeHash, expected.composeHash)),
      'app.config': proven((one) => judgeConfig(quote!.parsed.mrConfigId, one)),
      'os.image':
        quote === undefined
          ? notRun('there is no quote')
          : judgeSystem(quote.parsed, identity, expected.systems ?? []),
      'key.provider': proven((one) => judgeProvider(one, expected.keyProviders ?? [])),
    },
  };
}

function judgeLog(log: LogReading | undefined): Pick<Verdicts, 'log.replay' | 'log.system'> {
  if (log === undefined) {
    const none = notRun('there is no quote with an event log');
    return { 'log.replay': none, 'log.system': none };
  }
  return {
    'log.replay': log.replay,
    'log.system': log.system ?? notRun('the log does not lead to the registers of the quote'),
  };
}

function judgeAppId({ appId, keyProvider }: Identity, expected: string | undefined): Verdict {
  // Only a key service decides who may have an id. Without one the host sets any.
  const note =
    readKeyProvider(keyProvider)?.name === 'kms'
      ? ''
      : '; no key service stands behind it, so the compose file is what identifies the app';
  if (expected === undefined) return notRun(`no app id to compare with; measured is ${appId}${note}`);
  return appId === expected
    ? pass(`the app id is ${appId}${note}`)
    : fail(`expected is the app id ${expected}, measured is ${appId}`);
}

function judgeCompose(measured: string, expected: string | undefined): Verdict {
  if (expected === undefined) return notRun(`no compose file to compare with; measured is ${measured}`);
  return measured === expected
    ? pass(`the compose file has the hash ${measured}`)
    : fail(`the compose file that is expected has the hash ${expected}, measured is ${measured}`);
}

function judgeSystem(
  quote: Quote,
  identity: Identity | undefined,
  trusted: readonly TrustedSystem[],
): Verdict {
  const [rtmr0, rtmr1, rtmr2] = quote.rtmrs;
  const measured = `MRTD ${quote.mrTd}, RTMR0 ${rtmr0}, RTMR1 ${rtmr1}, RTMR2 ${rtmr2}, image ${identity?.osImage ?? 'not said'}`;
  if (trusted.length === 0) return notRun(`no measurements to compare with; measured is ${measured}`);
  const fits = trusted.filter((system) => systemFits(system, quote, identity));
  if (fits.length === 0) return fail(`none of the systems that are trusted; measured is ${measured}`);
  // The image's name is what the machine says of itself, and what it says is worth what its system is worth.
  if (!fits.some(isMeasured))
    return notRun(
      `not contradicted, but only mrtd, rtmr1 and rtmr2 together prove a system; measured is ${measured}`,
    );
  return pass(`a system that is trusted: ${measured}`);
}

function systemFits(
  { mrtd, rtmrs, image }: TrustedSystem,
  quote: Quote,
  identity: Identity | undefined,
): boolean {
  const same = (expected: string | undefined, measured: string | undefined) =>
    expected === undefined || expected === measured;
  return (
    same(mrtd, quote.mrTd) &&
    ([0, 1, 2] as const).every((index) => same(rtmrs[index], quote.rtmrs[index])) &&
    // Not said is not contradicted: only a key service makes machines say it.
    same(image, identity?.osImage ?? image)
  );
}

function isMeasured({ mrtd, rtmrs }: TrustedSystem): boolean {
  return mrtd !== undefined && rtmrs[1] !== undefined && rtmrs[2] !== undefined;
}

function judgeProvider({ keyProvider }: Identity, trusted: readonly KeyProvider[]): Verdict {
  const measured = readKeyProvider(keyProvider);
  const said =
    measured === undefined ? JSON.stringify(keyProvider) : `${measured.name} ${measured.id}`.trim();
  if (trusted.length === 0) return notRun(`no key provider to compare with; measured is ${said}`);
  const fits = trusted.some(
    ({ name, id }) => name === measured?.name && (id === undefined || id === measured.id),
  );
  return fits
    ? pass(`the keys come from ${said}`)
    : fail(`the keys come from ${said}, which is none of those that are trusted`);
}
