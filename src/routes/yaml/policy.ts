// What a level says beyond its content: the file's defaults, a route, a path; each key with its own reader.

import { isSeq, type Node } from 'yaml';
import type { Policy, RetryCause } from '../../../proxy/rules/model.ts';
import { quote } from '../../config/values.ts';
import { readAddressPolicy, readBasicAuth, readForwardAuth } from './access.ts';
import {
  type Fields,
  isOff,
  MOST_ITEMS,
  readBoolean,
  readDuration,
  readFields,
  readInteger,
  readList,
  readSize,
  readText,
} from './fields.ts';
import { readHeaderPolicy } from './headers.ts';
import { keys } from './keys.ts';
import { readConcurrency, readRateLimit } from './limits.ts';
import { readErrorPages } from './pages.ts';
import type { Reading } from './reading.ts';
import { readCompress, readCors } from './replies.ts';
import { readUpstreamTls } from './tls.ts';

const readers: Readonly<Record<string, (node: Node, reading: Reading) => Policy>> = {
  cors: readCors,
  compress: readCompress,
  basic_auth: readBasicAuth,
  forward_auth: readForwardAuth,
  rate_limit: readRateLimit,
  concurrency: readConcurrency,
  body_limit: readBodyLimit,
  header_limit: readHeaderLimit,
  retry: readRetry,
  upstream_tls: readUpstreamTls,
  error_pages: readErrorPages,
};

/** `outer`: what holds around the level, all of it. */
export function readPolicy(fields: Fields, outer: Policy, reading: Reading): Policy {
  let policy: Policy = {
    ...readHeaderPolicy(fields, outer, reading),
    ...readAddressPolicy(fields, outer, reading),
  };
  for (const [key, read] of Object.entries(readers)) {
    const node = fields.find(key);
    if (node !== undefined) policy = { ...policy, ...read(node, reading) };
  }
  return policy;
}

/** false: none. */
function readBodyLimit(node: Node, { mistakes }: Reading): Policy {
  if (isOff(node)) return { maxBodyBytes: 0 };
  const maxBodyBytes = readSize(node, '"body_limit"', mistakes);
  if (maxBodyBytes === 0) mistakes.at(node, '"body_limit" is 0', 'wants false for no limit');
  return maxBodyBytes === undefined ? {} : { maxBodyBytes };
}

function readHeaderLimit(node: Node, { mistakes }: Reading): Policy {
  const maxHeaderBytes = readSize(node, '"header_limit"', mistakes);
  if (maxHeaderBytes === undefined) return {};
  if (maxHeaderBytes < 256)
    mistakes.at(node, '"header_limit" is too small for any request', 'wants 256 at least');
  return { maxHeaderBytes };
}

const CAUSES: Readonly<Record<string, RetryCause>> = {
  error: 'error',
  timeout: 'timeout',
  invalid: 'invalid-reply',
};

function readRetry(node: Node, reading: Reading): Policy {
  if (isOff(node)) return { retry: { on: [] } };
  const { mistakes } = reading;
  const fields = readFields(node, keys.retry, '"retry"', mistakes);
  if (fields === undefined) return {};
  const onNode = fields.find('on');
  const tries = readInteger(fields.find('tries'), '"tries"', [1, 100], mistakes);
  const timeoutMs = fields.find('timeout') && readDuration(fields, 'timeout', 0, mistakes);
  const nonIdempotent = readBoolean(fields, 'non_idempotent', mistakes);
  return {
    retry: {
      on: onNode === undefined ? ['error', 'timeout'] : readCauses(onNode, reading),
      ...(tries !== undefined && { tries, sameServers: true }),
      ...(timeoutMs !== undefined && { timeoutMs }),
      ...(nonIdempotent !== undefined && { nonIdempotent }),
    },
  };
}

function readCauses(node: Node, { mistakes }: Reading): RetryCause[] {
  const items = isSeq(node) ? readList(node, '"on"', MOST_ITEMS, mistakes) : [node];
  return items.flatMap((item): RetryCause[] => {
    const text = readText(item, '"on"', 'error', mistakes);
    if (text === undefined) return [];
    if (Object.hasOwn(CAUSES, text)) return [CAUSES[text]!];
    if (/^(403|404|429|5\d\d)$/.test(text)) return [Number(text)];
    mistakes.at(
      item,
      `${quote(text)} is nothing to try again on`,
      'wants error, timeout, invalid, 403, 404, 429 or a status from 500 on',
    );
    return [];
  });
}
