// h2load as a load: HTTP/2 requests on many streams of many connections.

import { once } from 'node:events';
import { collect, LOAD_CORE, start } from '../processes.ts';
import type { Load } from './children.ts';
import { agree, createShare, pausing } from './wrk.ts';

export interface H2loadSettings {
  readonly port: number;
  readonly path: string;
  readonly connections: number;
  readonly streams: number;
  /** h2load cannot be ended earlier, so all its turns must fit. */
  readonly durationMs: number;
  /** Bytes of body that each reply has. */
  readonly replyBytes: number;
  /** A file that is sent with each request, which makes it a POST. */
  readonly upload?: string;
  readonly headers?: readonly string[];
  /** Requests answered so far, counted behind the proxy. */
  units(): Promise<number>;
}

export interface H2loadReport {
  readonly succeeded: number;
  readonly failed: number;
  /** Replies with a status from 200 to 299. */
  readonly good: number;
  /** Bytes of reply bodies. */
  readonly data: number;
}

export async function startH2load(settings: H2loadSettings): Promise<Load> {
  const seconds = String(Math.ceil(settings.durationMs / 1_000));
  const shape = [
    '-t',
    '1',
    '-c',
    String(settings.connections),
    '-m',
    String(settings.streams),
    '-D',
    seconds,
  ];
  const headers = (settings.headers ?? []).flatMap((header) => ['-H', header]);
  const upload = settings.upload === undefined ? [] : ['-d', settings.upload];
  const url = `https://localhost:${settings.port}${settings.path}`;
  const args = [...shape, '--npn-list', 'h2', ...headers, ...upload, url];
  const share = await createShare(settings.units);
  const h2load = start({ program: 'h2load', args }, LOAD_CORE, { output: 'pipe' });
  const closed = once(h2load.child, 'close');
  const stdout = collect(h2load.child.stdout!);
  const stderr = collect(h2load.child.stderr!);
  return {
    units: settings.units,
    ...pausing(h2load.pid, share, settings.units),
    async end() {
      await share.resume();
      process.kill(h2load.pid, 'SIGCONT');
      await closed;
      await h2load.stop();
      judge(parseH2load(stdout() + stderr()), settings, await share.total());
    },
  };
}

/** h2load's summary. Throws if it is not one. */
export function parseH2load(text: string): H2loadReport {
  const requests = /(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout/.exec(text);
  const statuses = /status codes: (\d+) 2xx/.exec(text);
  const traffic = /\((\d+)\) data/.exec(text);
  if (!requests || !statuses || !traffic)
    throw new Error(`h2load gave no summary: ${text.trim().slice(-300)}`);
  return {
    succeeded: Number(requests[1]),
    // Its "failed" holds the errors and timeouts too.
    failed: Number(requests[2]),
    good: Number(statuses[1]),
    data: Number(traffic[1]),
  };
}

function judge(report: H2loadReport, settings: H2loadSettings, served: number): void {
  const underWay = settings.connections * settings.streams;
  if (report.failed > 0)
    throw new Error(`h2load saw ${report.failed} failures, ${report.succeeded} successes`);
  if (Math.abs(report.good - report.succeeded) > underWay) {
    throw new Error(`only ${report.good} of ${report.succeeded} replies had a status of 2xx`);
  }
  if (report.data < report.succeeded * settings.replyBytes) {
    throw new Error(`h2load read only ${report.data} bytes of ${report.succeeded} replies`);
  }
  agree(report.succeeded, served, underWay);
}
