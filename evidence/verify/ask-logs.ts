// Asks the certificate logs themselves for proof that they hold a certificate: RFC 6962 §4, and static-ct-api with tiles.

import { X509Certificate } from 'node:crypto';
import { z } from 'zod';
import { HttpError, type HttpReply, type HttpRequest, httpRequest } from '../../src/lib/fetch.ts';
import { CtError } from './ask-ct.ts';
import { leafHash, pathFromTiles } from './merkle.ts';
import { type Timestamp, timestampsOf } from './sct.ts';
import type { SeenProof, TreeHead } from './seen.ts';

export interface LogSource {
  /** Never rejects, and ends in time. `chain` is DER, the leaf first. */
  prove(chain: readonly Buffer[], signal: AbortSignal): Promise<SeenProof[]>;
}

/** The logs that Chrome knows, with their keys (schema version 3). */
export const DEFAULT_LOG_LIST = 'https://www.gstatic.com/ct/log_list/v3/log_list.json';

const ALL_MS = 20_000;
const REQUEST_MS = 8_000;
const LARGEST_LIST = 4 * 1024 * 1024;
const LARGEST_ANSWER = 64 * 1024;
const MOST_TIMESTAMPS = 4;
const LONGEST_PATH = 64;

const logFields = {
  description: z.string(),
  key: z.base64(),
  log_id: z.base64(),
  state: z.record(z.string(), z.unknown()).optional(),
};
const listSchema = z.object({
  operators: z.array(
    z.object({
      logs: z.array(z.object({ ...logFields, url: z.url() })).default([]),
      tiled_logs: z.array(z.object({ ...logFields, monitoring_url: z.url() })).default([]),
    }),
  ),
});

interface KnownLog {
  readonly name: string;
  /** DER, base64. */
  readonly key: string;
  readonly logId: string;
  /** Ends with a slash. */
  readonly url: string;
  readonly tiled: boolean;
}

export interface LogOptions {
  readonly request?: (request: HttpRequest) => Promise<HttpReply>;
}

export function createLogSource(listUrl: string, { request = httpRequest }: LogOptions = {}): LogSource {
  return {
    async prove([leafDer, issuerDer], outer) {
      if (leafDer === undefined || issuerDer === undefined) return [];
      const leaf = new X509Certificate(leafDer);
      const timestamps = timestampsOf(leaf, new X509Certificate(issuerDer)).slice(0, MOST_TIMESTAMPS);
      if (timestamps.length === 0) return [];
      const signal = AbortSignal.any([outer, AbortSignal.timeout(ALL_MS)]);
      const get = createGet(request, signal);
      try {
        const logs = logsIn(await get(listUrl, LARGEST_LIST));
        return await Promise.all(timestamps.map((timestamp) => proofFor(timestamp, logs, get)));
      } catch (error) {
        const why = `the list of logs: ${signal.aborted ? 'no answer in time' : (error as Error).message}`;
        return timestamps.map(({ logId }) => ({ log: logId, logId, key: '', why }));
      }
    },
  };
}

type Get = (url: string, maxBytes: number) => Promise<Buffer>;

function createGet(request: NonNullable<LogOptions['request']>, signal: AbortSignal): Get {
  return async (url, maxBytes) => {
    try {
      const { status, body } = await request({ url, timeoutMs: REQUEST_MS, maxBytes, signal });
      if (status === 200) return body;
      throw new CtError('unreachable', `HTTP status ${status}`);
    } catch (cause) {
      if (!(cause instanceof HttpError)) throw cause;
      throw new CtError('unreachable', cause.message, { cause });
    }
  };
}

/** Those that are not known to have failed. */
function logsIn(body: Buffer): KnownLog[] {
  const { operators } = understood(listSchema, body);
  return operators.flatMap(({ logs, tiled_logs }) => [
    ...logs.filter(isInForce).map((log) => known(log, log.url, false)),
    ...tiled_logs.filter(isInForce).map((log) => known(log, log.monitoring_url, true)),
  ]);
}

function isInForce({ state = {} }: { state?: Readonly<Record<string, unknown>> | undefined }): boolean {
  return !('rejected' in state || 'pending' in state);
}

function known(
  { description, key, log_id }: { description: string; key: string; log_id: string },
  url: string,
  tiled: boolean,
): KnownLog {
  const logId = Buffer.from(log_id, 'base64').toString('hex');
  return { name: description, key, logId, url: url.replace(/\/*$/, '/'), tiled };
}

async function proofFor(timestamp: Timestamp, logs: readonly KnownLog[], get: Get): Promise<SeenProof> {
  const { logId } = timestamp;
  const log = logs.find((one) => one.logId === logId);
  if (log === undefined) return { log: logId, logId, key: '', why: 'it is not in the list of logs' };
  const about = { log: log.name, logId, key: log.key };
  try {
    const found = log.tiled ? await fromTiles(timestamp, log, get) : await fromAnswers(timestamp, log, get);
    return { ...about, ...found };
  } catch (error) {
    if (!(error instanceof CtError)) throw error;
    return { ...about, why: error.message };
  }
}

interface Found {
  readonly index: number;
  readonly head: TreeHead;
  readonly path: readonly string[];
}

async function fromTiles({ index }: Timestamp, { url, logId }: KnownLog, get: Get): Promise<Found> {
  if (index === undefined)
    throw new CtError('unintelligible', 'its timestamp does not say where the entry is');
  const head = checkpointIn(await get(`${url}checkpoint`, LARGEST_ANSWER), logId);
  if (index >= head.size) throw new CtError('unreachable', 'its tree does not reach to the entry yet');
  const path = await pathFromTiles(index, head.size, async (tile, bytes) => {
    const body = await get(`${url}${tile}`, LARGEST_ANSWER).catch((error: unknown) => {
      // Where it has filled up, the part of it need not be there any more.
      if (!tile.includes('.p/')) throw error;
      return get(`${url}${tile.replace(/\.p\/\d+$/, '')}`, LARGEST_ANSWER);
    });
    if (body.length < bytes) throw new CtError('unintelligible', `${tile} is too short`);
    return body;
  });
  return { index, head, path: path.map((node) => node.toString('hex')) };
}

const SIGNATURE_LINE = /^\u2014 (\S+) ([A-Za-z0-9+/]+=*)$/;

/** Origin, size and root, a line each; after an empty line the signatures: four bytes that name a key, then it. */
function checkpointIn(body: Buffer, logId: string): TreeHead {
  const [text = '', signatures = ''] = body.toString('utf8').split('\n\n');
  const [, size = '', root = '', ...more] = text.split('\n');
  const signed = signatures.split('\n').flatMap((line) => {
    const [, name, base64] = SIGNATURE_LINE.exec(line) ?? [];
    if (name === undefined || base64 === undefined) return [];
    const bytes = Buffer.from(base64, 'base64');
    return bytes.length > 12 ? [bytes.subarray(4)] : [];
  });
  if (!/^\d{1,15}$/.test(size) || more.length > 0 || signed.length === 0 || !isHash(root))
    throw new CtError('unintelligible', `what log ${logId} sends is no checkpoint`);
  // Witnesses sign as well, in other ways: the log's own is the one that verifies.
  return {
    size: Number(size),
    root: Buffer.from(root, 'base64').toString('hex'),
    signatures: signed.slice(0, 32).map((bytes) => ({
      time: bytes.subarray(0, 8).toString('hex'),
      signature: bytes.subarray(8).toString('hex'),
    })),
  };
}

function isHash(base64: string): boolean {
  return Buffer.from(base64, 'base64').length === 32;
}

const hash = z.base64().refine(isHash, 'must be 32 bytes');
const count = z.int().min(0);
const headSchema = z.object({
  tree_size: count,
  timestamp: count,
  sha256_root_hash: hash,
  tree_head_signature: z.base64(),
});
const proofSchema = z.object({ leaf_index: count, audit_path: z.array(hash).max(LONGEST_PATH) });

async function fromAnswers({ entry }: Timestamp, { url }: KnownLog, get: Get): Promise<Found> {
  const sth = understood(headSchema, await get(`${url}ct/v1/get-sth`, LARGEST_ANSWER));
  const query = new URLSearchParams({
    hash: leafHash(entry).toString('base64'),
    tree_size: String(sth.tree_size),
  });
  const proof = understood(proofSchema, await get(`${url}ct/v1/get-proof-by-hash?${query}`, LARGEST_ANSWER));
  const time = Buffer.alloc(8);
  time.writeBigUInt64BE(BigInt(sth.timestamp));
  return {
    index: proof.leaf_index,
    head: {
      size: sth.tree_size,
      root: hexOf(sth.sha256_root_hash),
      signatures: [{ time: time.toString('hex'), signature: hexOf(sth.tree_head_signature) }],
    },
    path: proof.audit_path.map(hexOf),
  };
}

function hexOf(base64: string): string {
  return Buffer.from(base64, 'base64').toString('hex');
}

function understood<T extends z.ZodType>(schema: T, body: Buffer): z.output<T> {
  try {
    return schema.parse(JSON.parse(body.toString('utf8')));
  } catch (cause) {
    throw new CtError('unintelligible', 'what it sends is not understood', { cause });
  }
}
