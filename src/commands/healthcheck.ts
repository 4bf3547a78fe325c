// The healthcheck command: asks a running ingress beside it whether it is ready; it loads next to nothing, for it runs every half minute.

import { connect } from 'node:net';
import { privateSocketPath } from '../admin/private-socket.ts';
import type { ExitCodes } from '../exit-codes.ts';

interface Streams {
  readonly out: NodeJS.WritableStream;
  readonly err: NodeJS.WritableStream;
}

const PATIENCE_MS = 4_000;
const LONGEST_ANSWER = 16 * 1024;

/** Resolves with the exit code: `failed` if it is not ready, or does not answer. */
export async function healthcheck(
  env: NodeJS.ProcessEnv,
  { out, err }: Streams,
  exits: ExitCodes,
): Promise<number> {
  const path = privateSocketPath(env);
  try {
    const { ready, text } = await ask(path);
    out.write(text);
    return ready ? exits.ok : exits.failed;
  } catch (error) {
    err.write(`healthcheck: no ingress answers at ${path}: ${(error as Error).message}\n`);
    return exits.failed;
  }
}

async function ask(path: string): Promise<{ ready: boolean; text: string }> {
  const socket = connect({ path });
  socket.setTimeout(PATIENCE_MS, () => socket.destroy(new Error('it does not answer in time')));
  socket.end('GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n');
  let answer = '';
  for await (const bytes of socket) {
    answer += bytes;
    if (answer.length > LONGEST_ANSWER) break;
  }
  const [, status, text] = /^HTTP\/1\.1 (\d{3}) .*?\r\n\r\n(.*)$/s.exec(answer) ?? [];
  if (status === undefined || text === undefined) throw new Error('its answer is none');
  return { ready: status === '200', text };
}
