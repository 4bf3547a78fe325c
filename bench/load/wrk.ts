// wrk as a load: HTTP/1.1 over kept connections, ended by a signal; its report says what failed.

import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { collect, LOAD_CORE, start } from '../processes.ts';
import type { Stage } from '../stage.ts';
import type { Load } from './children.ts';

export interface WrkSettings {
  readonly port: number;
  readonly path: string;
  /** Instead of it, one after the other. */
  readonly requests?: readonly { readonly host: string; readonly path: string }[];
  readonly connections: number;
  /** Bytes that a reply must at least have. */
  readonly replyBytes: number;
  /** Bytes sent with each request, which makes it a POST. */
  readonly uploadBytes?: number;
  /** Requests answered so far, counted behind the proxy. */
  units(): Promise<number>;
}

interface WrkSummary {
  readonly requests: number;
  readonly bytes: number;
  /** Connections and requests that failed, by wrk's kinds; `status` is every status above 399. */
  readonly errors: Readonly<Record<string, number>>;
}

/** Longer than any measurement: SIGINT ends wrk, which then still reports. */
const LONGEST_S = 3_600;

export async function startWrk(stage: Stage, settings: WrkSettings): Promise<Load> {
  // Each load has its own: another one may be about to read it.
  const script = join(stage.folder, `wrk-${settings.port}.lua`);
  await writeFile(script, scriptText(settings));
  const connections = String(settings.connections);
  const url = `https://localhost:${settings.port}${settings.path}`;
  const options = ['-t1', '-c', connections, '-d', `${LONGEST_S}s`, '--timeout', '60s', '-s', script];
  const share = await createShare(settings.units);
  const wrk = start({ program: 'wrk', args: [...options, url] }, LOAD_CORE, { output: 'pipe' });
  const stdout = collect(wrk.child.stdout!);
  const stderr = collect(wrk.child.stderr!);
  return {
    units: settings.units,
    ...pausing(wrk.pid, share, settings.units),
    async end() {
      const closed = once(wrk.child, 'close');
      await share.resume();
      process.kill(wrk.pid, 'SIGCONT');
      // While the main thread wakes up, another thread could take the signal and the main thread would sleep on.
      await sleep(QUIET_MS);
      process.kill(wrk.pid, 'SIGINT');
      await closed;
      await wrk.stop();
      judge(parseSummary(stderr(), stdout()), settings, await share.total());
    },
  };
}

/** Requests are put together once: a generator that does it each time is what runs out first. */
function requestsText(requests: NonNullable<WrkSettings['requests']>): string {
  const lines = requests.map(({ host, path }) => `  {"${host}","${path}"},`).join('\n');
  return `local wanted = {
${lines}
}
local texts = {}
local last = 0
init = function(args)
  for i, each in ipairs(wanted) do
    texts[i] = wrk.format("GET", each[2], { Host = each[1] })
  end
end
request = function()
  last = last % #texts + 1
  return texts[last]
end`;
}

function scriptText({ uploadBytes, requests }: WrkSettings): string {
  const asked = requests === undefined ? '' : requestsText(requests);
  const upload =
    uploadBytes === undefined ? '' : `wrk.method = "POST"\nwrk.body = string.rep("x", ${uploadBytes})\n`;
  return `${upload}${asked}
done = function(summary, latency, requests)
  local e = summary.errors
  io.stderr:write(string.format(
    '{"requests":%d,"bytes":%.0f,"errors":{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}\\n',
    summary.requests, summary.bytes, e.connect, e.read, e.write, e.status, e.timeout))
end
`;
}

function parseSummary(stderr: string, stdout: string): WrkSummary {
  const line = stderr.split('\n').find((candidate) => candidate.startsWith('{'));
  if (line === undefined) throw new Error(`wrk gave no summary: ${(stderr + stdout).trim().slice(-300)}`);
  return JSON.parse(line) as WrkSummary;
}

function judge(summary: WrkSummary, settings: WrkSettings, served: number): void {
  const failed = Object.entries(summary.errors).filter(([, count]) => count > 0);
  if (failed.length > 0) {
    const kinds = failed.map(([kind, count]) => `${kind} ${count}`).join(', ');
    throw new Error(`wrk saw errors among ${summary.requests} requests: ${kinds}`);
  }
  if (summary.bytes < summary.requests * settings.replyBytes) {
    throw new Error(`wrk read only ${summary.bytes} bytes of ${summary.requests} replies`);
  }
  agree(summary.requests, served, settings.connections);
}

/** The share of one load in the upstream's work: the upstream counts for all, but only one load runs at a time. */
export interface Share {
  pause(): Promise<void>;
  resume(): Promise<void>;
  total(): Promise<number>;
}

export async function createShare(units: () => Promise<number>): Promise<Share> {
  let before = 0;
  let from: number | undefined = await units();
  const share = {
    async pause() {
      if (from !== undefined) before += (await units()) - from;
      from = undefined;
    },
    async resume() {
      from ??= await units();
    },
    async total() {
      await share.pause();
      return before;
    },
  };
  return share;
}

/** When the upstream has answered nothing for so long, all requests of a stopped load are done. */
const QUIET_MS = 15;
const MOST_QUIET_LOOKS = 40;

async function untilQuiet(units: () => Promise<number>): Promise<void> {
  let before = -1;
  for (let look = 0; look < MOST_QUIET_LOOKS; look += 1) {
    const now = await units();
    if (now === before) return;
    before = now;
    await sleep(QUIET_MS);
  }
}

export function pausing(
  pid: number,
  share: Share,
  units: () => Promise<number>,
): Pick<Load, 'pause' | 'resume'> {
  return {
    async pause() {
      process.kill(pid, 'SIGSTOP');
      await untilQuiet(units);
      await share.pause();
    },
    async resume() {
      await share.resume();
      process.kill(pid, 'SIGCONT');
    },
  };
}

/** Replies received must equal replies sent, except for those under way at the end. */
export function agree(asked: number, served: number, underWay: number): void {
  if (Math.abs(asked - served) > 2 * underWay + 0.01 * asked) {
    throw new Error(`the load generator counted ${asked} requests, the upstream ${served}`);
  }
}
