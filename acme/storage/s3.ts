// Records as objects of S3 or what speaks like it: written only if the object's tag is the expected one.

import { createHash, randomBytes } from 'node:crypto';
import { AwsV4Signer } from 'aws4fetch';
import * as z from 'zod';
import { elementsNamed, parseXml } from '../../dns/providers/xml.ts';
import { type Clock, monotonicMs, systemClock } from '../../src/lib/clock.ts';
import { type HttpReply, httpRequest } from '../../src/lib/fetch.ts';
import { silentLog } from '../../src/lib/log.ts';
import { type Engine, StorageError, type Stored } from '../storage.ts';
import { bounded } from './bounded.ts';
import { createLeases, type LeaseVerbs, refuseIfLost } from './leases.ts';
import type { ServerOptions } from './server-options.ts';

export interface S3Options extends ServerOptions {
  /** Of the service, as in https://s3.eu-central-1.amazonaws.com. The bucket's name becomes part of the path. */
  readonly endpoint: string;
  readonly region: string;
  readonly bucket: string;
  /** Without a slash at either end; may be empty. */
  readonly prefix: string;
  readonly accessKeyId: string;
}

/** The pauses before a request is sent again that the service was too busy for, or that met another for the same object. */
const PAUSES_MS = [50, 150, 400];

/** Which write an object comes of. */
const MARK = 'x-amz-meta-write';

type Send = (request: Request, signal?: AbortSignal) => Promise<HttpReply>;

interface Request {
  readonly method: 'GET' | 'PUT' | 'DELETE';
  /** Of the object, or a query of the bucket that begins with `?`. */
  readonly object: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer;
}

export function createS3(options: S3Options): Engine {
  const { bucket, prefix, namespace, timeoutMs = 10_000, clock = systemClock, log = silentLog } = options;
  const where = `${new URL(options.endpoint).host}/${bucket}`;
  const folder = [prefix, namespace].filter((part) => part !== '').join('/');
  const place = (name: string) => `s3 ${where}/${folder}/${name}`;
  const bounds = { timeoutMs, where: `s3 ${where}`, secrets: [options.password ?? ''] };
  const send: Send = (request, signal) =>
    bounded(bounds, signal, (within) => untilItIsNotBusy(options, request, within, clock));
  const objects = createObjects(folder, send, bounds.where);
  const { ttlMs = 30_000, pollMs = 3_000 } = options.lease ?? {};
  return {
    place,
    read: (name, { signal } = {}) => objects.get(name, signal),
    async create(name, bytes, { signal, lease } = {}) {
      refuseIfLost(lease);
      return objects.put(name, bytes, { 'if-none-match': '*' }, signal);
    },
    async replace(name, bytes, version, { signal, lease } = {}) {
      refuseIfLost(lease);
      return objects.put(name, bytes, { 'if-match': version }, signal);
    },
    async remove(name, version, { signal, lease } = {}) {
      refuseIfLost(lease);
      return objects.remove(name, version, signal);
    },
    list: (of, { signal } = {}) => listOf(`${folder}/${of}/`, { send, where: bounds.where, signal }),
    lease: createLeases({ verbs: leaseVerbs(objects, clock), ttlMs, pollMs, place, clock, log }),
    // Nobody tells of a change.
    watch: () => () => {},
    async setAside(name, why) {
      throw new StorageError('unreadable', `${place(name)}: ${why.message}`);
    },
    // What it needs to keep is what every storage is proven to.
    prove: async () => [],
    close: async () => {},
  };
}

async function untilItIsNotBusy(
  options: S3Options,
  request: Request,
  signal: AbortSignal,
  clock: Clock,
): Promise<HttpReply> {
  for (let attempt = 0; ; attempt += 1) {
    const reply = await sendOnce(options, request, signal);
    const pauseMs = PAUSES_MS[attempt];
    // 409: another conditional write to this object was under way, and neither is known to have won.
    if (![409, 429, 500, 502, 503, 504].includes(reply.status) || pauseMs === undefined) return reply;
    await clock.sleep(pauseMs * (0.5 + Math.random()), signal);
  }
}

async function sendOnce(options: S3Options, request: Request, signal: AbortSignal): Promise<HttpReply> {
  const { endpoint, region, bucket, accessKeyId, password = '', ca } = options;
  const { method, object, headers = {}, body } = request;
  const path = object.startsWith('?') ? object : `/${object.split('/').map(encodeURIComponent).join('/')}`;
  const signer = new AwsV4Signer({
    method,
    url: `${endpoint.replace(/\/$/, '')}/${bucket}${path}`,
    headers: { ...headers, 'x-amz-content-sha256': sha256(body ?? Buffer.alloc(0)) },
    ...(body !== undefined && { body: new Uint8Array(body) }),
    accessKeyId,
    secretAccessKey: password,
    service: 's3',
    region,
  });
  const signed = await signer.sign();
  return httpRequest({
    method,
    url: signed.url.href,
    headers: Object.fromEntries([...signed.headers].filter(([name]) => name !== 'host')),
    ...(body !== undefined && { body }),
    signal,
    ...(ca !== undefined && { ca }),
  });
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

interface Objects {
  get(name: string, signal?: AbortSignal): Promise<Stored | undefined>;
  /** Resolves to the object's new tag, or to undefined if the condition did not hold. */
  put(
    name: string,
    bytes: Uint8Array,
    condition: Readonly<Record<string, string>>,
    signal?: AbortSignal,
  ): Promise<string | undefined>;
  remove(name: string, version: string, signal?: AbortSignal): Promise<boolean>;
}

function createObjects(folder: string, send: Send, where: string): Objects {
  const at = (name: string) => `${folder}/${name}`;

  async function get(name: string, signal?: AbortSignal): Promise<Stored | undefined> {
    const reply = await send({ method: 'GET', object: at(name) }, signal);
    if (reply.status === 404 && codeOf(reply) !== 'NoSuchBucket') return undefined;
    return { bytes: accepted(reply, where).body, version: tagOf(reply) };
  }

  return {
    get,
    async put(name, bytes, condition, signal) {
      const body = Buffer.from(bytes);
      // Kept with the object: the first of several attempts may have succeeded, and its answer been lost.
      const mark = randomBytes(12).toString('hex');
      const headers = { ...condition, [MARK]: mark };
      const reply = await send({ method: 'PUT', object: at(name), headers, body }, signal);
      // 404: there is nothing that a tag could be of.
      if (reply.status === 412 || (reply.status === 404 && codeOf(reply) !== 'NoSuchBucket'))
        return tagIfMarked(await send({ method: 'GET', object: at(name) }, signal), mark);
      return tagOf(accepted(reply, where));
    },
    async remove(name, version, signal) {
      if ((await get(name, signal))?.version !== version) return false;
      // Few services look at the condition of a DELETE: what decides anything is replaced, and never removed.
      const headers = { 'if-match': version };
      const reply = await send({ method: 'DELETE', object: at(name), headers }, signal);
      if (reply.status === 412) return false;
      accepted(reply, where);
      return true;
    },
  };
}

function tagIfMarked(reply: HttpReply, mark: string): string | undefined {
  return reply.status === 200 && reply.headers[MARK] === mark ? tagOf(reply) : undefined;
}

function tagOf({ headers: { etag } }: HttpReply): string {
  if (etag === undefined || etag === '') throw new StorageError('unfit', 'the service gives objects no ETag');
  return etag;
}

function accepted(reply: HttpReply, where: string): HttpReply {
  if (reply.status >= 200 && reply.status < 300) return reply;
  const code = codeOf(reply);
  const words = code === undefined ? '' : ` ${code}`;
  throw new StorageError('unavailable', `${where} answered ${reply.status}${words}`);
}

/** In the body of a refusal; of the service's own words, bounded. */
function codeOf({ body }: HttpReply): string | undefined {
  return /<Code>([A-Za-z0-9]{1,60})<\/Code>/.exec(body.subarray(0, 4096).toString('utf8'))?.[1];
}

async function listOf(
  prefix: string,
  { send, where, signal }: { send: Send; where: string; signal: AbortSignal | undefined },
): Promise<string[]> {
  const names: string[] = [];
  for (let token: string | undefined = ''; token !== undefined; ) {
    const query = new URLSearchParams({ 'list-type': '2', prefix, delimiter: '/' });
    if (token !== '') query.set('continuation-token', token);
    const reply = accepted(await send({ method: 'GET', object: `?${query}` }, signal), where);
    const page = parseXml(reply.body.toString('utf8'));
    if (page === undefined) throw new StorageError('unavailable', 'the list of objects is not XML');
    names.push(...elementsNamed(page, 'Key').map(({ text }) => text.slice(prefix.length)));
    token = elementsNamed(page, 'NextContinuationToken')[0]?.text;
  }
  return names;
}

const LeaseSchema = z.object({ token: z.string() });

/**
 * There is no clock that all share: a lease is taken over when its object has not changed for its time, as measured here.
 * An empty token: it was given back.
 */
function leaseVerbs(objects: Objects, clock: Clock): LeaseVerbs {
  const watched = new Map<string, { version: string; since: number }>();
  /** Our own, by name. */
  const held = new Map<string, string>();
  const bodyOf = (token: string) =>
    // Another body each time, or the tag would not change.
    Buffer.from(JSON.stringify({ token, beat: randomBytes(9).toString('hex') }));

  function isStale(name: string, version: string, ttlMs: number): boolean {
    const now = monotonicMs(clock);
    const before = watched.get(name);
    if (before?.version === version) return now - before.since >= ttlMs;
    watched.set(name, { version, since: now });
    return false;
  }

  async function put(name: string, token: string, over: string | undefined): Promise<boolean> {
    const condition: Record<string, string> =
      over === undefined ? { 'if-none-match': '*' } : { 'if-match': over };
    const version = await objects.put(name, bodyOf(token), condition);
    if (version !== undefined) held.set(name, version);
    return version !== undefined;
  }

  return {
    async take(name, token, ttlMs) {
      const there = await objects.get(name);
      if (there === undefined) return put(name, token, undefined);
      const holder = holderOf(there);
      const free = holder === '' || holder === token || isStale(name, there.version, ttlMs);
      return free && put(name, token, there.version);
    },
    async renew(name, token) {
      if (await put(name, token, held.get(name))) return true;
      // An earlier beat may have arrived without our learning of it.
      const there = await objects.get(name);
      return there !== undefined && holderOf(there) === token && put(name, token, there.version);
    },
    async release(name) {
      const ours = held.get(name);
      held.delete(name);
      if (ours !== undefined) await objects.put(name, bodyOf(''), { 'if-match': ours });
    },
  };
}

/** What cannot be understood is judged by its age alone. */
function holderOf({ bytes }: Stored): string | undefined {
  try {
    return LeaseSchema.parse(JSON.parse(bytes.toString('utf8'))).token;
  } catch {
    return undefined;
  }
}
