// How much is let through: requests in a time, requests at once, bytes of a body and of a head.

import { isMap, isScalar, isSeq, type Node } from 'yaml';
import type { Policy, Template } from '../../../proxy/rules/model.ts';
import { quote } from '../../config/values.ts';
import { isOff, readFields, readInteger, readList, readString } from './fields.ts';
import { keys } from './keys.ts';
import { knowsClients, type Reading } from './reading.ts';

const TOO_MANY_REQUESTS = 429;
const MOST_LIMITS = 10;

/** One limit or several; each counts for itself. */
export function readRateLimit(node: Node, reading: Reading): Policy {
  if (isOff(node)) return { requestLimits: [] };
  const items = isSeq(node) ? readList(node, '"rate_limit"', MOST_LIMITS, reading.mistakes) : [node];
  return {
    requestLimits: items.flatMap((item) => readOneRate(item, reading) ?? []),
    requestLimitStatus: TOO_MANY_REQUESTS,
  };
}

function readOneRate(node: Node, reading: Reading) {
  const { mistakes, shared } = reading;
  const fields = isMap(node) ? readFields(node, keys.rateLimit, '"rate_limit"', mistakes) : undefined;
  if (isMap(node) && fields === undefined) return undefined;
  const rateNode =
    fields === undefined
      ? node
      : fields.require('rate', '"rate_limit" has no "rate"', 'wants one, as in 10/s');
  const rate = rateNode && readRate(rateNode, reading);
  const burst = readInteger(fields?.find('burst'), '"burst"', [0, 1_000_000], mistakes);
  const key = readKey(fields?.find('by'), node, '"rate_limit"', reading);
  if (rate === undefined || key === undefined) return undefined;
  const name = `rate ${mistakes.originOf(node)}`;
  shared.requestZones.push({
    name,
    origin: mistakes.originOf(node),
    key,
    perThousandSeconds: rate.perThousandSeconds,
  });
  // The first requests of a time may come together: who stays below the rate is never refused.
  const most = burst ?? rate.count - 1;
  return { zone: name, burst: most, delay: most };
}

const SECONDS = { s: 1, m: 60, h: 3600 } as const;

function readRate(node: Node, { mistakes }: Reading) {
  const text = readString(node, '"rate"', '10/s', mistakes);
  if (text === undefined) return undefined;
  const [, digits = '', unit] = /^([1-9]\d{0,6})\/(s|m|h)$/.exec(text) ?? [];
  if (unit === undefined) {
    mistakes.at(
      node,
      `${quote(text)} is not a rate`,
      'wants requests and a time, as in 10/s, 100/m or 1000/h',
    );
    return undefined;
  }
  const count = Number(digits);
  const perThousandSeconds = Math.floor((count * 1000) / SECONDS[unit as keyof typeof SECONDS]);
  if (perThousandSeconds >= 1) return { count, perThousandSeconds };
  mistakes.at(node, `${quote(text)} is less than can be counted`, 'wants 4/h at least');
  return undefined;
}

/** A number alone counts by address. */
export function readConcurrency(node: Node, reading: Reading): Policy {
  if (isOff(node)) return { connectionLimits: [] };
  const { mistakes, shared } = reading;
  const fields = isMap(node) ? readFields(node, keys.concurrency, '"concurrency"', mistakes) : undefined;
  if (isMap(node) && fields === undefined) return {};
  const limitNode =
    fields === undefined
      ? node
      : fields.require('limit', '"concurrency" has no "limit"', 'wants how many requests at once');
  const max = readInteger(limitNode, '"concurrency"', [1, 1_000_000], mistakes);
  const key = readKey(fields?.find('by'), node, '"concurrency"', reading);
  if (max === undefined || key === undefined) return {};
  const origin = mistakes.originOf(node);
  shared.connectionZones.push({ name: `at once ${origin}`, origin, key });
  return {
    connectionLimits: [{ zone: `at once ${origin}`, max }],
    connectionLimitStatus: TOO_MANY_REQUESTS,
  };
}

/** A request without that header or cookie is not counted. */
function readKey(by: Node | undefined, node: Node, subject: string, reading: Reading): Template | undefined {
  const { mistakes } = reading;
  if (by === undefined || (isScalar(by) && by.value === 'address'))
    return knowsClients(by ?? node, subject, reading) ? [{ name: 'remote_addr' }] : undefined;
  if (isScalar(by) && by.value === 'all') return ['all'];
  const fields = isMap(by) ? readFields(by, keys.by, '"by"', mistakes) : undefined;
  const [header, cookie] = [fields?.find('header'), fields?.find('cookie')];
  if ((header === undefined) === (cookie === undefined)) {
    if (fields !== undefined || !isMap(by)) {
      mistakes.at(
        by,
        '"by" does not say what is counted',
        'wants address, all, { header: X-Api-Key } or { cookie: session }',
      );
    }
    return undefined;
  }
  const name = readString((header ?? cookie)!, header ? '"header"' : '"cookie"', 'session', mistakes);
  if (name === undefined) return undefined;
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(name)) {
    mistakes.at(header ?? cookie, `${quote(name)} cannot be counted by`, 'wants letters, digits, - and _');
    return undefined;
  }
  const lower = name.toLowerCase();
  return [{ name: header === undefined ? `cookie_${lower}` : `http_${lower.replaceAll('-', '_')}` }];
}
