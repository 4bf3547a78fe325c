// Who a machine is by its event log, once the log is proven to be that of a quote.

import {
  EventLogError,
  type LogEvent,
  logFindings,
  parseEventLog,
  replay,
  systemEvent,
} from '../event-log.ts';
import type { QuoteDocument } from './documents.ts';
import { fail, pass, type Verdict } from './verdict.ts';

/** What the system measured at boot; lower-case hex, the key provider as JSON text. */
export interface Identity {
  readonly appId: string;
  readonly composeHash: string;
  readonly instanceId: string;
  readonly keyProvider: string;
  /** Only under a key service. */
  readonly osImage: string | undefined;
}

export interface LogReading {
  readonly replay: Verdict;
  /** Undefined while the replay does not pass: then nothing in the log is known to be true. */
  readonly system: Verdict | undefined;
  /** Undefined while either does not pass. */
  readonly identity: Identity | undefined;
}

export function readLog({ eventLog, parsed }: Pick<QuoteDocument, 'eventLog' | 'parsed'>): LogReading {
  const events = parse(eventLog);
  if (typeof events === 'string') return { replay: fail(events), system: undefined, identity: undefined };
  const registers = replay(events);
  const wrong = registers.findIndex((value, index) => value !== parsed.rtmrs[index]);
  if (wrong >= 0) {
    const said = `RTMR${wrong} of the quote is ${parsed.rtmrs[wrong]}, the log leads to ${registers[wrong]}`;
    return { replay: fail(said), system: undefined, identity: undefined };
  }
  const system = judgeSystem(events);
  return {
    replay: pass(`${events.length} events lead to RTMR0 to RTMR3 of the quote`),
    system,
    identity: system.verdict === 'pass' ? identityIn(events) : undefined,
  };
}

/** Whether a quote is sound by `judge` and the log beside it is its own: what cannot be proven weighs less than a lie. */
export async function judgeWithLog(
  document: QuoteDocument,
  judge: (quote: string) => Promise<Verdict>,
): Promise<Verdict> {
  const sound = await judge(document.quote);
  if (sound.verdict === 'fail') return sound;
  const { replay: log } = readLog(document);
  return log.verdict === 'fail' ? log : sound;
}

function parse(text: string): LogEvent[] | string {
  try {
    return parseEventLog(text);
  } catch (error) {
    if (error instanceof EventLogError) return error.message;
    throw error;
  }
}

function judgeSystem(events: readonly LogEvent[]): Verdict {
  const findings = logFindings(events).map((finding) => {
    if (finding.code === 'no-system-ready') return 'system-ready is missing';
    return finding.code === 'missing'
      ? `${finding.name} is missing`
      : `${finding.name} is there ${finding.times} times`;
  });
  if (findings.length > 0) return fail(`before system-ready: ${findings.join(', ')}`);
  return pass('app-id, compose-hash, instance-id and key-provider stand once before system-ready');
}

function identityIn(events: readonly LogEvent[]): Identity {
  const value = (name: string) => systemEvent(events, name) ?? '';
  return {
    appId: value('app-id'),
    composeHash: value('compose-hash'),
    instanceId: value('instance-id'),
    keyProvider: Buffer.from(value('key-provider'), 'hex').toString('utf8'),
    osImage: systemEvent(events, 'os-image-hash'),
  };
}
