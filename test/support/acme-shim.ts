// An HTTPS server before Pebble that adds what Pebble lacks (ARI, profiles, Retry-After, refusals) and what a CA may do wrong.

import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { Agent, request } from 'undici';
import type { Pebble } from './pebble.ts';

export interface ShimRequest {
  readonly method: string;
  readonly path: string;
  /** The JWS payload of a POST, parsed; undefined for POST-as-GET and GET. */
  readonly payload: Record<string, unknown> | undefined;
  /** The nonce that the JWS was signed with. */
  readonly nonce: string | undefined;
  /** The account key that the JWS was signed with, where it says so itself (new accounts). */
  readonly jwk: Record<string, string> | undefined;
}

export interface ShimReply {
  status: number;
  headers?: Record<string, string>;
  body?: string;
}

export interface AcmeShim {
  readonly directoryUrl: string;
  /** Asked for every request; undefined lets it pass to Pebble. */
  intercept: (request: ShimRequest) => ShimReply | undefined | Promise<ShimReply | undefined>;
  /** Changes the directory before it is given out. */
  directory: (directory: Record<string, unknown>, base: string) => Record<string, unknown>;
  /** Changes Pebble's answers, other than the directory, before they are given out. */
  rewrite: (request: ShimRequest, body: string) => string;
  /** Adds to the headers of Pebble's answers. */
  reheader: (request: ShimRequest) => Record<string, string>;
  /** Everything asked so far. */
  readonly requests: readonly ShimRequest[];
  stop(): Promise<void>;
}

/** A refusal in the CA's words. */
export function problem(
  status: number,
  type: string,
  detail: string,
  headers: Record<string, string> = {},
): ShimReply {
  const body = JSON.stringify({ type: `urn:ietf:params:acme:error:${type}`, detail, status });
  return { status, headers: { 'content-type': 'application/problem+json', ...headers }, body };
}

export async function startShim(pebble: Pebble): Promise<AcmeShim> {
  const agent = new Agent({ connect: { ca: pebble.caPem }, allowH2: false });
  const requests: ShimRequest[] = [];
  const server = createServer({ cert: pebble.server.cert, key: pebble.server.key }, (incoming, reply) => {
    void answer(incoming, reply).catch((error) => reply.destroy(error));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const base = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;

  async function answer(incoming: IncomingMessage, reply: ServerResponse): Promise<void> {
    const body = await readAll(incoming);
    const asked = describe(incoming, body);
    requests.push(asked);
    const own = await shim.intercept(asked);
    if (own !== undefined) {
      reply.writeHead(own.status, own.headers ?? {}).end(own.body ?? '');
      return;
    }
    const headers: Record<string, string> = { host: incoming.headers.host ?? '' };
    const type = incoming.headers['content-type'];
    if (type !== undefined) headers['content-type'] = type;
    const theirs = await request(`https://${pebble.address}${incoming.url}`, {
      method: asked.method as 'GET',
      headers,
      dispatcher: agent,
      ...(asked.method === 'POST' ? { body } : {}),
    });
    let text = await theirs.body.text();
    if (asked.path === '/dir') text = JSON.stringify(shim.directory(JSON.parse(text), base));
    else text = shim.rewrite(asked, text);
    const { 'content-length': _, 'transfer-encoding': __, connection: ___, ...kept } = theirs.headers;
    reply
      .writeHead(theirs.statusCode, { ...kept, ...shim.reheader(asked) } as Record<string, string>)
      .end(text);
  }

  const shim: AcmeShim = {
    directoryUrl: `${base}/dir`,
    intercept: () => undefined,
    directory: (directory) => directory,
    rewrite: (_, body) => body,
    reheader: () => ({}),
    requests,
    async stop() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      await agent.close();
    },
  };
  return shim;
}

async function readAll(incoming: IncomingMessage): Promise<string> {
  let body = '';
  for await (const chunk of incoming) body += chunk;
  return body;
}

function describe(incoming: IncomingMessage, body: string): ShimRequest {
  const path = incoming.url ?? '';
  const method = incoming.method ?? '';
  if (body === '') return { method, path, payload: undefined, nonce: undefined, jwk: undefined };
  const jws = JSON.parse(body) as { protected: string; payload: string };
  const decode = (part: string) => JSON.parse(Buffer.from(part, 'base64url').toString());
  return {
    method,
    path,
    payload: jws.payload === '' ? undefined : decode(jws.payload),
    nonce: decode(jws.protected).nonce,
    jwk: decode(jws.protected).jwk,
  };
}
