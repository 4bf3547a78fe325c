// The verify command: a stranger's checks of a host, as a report for people or as JSON for programs.

import type { Verification, VerifyOptions } from '../../evidence/verify/index.ts';
import type { ExitCodes } from '../exit-codes.ts';
import { readArguments, type VerifyRequest } from './verify-arguments.ts';

interface Streams {
  readonly out: NodeJS.WritableStream & { isTTY?: boolean };
  readonly err: NodeJS.WritableStream & { isTTY?: boolean };
}

/** Resolves with the exit code. */
export async function verifyCommand(
  args: readonly string[],
  streams: Streams,
  exits: ExitCodes,
): Promise<number> {
  // Before anything is loaded that takes its time.
  const progress = createProgress(streams.err);
  progress.tell('starting');
  const read = await readArguments(args);
  if ('mistakes' in read) {
    progress.end();
    for (const mistake of read.mistakes) streams.err.write(`verify: ${mistake}\n`);
    streams.err.write('hint: dstack-ingress verify --help says what it takes\n');
    return exits.usage;
  }
  const { request } = read;
  try {
    if (request.watch !== undefined) {
      progress.end();
      const { watch } = await import('./verify-watch.ts');
      return exitOf(
        await watch(request, request.watch, (signal) => run(request, QUIET, signal), streams),
        request,
        exits,
      );
    }
    const verification = await run(request, progress);
    progress.end();
    await tell(verification, request, streams.out);
    return exitOf(verification.verdict, request, exits);
  } catch (error) {
    progress.end();
    const { SavedError, TargetError } = await import('../../evidence/verify/index.ts');
    if (!(error instanceof SavedError || error instanceof TargetError)) throw error;
    streams.err.write(`verify: ${error.message}\n`);
    return exits.usage;
  }
}

async function run(request: VerifyRequest, progress: Progress, signal?: AbortSignal): Promise<Verification> {
  const library = await import('../../evidence/verify/index.ts');
  if (request.offline !== undefined) {
    const seen = await library.loadSeen(request.offline);
    const at = request.at ?? new Date(seen.at);
    return { ...(await library.judge(seen, request.expected, at)), seen, expected: request.expected };
  }
  if (request.save !== undefined) await library.prepareFolder(request.save);
  const options: VerifyOptions = {
    url: request.url,
    expected: request.expected,
    progress: progress.tell,
    ...request.sources,
    ...(request.at !== undefined && { at: request.at }),
    ...(signal !== undefined && { signal }),
  };
  const verification = await library.verify(options);
  if (request.save !== undefined) await library.saveSeen(request.save, verification.seen);
  return verification;
}

async function tell(
  verification: Verification,
  { json, verbose }: VerifyRequest,
  out: Streams['out'],
): Promise<void> {
  const { asDocument, asReport } = await import('./verify-text.ts');
  const colour = out.isTTY === true && process.env.NO_COLOR === undefined;
  out.write(json ? asDocument(verification) : asReport(verification, { verbose, colour }));
}

function exitOf(verdict: Verification['verdict'], { strict }: VerifyRequest, exits: ExitCodes): number {
  if (verdict === 'pass') return exits.ok;
  return verdict === 'fail' || strict ? exits.failed : exits.unknown;
}

interface Progress {
  readonly tell: (step: string) => void;
  end(): void;
}

const QUIET: Progress = { tell: () => {}, end: () => {} };

/** One line that changes, for somebody who waits at a terminal. */
function createProgress(err: Streams['err']): Progress {
  if (err.isTTY !== true) return QUIET;
  return {
    tell: (step) => void err.write(`\r\u001b[K${step}…`),
    end: () => void err.write('\r\u001b[K'),
  };
}
