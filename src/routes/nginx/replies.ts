// What replies get: fields, expiry, compression, error pages, absolute redirects, and whether they are logged.

import { parseExpires } from '../../../proxy/rules/expires.ts';
import type { Compress, ErrorPage, Policy, ViaProxies } from '../../../proxy/rules/model.ts';
import { quote } from '../../config/values.ts';
import type { Directive } from './blocks.ts';
import { isFieldName } from './forwarding.ts';
import type { Word } from './lexer.ts';
import { given, type Level, originOf, type Reading } from './reading.ts';
import { readCount, readSize } from './values.ts';

/** All of it that holds at a level: one word of the family changes the whole. */
export interface Gzip {
  readonly on: boolean;
  readonly types: readonly string[];
  readonly minBytes: number;
  readonly level: number;
  readonly vary: boolean;
  readonly viaProxies: NonNullable<Compress['viaProxies']>;
  readonly http10: boolean;
}

export const gzipByDefault: Gzip = {
  on: false,
  types: ['text/html'],
  minBytes: 20,
  level: 1,
  vary: false,
  viaProxies: false,
  http10: false,
};

export function readReplies(
  level: Level,
  outer: Gzip,
  formats: ReadonlySet<string>,
  reading: Reading,
): { readonly own: Policy; readonly gzip: Gzip } {
  const gzip = readGzip(level, outer, reading);
  const own = given<Policy>({
    addHeaders: readAddHeaders(level, reading),
    expires: readExpires(level, reading),
    compress: gzip === outer ? undefined : compressOf(gzip),
    errorPages: readErrorPages(level, reading),
    recursiveErrorPages: level.isOn('recursive_error_pages'),
    accessLog: readAccessLog(level, formats, reading),
    absoluteRedirect: level.isOn('absolute_redirect'),
    portInRedirect: level.isOn('port_in_redirect'),
    serverNameInRedirect: level.isOn('server_name_in_redirect'),
  });
  return { own, gzip };
}

function readAddHeaders(level: Level, reading: Reading): Policy['addHeaders'] {
  const directives = level.all('add_header');
  if (directives.length === 0) return undefined;
  return directives.flatMap((directive) => {
    const [name, value, last] = directive.args as [Word, Word, Word?];
    if (last !== undefined && last.text !== 'always')
      reading.refuse(
        last,
        `${quote(last.text)} is no parameter of add_header`,
        'wants always, or quotes around the value',
      );
    const template = reading.template(value);
    if (!isFieldName(name, reading)) return [];
    const always = last?.text === 'always' ? { always: true } : {};
    return [{ name: name.text, value: template, ...always, origin: originOf(directive) }];
  });
}

function readExpires(level: Level, reading: Reading): Policy['expires'] {
  const directive = level.one('expires');
  if (directive === undefined) return undefined;
  const [first, second] = directive.args as [Word, Word?];
  if (second !== undefined && first.text !== 'modified')
    return reading.refuse(
      first,
      `${quote(first.text)} is no parameter of expires`,
      'wants modified and a time',
    );
  const time = second ?? first;
  const value = reading.template(time);
  if (!time.text.includes('$') && parseExpires(time.text) === undefined)
    return reading.refuse(
      time,
      `${quote(time.text)} is not a time`,
      'wants one as in 30d, -1, epoch, max, off or @15h30m',
    );
  return { value, ...(second !== undefined && { modified: true }) };
}

function readGzip(level: Level, outer: Gzip, reading: Reading): Gzip {
  const types = level.all('gzip_types').flatMap(({ args }) => args.map(({ text }) => text.toLowerCase()));
  const proxied = level.all('gzip_proxied').flatMap(({ args }) => args);
  const least = level.value('gzip_min_length');
  const strength = level.value('gzip_comp_level');
  const minBytes = least && readSize(least.text);
  if (least !== undefined && minBytes === undefined)
    reading.refuse(least, `${quote(least.text)} is not a size`, 'wants a whole number of bytes');
  const count = strength && readCount(strength.text, 9);
  if (strength !== undefined && (count === undefined || count === 0))
    reading.refuse(strength, `${quote(strength.text)} is not a level`, 'wants 1 to 9');
  for (const word of proxied)
    if (!PROXIED.has(word.text))
      reading.refuse(
        word,
        `${quote(word.text)} is no parameter of gzip_proxied`,
        `wants some of ${[...PROXIED].join(', ')}`,
      );
  const own = given<Partial<Gzip>>({
    on: level.isOn('gzip'),
    types:
      types.length === 0 ? undefined : types.includes('*') ? ['*'] : [...new Set(['text/html', ...types])],
    minBytes,
    level: count,
    vary: level.isOn('gzip_vary'),
    viaProxies: proxied.length === 0 ? undefined : viaProxiesOf(proxied.map(({ text }) => text)),
    http10: level.value('gzip_http_version') && level.value('gzip_http_version')!.text === '1.0',
  });
  return Object.keys(own).length === 0 ? outer : { ...outer, ...own };
}

function viaProxiesOf(words: readonly string[]): Gzip['viaProxies'] {
  if (words.includes('off')) return false;
  return words.includes('any') ? true : (words as readonly ViaProxies[]);
}

const PROXIED = new Set([
  'off',
  'expired',
  'no-cache',
  'no-store',
  'private',
  'no_last_modified',
  'no_etag',
  'auth',
  'any',
]);

function compressOf({ on, ...how }: Gzip): Compress | false {
  return on && { encodings: ['gzip'], ...how, statuses: [200, 403, 404] };
}

function readErrorPages(level: Level, reading: Reading): ErrorPage[] | undefined {
  const directives = level.all('error_page');
  if (directives.length === 0) return undefined;
  return directives.flatMap((directive) => readErrorPage(directive, reading) ?? []);
}

function readErrorPage(directive: Directive, reading: Reading): ErrorPage | undefined {
  const codes = directive.args.slice(0, -1);
  const target = directive.args.at(-1)!;
  const over = codes.at(-1)!.text.startsWith('=') ? codes.pop()! : undefined;
  const statuses = codes.flatMap((word) => {
    const status = readCount(word.text, 599);
    if (status !== undefined && status >= 300 && status !== 499) return [status];
    reading.refuse(
      word,
      `${quote(word.text)} is not a status that a page can be for`,
      'wants 300 to 599, but for 499',
    );
    return [];
  });
  if (codes.length === 0)
    return reading.refuse(directive.name, 'error_page names no status', 'write it before the page');
  const status =
    over === undefined ? undefined : over.text === '=' ? 'target' : readCount(over.text.slice(1), 999);
  if (over !== undefined && (status === undefined || (status !== 'target' && status < 200)))
    return reading.refuse(over, `${quote(over.text)} is not a status`, 'wants = or a status, as in =200');
  const template = reading.template(target);
  if (target.text.startsWith('@')) reading.leadsTo(target);
  return {
    origin: originOf(directive),
    statuses,
    ...(status !== undefined && { status }),
    target: target.text.startsWith('/')
      ? { kind: 'uri', uri: template }
      : target.text.startsWith('@')
        ? { kind: 'named', name: target.text }
        : { kind: 'url', url: template },
  };
}

function readAccessLog(level: Level, formats: ReadonlySet<string>, reading: Reading): Policy['accessLog'] {
  const directives = level.all('access_log');
  if (directives.length === 0) return undefined;
  let condition: Policy['accessLog'];
  for (const { name, args } of directives) {
    const [path, ...params] = args as [Word, ...Word[]];
    if (path.text === 'off' && params.length === 0) {
      if (directives.length === 1) return false;
      continue;
    }
    reading.notes.accepted('logs', name);
    const [format] = params;
    if (format !== undefined && !formats.has(format.text))
      reading.refuse(
        format,
        `there is no log format ${quote(format.text)}`,
        'define it by log_format, or take its name away',
      );
    const when = params.find(({ text }) => text.startsWith('if='));
    if (when !== undefined) condition = { if: reading.template(when, when.text.slice(3)) };
  }
  return condition ?? true;
}
