// The access log: whether it is written, in which form, and what of requests it shows.

import {
  type AccessLogOptions,
  accessLogFormats,
  plainAccessLog,
} from '../../proxy/exchange/access-entry.ts';
import type { Environment } from './environment.ts';
import {
  parseChoice,
  parseDuration,
  parseFraction,
  parseSwitch,
  quote,
  splitWords,
  ValueError,
} from './values.ts';

/** Undefined: none is written. */
export function readAccessLog(environment: Environment): AccessLogOptions | undefined {
  const on = environment.read('ACCESS_LOG', parseSwitch) ?? false;
  const options = {
    format:
      environment.read('ACCESS_LOG_FORMAT', (text) => parseChoice(text, accessLogFormats)) ??
      plainAccessLog.format,
    query: environment.read('ACCESS_LOG_QUERY', parseSwitch) ?? plainAccessLog.query,
    headers: environment.read('ACCESS_LOG_HEADERS', parseNames) ?? [],
    redact: environment.read('ACCESS_LOG_REDACT', parseNames) ?? [],
    sample: environment.read('ACCESS_LOG_SAMPLE', parseFraction) ?? plainAccessLog.sample,
    slowMs: environment.read('ACCESS_LOG_SLOW', parseDuration) ?? plainAccessLog.slowMs,
  };
  if (on) return options;
  for (const name of DEPENDENT)
    if (environment.has(name)) environment.warn(name, 'does nothing: ACCESS_LOG is off');
  return undefined;
}

const DEPENDENT = [
  'ACCESS_LOG_FORMAT',
  'ACCESS_LOG_QUERY',
  'ACCESS_LOG_HEADERS',
  'ACCESS_LOG_REDACT',
  'ACCESS_LOG_SAMPLE',
  'ACCESS_LOG_SLOW',
];

const MOST_NAMES = 20;

/** RFC 9110 §5.6.2, in lower case. */
function parseNames(text: string): string[] {
  const names = splitWords(text).map((word) => word.toLowerCase());
  const odd = names.find((name) => !/^[!#$%&'*+.^_`|~0-9a-z-]{1,100}$/.test(name));
  if (odd !== undefined)
    throw new ValueError(`${quote(odd)} is not a name`, 'wants names as in referer,x-tenant');
  if (names.length > MOST_NAMES) throw new ValueError(`names ${names.length}`, `wants ${MOST_NAMES} at most`);
  return names;
}
