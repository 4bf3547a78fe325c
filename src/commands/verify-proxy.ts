// The verify proxy command: local programs speak plain HTTP to it, and reach a host only while that host is proven.

import type { Verification } from '../../evidence/verify/index.ts';
import type { ExitCodes } from '../exit-codes.ts';
import {
  DEFAULT_MINUTES,
  MINUTE_MS,
  readArguments,
  readMinutes,
  type VerifyRequest,
} from './verify-arguments.ts';
import type { ListenAddress } from './verify-proxy-listener.ts';

interface Streams {
  readonly out: NodeJS.WritableStream & { isTTY?: boolean };
  readonly err: NodeJS.WritableStream & { isTTY?: boolean };
}

interface ProxyRequest {
  readonly request: VerifyRequest;
  readonly address: ListenAddress;
  readonly everyMs: number;
}

/** Resolves with the exit code, on SIGTERM or SIGINT if it came to serve. */
export async function verifyProxyCommand(
  args: readonly string[],
  streams: Streams,
  exits: ExitCodes,
): Promise<number> {
  const tell = (line: string) => void streams.err.write(`verify proxy: ${line}\n`);
  const read = await readProxyArguments(args);
  if ('mistakes' in read) {
    for (const mistake of read.mistakes) tell(mistake);
    streams.err.write('hint: dstack-ingress verify proxy --help says what it takes\n');
    return exits.usage;
  }
  const stop = new AbortController();
  const end = () => stop.abort();
  process.once('SIGTERM', end);
  process.once('SIGINT', end);
  try {
    return await proxy(read, { tell, streams, exits, signal: stop.signal });
  } finally {
    process.off('SIGTERM', end);
    process.off('SIGINT', end);
  }
}

interface Surroundings {
  readonly tell: (line: string) => void;
  readonly streams: Streams;
  readonly exits: ExitCodes;
  readonly signal: AbortSignal;
}

async function proxy(asked: ProxyRequest, { tell, streams, exits, signal }: Surroundings): Promise<number> {
  const { request, address, everyMs } = asked;
  const { createStanding, judgeProof } = await import('./verify-proxy-standing.ts');
  const { listen } = await import('./verify-proxy-listener.ts');
  const name = new URL(request.url).host;
  tell(`verifying ${name}`);
  const first = await verifyOnce(request, signal);
  if (signal.aborted) return exits.ok;
  const judged = judgeProof(first, request.strict);
  if ('lacking' in judged) {
    const { asReport } = await import('./verify-text.ts');
    streams.out.write(asReport(first, { verbose: request.verbose, colour: false }));
    tell(`${name} is not proven, nothing is served: ${judged.lacking.map(({ id }) => id).join(', ')}`);
    return first.verdict === 'fail' || request.strict ? exits.failed : exits.unknown;
  }
  const standing = createStanding({
    name,
    first: judged.proven,
    verify: async (cut) => judgeProof(await verifyOnce(request, cut), request.strict),
    everyMs,
    tell,
  });
  const listener = await listen(address, standing, name).catch((error: NodeJS.ErrnoException) => error);
  if (listener instanceof Error) {
    tell(`cannot listen on ${address.host} port ${address.port}: ${listener.code ?? listener.message}`);
    return exits.failed;
  }
  const open = judged.open.map(({ id }) => id).join(', ');
  tell(`${name} is proven${open === '' ? '' : `, though these could not be run: ${open}`}`);
  tell(`http://${listener.address} leads to https://${name}`);
  await standing.run(signal);
  listener.close();
  return exits.ok;
}

async function verifyOnce(request: VerifyRequest, signal: AbortSignal): Promise<Verification> {
  const { verify } = await import('../../evidence/verify/index.ts');
  return verify({ url: request.url, expected: request.expected, ...request.sources, signal });
}

type ReadProxyArguments = ProxyRequest | { readonly mistakes: readonly string[] };

async function readProxyArguments(args: readonly string[]): Promise<ReadProxyArguments> {
  const { readListen } = await import('./verify-proxy-listener.ts');
  const { listen, every, rest } = ownFlags(args);
  const mistakes: string[] = [];
  const one = <T>(flag: string, values: readonly string[], read: (value: string) => T): T | undefined => {
    if (values.length > 1) mistakes.push(`${flag} is given ${values.length} times`);
    try {
      return values[0] === undefined ? undefined : read(values[0]);
    } catch (error) {
      mistakes.push((error as Error).message);
      return undefined;
    }
  };
  if (listen.length === 0) mistakes.push('lacks where to listen: --listen 127.0.0.1:PORT');
  const address = one('--listen', listen, readListen);
  const minutes = one('--every', every, readMinutes) ?? DEFAULT_MINUTES;
  const read = await readArguments(rest);
  if ('mistakes' in read) mistakes.push(...read.mistakes);
  if (mistakes.length > 0 || address === undefined || 'mistakes' in read) return { mistakes };
  return { request: read.request, address, everyMs: minutes * MINUTE_MS };
}

/** The two flags that are not those of verify, or mean something else there. */
function ownFlags(args: readonly string[]) {
  const own: Record<string, string[]> = { '--listen': [], '--every': [] };
  const rest: string[] = [];
  for (let at = 0; at < args.length; at++) {
    const values = own[args[at]!];
    if (values === undefined) rest.push(args[at]!);
    else values.push(args[++at] ?? '');
  }
  return { listen: own['--listen']!, every: own['--every']!, rest };
}
