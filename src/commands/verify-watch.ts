// Watching a host: the same verification again and again, and a word only when a verdict turns.

import type { CheckId, Verification } from '../../evidence/verify/index.ts';
import { systemClock } from '../lib/clock.ts';
import { HttpError, httpRequest } from '../lib/fetch.ts';
import type { VerifyRequest, WatchRequest } from './verify-arguments.ts';

interface Streams {
  readonly out: NodeJS.WritableStream;
  readonly err: NodeJS.WritableStream;
}

type Verify = (signal: AbortSignal) => Promise<Verification>;
type Verdict = Verification['checks'][number]['verdict'];

interface Change {
  readonly id: CheckId;
  /** Undefined on the first round. */
  readonly was: Verdict | undefined;
  readonly verdict: Verdict;
  readonly reason: string;
}

const WEBHOOK_MS = 15_000;
const WEBHOOK_ATTEMPTS = 3;
const WEBHOOK_PAUSE_MS = 2_000;

/** Resolves on SIGTERM or SIGINT, with the verdict of the last round that ended. */
export async function watch(
  request: VerifyRequest,
  { everyMs, webhook }: WatchRequest,
  verify: Verify,
  streams: Streams,
): Promise<Verification['verdict']> {
  const stop = new AbortController();
  const end = () => stop.abort();
  process.once('SIGTERM', end);
  process.once('SIGINT', end);
  let before: Verification | undefined;
  try {
    while (!stop.signal.aborted) {
      const now = await verify(stop.signal);
      // A round that was cut off says nothing about the host.
      if (stop.signal.aborted) break;
      await tellChanges({ before, now, request, webhook }, streams, stop.signal);
      before = now;
      await systemClock.sleep(everyMs, stop.signal).catch(() => {});
    }
  } finally {
    process.off('SIGTERM', end);
    process.off('SIGINT', end);
  }
  return before?.verdict ?? 'unknown';
}

interface Round {
  readonly before: Verification | undefined;
  readonly now: Verification;
  readonly request: VerifyRequest;
  readonly webhook: string | undefined;
}

async function tellChanges(round: Round, { out, err }: Streams, signal: AbortSignal): Promise<void> {
  const { before, now, request, webhook } = round;
  const changes = changesBetween(before, now);
  const turned = before?.verdict !== now.verdict;
  const at = new Date().toISOString();
  if (turned) out.write(lineOf(request, at, { id: 'verdict', was: before?.verdict, verdict: now.verdict }));
  for (const change of changes) out.write(lineOf(request, at, change));
  const worthTelling = before === undefined ? now.verdict === 'fail' : turned || changes.length > 0;
  if (webhook === undefined || !worthTelling) return;
  const letter = { url: request.url, at, verdict: now.verdict, was: before?.verdict ?? null, changes };
  const failure = await post(webhook, JSON.stringify(letter), signal);
  if (failure !== undefined) err.write(`verify: the webhook did not take the letter: ${failure}\n`);
}

/** On the first round what did not pass. */
function changesBetween(before: Verification | undefined, now: Verification): Change[] {
  const known = new Map(before?.checks.map(({ id, verdict }) => [id, verdict]));
  return now.checks
    .map(({ id, verdict, reason }) => ({ id, was: known.get(id), verdict, reason }))
    .filter(({ was, verdict }) => (before === undefined ? verdict === 'fail' : was !== verdict));
}

interface Line {
  readonly id: string;
  readonly was: string | undefined;
  readonly verdict: string;
  readonly reason?: string;
}

function lineOf({ url, json }: VerifyRequest, at: string, { id, was, verdict, reason }: Line): string {
  if (json) return `${JSON.stringify({ at, url, id, was: was ?? null, verdict, reason })}\n`;
  const turn = was === undefined ? verdict : `${was} -> ${verdict}`;
  return `${at} ${url} ${id}: ${turn}${reason === undefined ? '' : `: ${reason}`}\n`;
}

/** Why it was not taken; undefined if it was. */
async function post(url: string, body: string, signal: AbortSignal): Promise<string | undefined> {
  const headers = { 'content-type': 'application/json', 'user-agent': 'dstack-ingress-verify' };
  for (let attempt = 1; ; attempt++) {
    const failure = await postOnce({ method: 'POST', url, headers, body, timeoutMs: WEBHOOK_MS, signal });
    if (failure === undefined || attempt === WEBHOOK_ATTEMPTS || signal.aborted) return failure;
    await systemClock.sleep(WEBHOOK_PAUSE_MS * attempt, signal).catch(() => {});
  }
}

async function postOnce(request: Parameters<typeof httpRequest>[0]): Promise<string | undefined> {
  try {
    const { status } = await httpRequest(request);
    return status >= 200 && status <= 299 ? undefined : `HTTP status ${status}`;
  } catch (error) {
    if (!(error instanceof HttpError)) throw error;
    return error.message;
  }
}
