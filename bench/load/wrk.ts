// wrk as a load: HTTP/1.1 over kept connections, ended by a signal, its own account of errors believed.

import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { collect, LOAD_CORE, start } from '../processes.ts';
import type { Stage } from '../stage.ts';
import type { Load } from './children.ts';

export interface WrkSettings {
  readonly port: number;
  readonly path: string;
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

/** Longer than any measurement: it is ended by SIGINT, upon which wrk still reports. */
const LONGEST_S = 3_600;

export async function startWrk(stage: Stage, settings: WrkSettings): Promise<Load> {
  const script = join(stage.folder, 'wrk.lua');
  await writeFile(script, scriptText(settings.uploadBytes));
  const connections = String(settings.connections);
  const url = `https://localhost:${settings.port}${settings.path}`;
  const options = ['-t1', '-c', connections, '-d', `${LONGEST_S}s`, '--timeout', '60s', '-s', script];
  const before = await settings.units();
  const wrk = start({ program: 'wrk', args: [...options, url] }, LOAD_CORE, { output: 'pipe' });
  const stdout = collect(wrk.child.stdout!);
  const stderr = collect(wrk.child.stderr!);
  return {
    units: settings.units,
    async end() {
      const closed = once(wrk.child, 'close');
      process.kill(wrk.pid, 'SIGINT');
      await closed;
      await wrk.stop();
      const served = (await settings.units()) - before;
      judge(parseSummary(stderr(), stdout()), settings, served);
    },
  };
}

function scriptText(uploadBytes: number | undefined): string {
  const upload =
    uploadBytes === undefined ? '' : `wrk.method = "POST"\nwrk.body = string.rep("x", ${uploadBytes})\n`;
  return `${upload}
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

/** What the load generator got and what the upstream gave must be the same, but for what was under way at the end. */
export function agree(asked: number, served: number, underWay: number): void {
  if (Math.abs(asked - served) > 2 * underWay + 0.01 * asked) {
    throw new Error(`the load generator counted ${asked} requests, the upstream ${served}`);
  }
}
