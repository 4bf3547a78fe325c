// A double of S3 over a real socket: signatures, tags and conditions as Amazon documents them, able to misbehave.

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { buffer } from 'node:stream/consumers';
import { readSignature } from './aws-signature.ts';
import { makeServerCertificate } from './pebble.ts';
import { freePort } from './ports.ts';

export interface S3Misbehaviour {
  /** Before each answer. */
  delayMs?: number;
  /** How many of the next writes are done, and their answers lost. */
  losesAnswers?: number;
  /** Statuses that the next requests get in place of being carried out. */
  refuses?: number[];
  /** How many of the next writes are carried out, and answered with 503 all the same. */
  doesAndRefuses?: number;
  /** Conditions that it takes no notice of. */
  ignores?: readonly ('if-none-match' | 'if-match')[];
}

export interface S3Double {
  readonly endpoint: string;
  readonly port: number;
  readonly ca: string;
  readonly bucket: string;
  readonly accessKeyId: string;
  readonly secret: string;
  readonly region: string;
  /** By key. */
  readonly objects: ReadonlyMap<string, Buffer>;
  /** Each object that was put, in this order. */
  readonly written: readonly { readonly key: string; readonly body: Buffer }[];
  /** Method and status of each answer. */
  readonly answered: readonly string[];
  misbehave(how: S3Misbehaviour): void;
  /** It stops listening, and keeps what it has. */
  kill(): Promise<void>;
  restart(): Promise<void>;
  stop(): Promise<void>;
}

export async function startS3Double(): Promise<S3Double> {
  const [bucket, accessKeyId, secret, region] = ['state', 'AKTEST', 'secret/of+the test', 'eu-test-1'];
  const tls = await makeServerCertificate();
  const port = await freePort();
  const objects = new Map<string, Buffer>();
  const marks = new Map<string, string>();
  const written: { key: string; body: Buffer }[] = [];
  const answered: string[] = [];
  let how: S3Misbehaviour = {};
  let server: Server;

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await buffer(request);
    await new Promise((resolve) => setTimeout(resolve, how.delayMs ?? 0));
    const refused = how.refuses?.shift();
    const reply = refused === undefined ? carryOut(request, body) : problem(refused, 'SlowDown');
    const writes = request.method !== 'GET' && refused === undefined;
    if (writes && (how.losesAnswers ?? 0) > 0) {
      how.losesAnswers! -= 1;
      answered.push(`${request.method} lost`);
      request.socket.destroy();
      return;
    }
    const given = writes && (how.doesAndRefuses ?? 0) > 0 ? problem(503, 'SlowDown') : reply;
    if (given !== reply) how.doesAndRefuses! -= 1;
    answered.push(`${request.method} ${given.status}`);
    response.writeHead(given.status, given.headers).end(given.body);
  }

  function carryOut({ method, url = '', headers }: IncomingMessage, body: Buffer): Reply {
    const call = { method: method!, path: url, headers: headers as Record<string, string>, body };
    const signature = readSignature(call as never);
    if (signature?.accessKeyId !== accessKeyId || !signature.isBy(secret!))
      return problem(403, 'SignatureDoesNotMatch');
    if (headers['x-amz-content-sha256'] !== createHash('sha256').update(body).digest('hex'))
      return problem(400, 'XAmzContentSHA256Mismatch');
    const [path = '', query] = url.split('?');
    const [, inBucket, ...key] = path.split('/').map(decodeURIComponent);
    if (inBucket !== bucket) return problem(404, 'NoSuchBucket');
    if (query !== undefined) return listed(new URLSearchParams(query));
    return onObject(method!, key.join('/'), headers, body);
  }

  function onObject(method: string, key: string, headers: IncomingMessage['headers'], body: Buffer): Reply {
    const there = objects.get(key);
    const looks = (condition: 'if-none-match' | 'if-match') =>
      how.ignores?.includes(condition) === true ? undefined : headers[condition];
    if (looks('if-none-match') === '*' && there !== undefined) return problem(412, 'PreconditionFailed');
    const expected = looks('if-match');
    if (expected !== undefined && there === undefined) return problem(404, 'NoSuchKey');
    if (expected !== undefined && expected !== tagOf(there!)) return problem(412, 'PreconditionFailed');
    if (method === 'PUT') {
      objects.set(key, body);
      written.push({ key, body });
      marks.set(key, String(headers['x-amz-meta-write'] ?? ''));
      return { status: 200, headers: { etag: tagOf(body) } };
    }
    if (method === 'DELETE') {
      objects.delete(key);
      return { status: 204 };
    }
    return there === undefined
      ? problem(404, 'NoSuchKey')
      : {
          status: 200,
          headers: { etag: tagOf(there), 'x-amz-meta-write': marks.get(key) ?? '' },
          body: there,
        };
  }

  /** Two names a page, so that pages are read on. */
  function listed(query: URLSearchParams): Reply {
    const [prefix, after] = [query.get('prefix') ?? '', query.get('continuation-token') ?? ''];
    const keys = [...objects.keys()]
      .filter((key) => key.startsWith(prefix) && !key.slice(prefix.length).includes('/') && key > after)
      .sort();
    const page = keys.slice(0, 2).map((key) => `<Contents><Key>${escaped(key)}</Key></Contents>`);
    const more = keys.length > 2 ? `<NextContinuationToken>${escaped(keys[1]!)}</NextContinuationToken>` : '';
    return {
      status: 200,
      body: `<?xml version="1.0"?><ListBucketResult>${page.join('')}${more}</ListBucketResult>`,
    };
  }

  async function launch(): Promise<void> {
    server = createSecureServer({ cert: tls.cert, key: tls.key }, (request, response) => {
      handle(request, response).catch(() => response.destroy());
    });
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
  }
  async function kill(): Promise<void> {
    if (!server.listening) return;
    server.close();
    server.closeAllConnections();
    await once(server, 'close');
  }
  await launch();
  return {
    endpoint: `https://127.0.0.1:${port}`,
    port,
    ca: tls.ca,
    bucket: bucket!,
    accessKeyId: accessKeyId!,
    secret: secret!,
    region: region!,
    objects,
    written,
    answered,
    misbehave(next) {
      how = next;
    },
    kill,
    restart: launch,
    stop: kill,
  };
}

interface Reply {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
}

function problem(status: number, code: string): Reply {
  return { status, body: `<?xml version="1.0"?><Error><Code>${code}</Code></Error>` };
}

function tagOf(body: Buffer): string {
  return `"${createHash('md5').update(body).digest('hex')}"`;
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}
