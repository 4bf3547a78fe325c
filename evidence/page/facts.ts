// What the page says of a bundle, read out of its files: the statement, the machine, and since when.

import * as z from 'zod';
import type { Bundle, BundleFile } from '../bundle.ts';
import { parseEventLog, systemEvent } from '../event-log.ts';
import { parseQuote } from '../quote.ts';
import { attestationSchema, type Statement } from '../statement.ts';

export interface Facts {
  readonly builtAt: string;
  readonly files: readonly FileFact[];
  /** URL of the account; undefined if its file cannot be read. */
  readonly account: string | undefined;
  /** Undefined: there is none yet. */
  readonly statement: Statement | undefined;
  /** Undefined if quote or event log cannot be read. */
  readonly machine: MachineFacts | undefined;
  readonly since: Since | undefined;
}

export interface FileFact extends Pick<BundleFile, 'name' | 'sha256' | 'about'> {
  readonly bytes: number;
}

/** All lower-case hex; empty where the log does not say. */
export interface MachineFacts {
  readonly quoteFormat: number;
  readonly mrTd: string;
  readonly rtmrs: readonly string[];
  readonly composeHash: string;
  readonly appId: string;
  readonly instanceId: string;
}

/** ISO 8601, by the clock of the machine. */
export interface Since {
  /** The first statement of the history. */
  readonly first: string;
  /** The first of those that name the present account without a break. */
  readonly account: string;
  readonly statements: number;
}

const accountSchema = z.object({ uri: z.string() });
const quoteSchema = z.object({ quote: z.string(), event_log: z.string() });
/** Of a line of the history what is shown; whether it is intact, the verifier says. */
const lineSchema = z.object({ time: z.string(), account: z.object({ uri: z.string() }) });

/** Never throws: what cannot be read is left out, for the files themselves are there to be looked at. */
export function factsOf({ builtAt, files }: Bundle): Facts {
  const text = (name: string) => files.find((file) => file.name === name)?.text;
  const attestation = read(attestationSchema, text('attestation.json'));
  return {
    builtAt,
    files: files.map(({ name, sha256, about, text }) => ({
      name,
      sha256,
      about,
      bytes: Buffer.byteLength(text),
    })),
    account: read(accountSchema, text('acme-account.json'))?.uri,
    statement: attestation?.statement,
    machine: machineOf(read(quoteSchema, text('quote.json'))),
    since: sinceOf(text('history.jsonl')),
  };
}

function read<T>(schema: z.ZodType<T>, text: string | undefined): T | undefined {
  try {
    return schema.parse(JSON.parse(text ?? ''));
  } catch {
    return undefined;
  }
}

function machineOf(answer: z.infer<typeof quoteSchema> | undefined): MachineFacts | undefined {
  try {
    if (answer === undefined) return undefined;
    const { version, mrTd, rtmrs } = parseQuote(answer.quote);
    const events = parseEventLog(answer.event_log);
    const event = (name: string) => systemEvent(events, name) ?? '';
    return {
      quoteFormat: version,
      mrTd,
      rtmrs,
      composeHash: event('compose-hash'),
      appId: event('app-id'),
      instanceId: event('instance-id'),
    };
  } catch {
    return undefined;
  }
}

function sinceOf(history: string | undefined): Since | undefined {
  const lines = (history ?? '').split('\n').slice(0, -1);
  const entries = lines.map((line) => read(lineSchema, line)).filter((entry) => entry !== undefined);
  const newest = entries.at(-1);
  if (newest === undefined) return undefined;
  const other = entries.findLastIndex(({ account }) => account.uri !== newest.account.uri);
  return { first: entries[0]!.time, account: entries[other + 1]!.time, statements: entries.length };
}
