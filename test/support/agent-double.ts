// A simulated guest agent that can be told to misbehave, and a folder for its sockets.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import {
  type AgentReply,
  type Interception,
  type SimulatedAgent,
  type SimulatedAgentOptions,
  startSimulatedAgent,
} from '../../src/demo/simulated-agent.ts';
import { createSimulatedProcessor, type SimulatedProcessor } from '../../src/demo/simulated-quote.ts';

export type Misbehaviour =
  | 'refuse'
  | 'error-in-200'
  | 'proxy-error'
  | 'garbage'
  | 'empty-object'
  | 'hang'
  | 'close'
  | 'close-midway'
  | 'other-report-data'
  | 'lies-about-report-data'
  | 'truncated-quote'
  | 'no-quote';

export interface AgentDouble extends SimulatedAgent {
  /** From the next call on; undefined: as it should. */
  misbehave(how: Misbehaviour | undefined): void;
}

let processor: Promise<SimulatedProcessor> | undefined;

/** One processor serves all agents of a test process: making its PKI is the slow part. */
export function sharedProcessor(): Promise<SimulatedProcessor> {
  processor ??= createSimulatedProcessor();
  return processor;
}

/** Closed after the test. */
export async function startAgentDouble(t: TestContext, options: SimulatedAgentOptions): Promise<AgentDouble> {
  let how: Misbehaviour | undefined;
  const agent = await startSimulatedAgent({
    processor: await sharedProcessor(),
    ...options,
    intercept: (_method, reply) => (how === undefined ? reply : misbehaving(how, reply)),
  });
  t.after(() => agent.close());
  return {
    ...agent,
    misbehave(next) {
      how = next;
    },
  };
}

/** Short, since the path of a unix socket has at most 107 bytes. Removed after the test. */
export async function socketFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'agent-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

function misbehaving(how: Misbehaviour, reply: AgentReply): Interception {
  switch (how) {
    case 'refuse':
      return { status: 400, body: '{"error":"Failed to get quote: device or resource busy"}' };
    case 'error-in-200':
      return { status: 200, body: '{"error":"quote generation failed"}' };
    case 'proxy-error':
      return { status: 502, body: '<html>Bad Gateway</html>' };
    case 'garbage':
      return { status: 200, body: '\u0000\u0001 this is not JSON' };
    case 'empty-object':
      return { status: 200, body: '{}' };
    case 'other-report-data':
      return altered(reply, (answer) => ({
        ...answer,
        quote: withReportData(answer.quote, 'ab'.repeat(64)),
      }));
    case 'lies-about-report-data':
      return altered(reply, (answer) => ({ ...answer, report_data: 'cd'.repeat(64) }));
    case 'truncated-quote':
      return altered(reply, (answer) => ({ ...answer, quote: answer.quote.slice(0, 2000) }));
    case 'no-quote':
      return altered(reply, (answer) => ({ ...answer, quote: '', attestation: '00' }));
    default:
      return how;
  }
}

function altered(reply: AgentReply, change: (answer: { quote: string }) => object): AgentReply {
  return { status: reply.status, body: JSON.stringify(change(JSON.parse(reply.body))) };
}

/** Bytes 568 to 632 of a quote of format 4. */
function withReportData(quote: string, reportData: string): string {
  return quote.slice(0, 568 * 2) + reportData + quote.slice(632 * 2);
}
