// One TLS connection to a host that may be anybody: its certificate and keying material, then files, one after the other.

import { constants, type X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { Agent, type IncomingMessage, request } from 'node:http';
import { isIP } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import { CodedError } from '../../src/lib/coded-error.ts';
import { EXPORTER_BYTES, EXPORTER_LABEL } from '../attest-claims.ts';
import type { Fetched, SeenConnection } from './seen.ts';

export interface Target {
  /** A name, or an address; IPv6 without brackets. */
  readonly host: string;
  readonly port: number;
  /** Where to connect, if not where the system's resolver says. */
  readonly address?: string;
}

export interface Connection {
  readonly seen: SeenConnection;
  /** Hex. Taken as soon as the handshake was done: later there may be no connection to take it from. */
  readonly exporter: string;
  /** Whether another file can be asked for. */
  readonly open: boolean;
  /** Whether the host ended it in the middle of something. */
  readonly broken: boolean;
  get(path: string, options: { readonly timeoutMs: number; readonly signal: AbortSignal }): Promise<Answer>;
  close(): void;
}

export type Answer = Fetched & {
  /** Of an answer that asks for patience, 429 or 503. */
  readonly retryAfterMs?: number;
};

export class ConnectionError extends CodedError<'unreachable' | 'no-tls'> {
  override readonly name = 'ConnectionError';
}

export const LARGEST_BODY = 1024 * 1024;
const LONGEST_CHAIN = 10;

/** Rejects with ConnectionError. Whom to trust is for others to judge: the chain is noted, whoever signed it. */
export async function openConnection(
  target: Target,
  ca: string | undefined,
  signal: AbortSignal,
): Promise<Connection> {
  const socket = connect({
    host: target.address ?? target.host,
    port: target.port,
    // RFC 6066 §3: an address is no server name.
    ...(isIP(target.host) === 0 && { servername: target.host }),
    ALPNProtocols: ['http/1.1'],
    minVersion: 'TLSv1.2',
    // In TLS 1.2 a host could change its certificate after it was looked at.
    secureOptions: constants.SSL_OP_NO_RENEGOTIATION,
    rejectUnauthorized: false,
    // The name is judged with the rest of the chain.
    checkServerIdentity: () => undefined,
    ...(ca !== undefined && { ca }),
  });
  // Whatever happens to it later is told by the request that it happens to.
  socket.on('error', () => {});
  try {
    await once(socket, 'secureConnect', { signal });
    const exporter = socket.exportKeyingMaterial(EXPORTER_BYTES, EXPORTER_LABEL, Buffer.alloc(0));
    return converse(socket, seenOf(socket), exporter.toString('hex'), target);
  } catch (cause) {
    socket.destroy();
    throw asConnectionError(cause, target, signal);
  }
}

function asConnectionError(cause: unknown, { host, port }: Target, signal: AbortSignal): ConnectionError {
  if (cause instanceof ConnectionError) return cause;
  const { code = '', message } = cause as NodeJS.ErrnoException;
  if (signal.aborted)
    return new ConnectionError('unreachable', `${host}:${port} did not answer in time`, { cause });
  const isTls = /^(ERR_SSL|ERR_TLS|EPROTO)/.test(code);
  return isTls
    ? new ConnectionError('no-tls', `no TLS connection to ${host}:${port} (${code})`, { cause })
    : new ConnectionError('unreachable', `no connection to ${host}:${port} (${code || message})`, { cause });
}

function seenOf(socket: TLSSocket): SeenConnection {
  const leaf = socket.getPeerX509Certificate();
  if (leaf === undefined) throw new ConnectionError('no-tls', 'the host showed no certificate');
  const distrust: unknown = socket.authorizationError;
  return {
    chain: chainOf(leaf),
    // getPeerCertificate().pubkey would be the bare point of an elliptic curve.
    spki: leaf.publicKey.export({ type: 'spki', format: 'der' }),
    protocol: socket.getProtocol() ?? '',
    distrust: socket.authorized ? undefined : describeDistrust(distrust),
  };
}

function describeDistrust(error: unknown): string {
  if (error instanceof Error) return (error as NodeJS.ErrnoException).code ?? error.message;
  return String(error ?? 'no reason given');
}

function chainOf(leaf: X509Certificate): Buffer[] {
  const chain: Buffer[] = [];
  for (
    let one: X509Certificate | undefined = leaf;
    one !== undefined && chain.length < LONGEST_CHAIN;
    one = one.issuerCertificate
  ) {
    if (chain.some((der) => der.equals(one!.raw))) break;
    chain.push(one.raw);
  }
  return chain;
}

function converse(socket: TLSSocket, seen: SeenConnection, exporter: string, target: Target): Connection {
  const agent = agentFor(socket);
  let broken = false;
  return {
    seen,
    exporter,
    get open() {
      return !socket.destroyed && socket.writable && !broken;
    },
    get broken() {
      return broken;
    },
    async get(path, { timeoutMs, signal }) {
      const deadline = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
      try {
        return await ask(agent, target, path, deadline);
      } catch (error) {
        if (deadline.aborted) return { state: 'missing', why: 'no answer in time' };
        const { code = '', message } = error as NodeJS.ErrnoException;
        if (/^HPE_/.test(code)) return { state: 'refused', why: `what came is not HTTP (${code})` };
        broken = true;
        return { state: 'missing', why: `the connection ended (${code || message})` };
      }
    },
    close() {
      agent.destroy();
      socket.destroy();
    },
  };
}

/** Of this one socket: a request that would need another one fails. */
function agentFor(socket: TLSSocket): Agent {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  let taken = false;
  agent.createConnection = (_options, done) => {
    if (taken || socket.destroyed) {
      done?.(Object.assign(new Error('the host has ended it'), { code: 'ECONNRESET' }), socket);
      return undefined;
    }
    taken = true;
    return socket;
  };
  return agent;
}

async function ask(agent: Agent, { host, port }: Target, path: string, signal: AbortSignal): Promise<Answer> {
  const name = host.includes(':') ? `[${host}]` : host;
  const asked = request({
    agent,
    path,
    signal,
    headers: {
      host: port === 443 ? name : `${name}:${port}`,
      accept: '*/*',
      'accept-encoding': 'identity',
      'user-agent': 'dstack-ingress-verify',
    },
  });
  asked.end();
  const [reply] = (await once(asked, 'response')) as [IncomingMessage];
  return answerOf(reply);
}

async function answerOf(reply: IncomingMessage): Promise<Answer> {
  const body = await readBounded(reply);
  const status = reply.statusCode ?? 0;
  if (body === undefined) {
    reply.destroy();
    return { state: 'refused', why: `it is larger than ${LARGEST_BODY} bytes` };
  }
  if (status === 200) return { state: 'got', body };
  const why = `HTTP status ${status}`;
  if (status === 429 || status === 503)
    return { state: 'missing', why, retryAfterMs: retryAfterMs(reply.headers['retry-after']) };
  if (status === 404 || status === 410) return { state: 'absent', why };
  if (status >= 300 && status <= 399) return { state: 'refused', why: `a redirect (${why})` };
  return status >= 500 ? { state: 'missing', why } : { state: 'refused', why };
}

const DEFAULT_PATIENCE_MS = 500;

function retryAfterMs(header: string | undefined): number {
  return /^\d{1,6}$/.test(header ?? '') ? Number(header) * 1000 : DEFAULT_PATIENCE_MS;
}

/** Undefined: it is too large. */
async function readBounded(reply: IncomingMessage): Promise<Buffer | undefined> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of reply as AsyncIterable<Buffer>) {
    size += part.length;
    if (size > LARGEST_BODY) return undefined;
    parts.push(part);
  }
  return Buffer.concat(parts);
}
