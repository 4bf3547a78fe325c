// The top command: listens to the events of an ingress and draws each report over the one before.

import { type IncomingMessage, request } from 'node:http';
import { privateSocketPath } from '../admin/private-socket.ts';
import type { LiveReport } from '../admin/report.ts';
import { parseAdminAddress } from '../config/admin.ts';
import { ValueError } from '../config/values.ts';
import type { ExitCodes } from '../exit-codes.ts';
import { drawTop, SPARK_SECONDS } from './top-picture.ts';

interface Streams {
  readonly in: NodeJS.ReadStream;
  readonly out: NodeJS.WriteStream;
  readonly err: NodeJS.WritableStream;
}

type Where = { socketPath: string } | { host: string; port: number };

const CONNECT_MS = 5_000;
const AGAIN_MS = 2_000;
/** A report is far shorter, however many hosts it has. */
const LONGEST_LINE = 4 * 1024 * 1024;

/** Resolves with the exit code, once q is pressed or, where there is no terminal, after one picture. */
export async function top(
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  streams: Streams,
  exits: ExitCodes,
): Promise<number> {
  const given = args[args.indexOf('--address') + 1];
  let where: Where;
  try {
    where = args.includes('--address') ? whereOf(given!) : { socketPath: privateSocketPath(env) };
  } catch (error) {
    if (!(error instanceof ValueError)) throw error;
    streams.err.write(`top: --address: ${error.message}\n`);
    return exits.usage;
  }
  const source = { where, token: env.ADMIN_TOKEN?.trim() };
  return streams.out.isTTY ? watch(source, streams, exits) : printOnce(source, streams, exits);
}

function whereOf(text: string): Where {
  const address = parseAdminAddress(text);
  if (address === null) throw new ValueError('it is off', 'wants 127.0.0.1:9180 or unix:/path');
  return 'path' in address ? { socketPath: address.path } : { host: address.host, port: address.port };
}

interface Source {
  readonly where: Where;
  readonly token: string | undefined;
}

/** Of the second report: the first has no second behind it. */
async function printOnce(source: Source, { out, err }: Streams, exits: ExitCodes): Promise<number> {
  const stop = new AbortController();
  const board = createBoard();
  let reports = 0;
  try {
    for await (const report of reportsOf(source, stop.signal)) {
      board.take(report);
      if (++reports < 2) continue;
      const canvas = { columns: 120, rows: 1_000, colours: false };
      out.write(
        `${board
          .lines(canvas)
          .map((line) => line.trimEnd())
          .join('\n')}\n`,
      );
      return exits.ok;
    }
    throw new Error('it ended the connection');
  } catch (error) {
    err.write(`top: ${describe(source, error as Error)}\n`);
    return exits.failed;
  } finally {
    stop.abort();
  }
}

async function watch(source: Source, streams: Streams, exits: ExitCodes): Promise<number> {
  const { out } = streams;
  const board = createBoard();
  const stop = new AbortController();
  const restore = takeTerminal(streams, () => stop.abort());
  const draw = (problem = '') => {
    const canvas = { columns: out.columns, rows: out.rows - 1, colours: true };
    const lines = [...(problem === '' ? [] : [problem.slice(0, out.columns)]), ...board.lines(canvas)];
    out.write(
      `\x1b[H${lines
        .slice(0, canvas.rows)
        .map((line) => `${line}\x1b[K`)
        .join('\r\n')}\x1b[J`,
    );
  };
  out.on('resize', draw);
  try {
    while (!stop.signal.aborted) {
      try {
        for await (const report of reportsOf(source, stop.signal)) {
          board.take(report);
          draw();
        }
        draw('it ended the connection, asking again');
      } catch (error) {
        if (!stop.signal.aborted) draw(describe(source, error as Error));
      }
      await pause(AGAIN_MS, stop.signal);
    }
    return exits.ok;
  } finally {
    out.off('resize', draw);
    restore();
  }
}

function createBoard() {
  const seconds = new Map<string, number[]>();
  let last: LiveReport | undefined;
  let news: LiveReport['news'] = [];
  return {
    take(report: LiveReport) {
      for (const { host, now } of report.hosts)
        seconds.set(host, [...(seconds.get(host) ?? []), now.requests].slice(-SPARK_SECONDS));
      const known = last !== undefined && report.upSeconds < last.upSeconds ? [] : news;
      const newest = known.at(-1)?.number ?? 0;
      news = [...known, ...report.news.filter(({ number }) => number > newest)].slice(-50);
      last = { ...report, news };
    },
    lines: (canvas: Parameters<typeof drawTop>[2]) =>
      last === undefined ? [] : drawTop(last, seconds, canvas),
  };
}

/** The whole screen, without what is typed; the one of before comes back with what is returned. */
function takeTerminal({ in: input, out }: Streams, quit: () => void): () => void {
  const onKey = (bytes: Buffer) => {
    // q, Ctrl-C, Ctrl-D.
    if (/[qQ\x03\x04]/.test(bytes.toString('latin1'))) quit();
  };
  process.once('SIGTERM', quit);
  process.once('SIGINT', quit);
  if (input.isTTY) input.setRawMode(true);
  input.on('data', onKey);
  out.write('\x1b[?1049h\x1b[?25l\x1b[2J');
  return () => {
    out.write('\x1b[?25h\x1b[?1049l');
    input.off('data', onKey);
    if (input.isTTY) input.setRawMode(false);
    input.pause();
  };
}

async function* reportsOf(source: Source, signal: AbortSignal): AsyncGenerator<LiveReport> {
  const response = await ask(source, signal);
  let rest = '';
  for await (const bytes of response.setEncoding('utf8')) {
    const lines = `${rest}${bytes}`.split('\n');
    rest = lines.pop()!;
    if (rest.length > LONGEST_LINE) throw new Error('its answer is none');
    for (const line of lines) if (line.startsWith('data: ')) yield JSON.parse(line.slice(6)) as LiveReport;
  }
}

function ask({ where, token }: Source, signal: AbortSignal): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const asked = request({ ...where, path: '/events', agent: false, signal, headers }, (response) => {
      asked.setTimeout(0);
      if (response.statusCode === 200) return resolve(response);
      response.resume();
      reject(
        new Error(response.statusCode === 401 ? 'it wants ADMIN_TOKEN' : `it answers ${response.statusCode}`),
      );
    });
    asked.setTimeout(CONNECT_MS, () => asked.destroy(new Error('it does not answer in time')));
    asked.on('error', reject);
    asked.end();
  });
}

function describe({ where }: Source, { message }: Error): string {
  const place = 'socketPath' in where ? where.socketPath : `${where.host}:${where.port}`;
  return `no ingress to watch at ${place}: ${message}`;
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
