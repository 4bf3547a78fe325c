// The access log: whether it is written, in which form, and what of requests it shows.

import { resolve } from 'node:path';
import {
  type AccessLogOptions,
  accessLogFormats,
  plainAccessLog,
} from '../../proxy/exchange/access-entry.ts';
import type { Environment } from './environment.ts';
import { parsePath } from './files.ts';
import {
  parseChoice,
  parseDuration,
  parseFraction,
  parseSwitch,
  quote,
  splitWords,
  ValueError,
} from './values.ts';

export interface AccessLogConfig extends AccessLogOptions {
  readonly toStdout: boolean;
  /** Absolute. Undefined: to no file. */
  readonly file: string | undefined;
}

/** `traced`: requests are recorded as spans, which show of queries what the log would. Undefined: none is written. */
export function readAccessLog(environment: Environment, traced: boolean): AccessLogConfig | undefined {
  const toStdout = environment.read('ACCESS_LOG', parseSwitch) ?? false;
  const path = environment.read('ACCESS_LOG_FILE', parsePath);
  const options = {
    format:
      environment.read('ACCESS_LOG_FORMAT', (text) => parseChoice(text, accessLogFormats)) ??
      plainAccessLog.format,
    ...readShownQueries(environment),
    headers: environment.read('ACCESS_LOG_HEADERS', parseNames) ?? [],
    sample: environment.read('ACCESS_LOG_SAMPLE', parseFraction) ?? plainAccessLog.sample,
    slowMs: environment.read('ACCESS_LOG_SLOW', parseDuration) ?? plainAccessLog.slowMs,
  };
  const file = path && resolve(path);
  if (toStdout || file !== undefined) return { ...options, toStdout, file };
  for (const name of traced ? DEPENDENT : [...DEPENDENT, ...OF_QUERIES])
    if (environment.has(name)) environment.warn(name, 'does nothing: there is no access log');
  return undefined;
}

/** Whether queries are shown, and of which parameters the values are not. */
export function readShownQueries(environment: Environment): Pick<AccessLogOptions, 'query' | 'redact'> {
  return {
    query: environment.read('ACCESS_LOG_QUERY', parseSwitch) ?? plainAccessLog.query,
    redact: environment.read('ACCESS_LOG_REDACT', parseNames) ?? [],
  };
}

const DEPENDENT = ['ACCESS_LOG_FORMAT', 'ACCESS_LOG_HEADERS', 'ACCESS_LOG_SAMPLE', 'ACCESS_LOG_SLOW'];
const OF_QUERIES = ['ACCESS_LOG_QUERY', 'ACCESS_LOG_REDACT'];

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
