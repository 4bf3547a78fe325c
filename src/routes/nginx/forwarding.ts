// What proxy_* and grpc_* say: what goes to the upstream, how long that may take, and what comes back of it.

import type {
  CookieFlags,
  HeaderEdit,
  Policy,
  RedirectRule,
  Retry,
  RetryCause,
  TextMatch,
  TextRule,
  UpstreamTls,
} from '../../../proxy/rules/model.ts';
import { quote } from '../../config/values.ts';
import { splitChain } from '../../lib/certificate.ts';
import type { Word } from './lexer.ts';
import { given, type Level, originOf, type Reading } from './reading.ts';
import { readCount, readTimeMs } from './values.ts';

export type Family = 'proxy' | 'grpc';

/** All that holds at a level for one family, inherited parts included. */
export interface Forwarded {
  readonly policy: Policy;
  readonly tls: UpstreamTls;
  readonly retry: Retry;
}

const HOST: HeaderEdit = { do: 'set', name: 'Host', value: [{ name: 'proxy_host' }] };
const HIDDEN = ['Date', 'Server', 'X-Pad'];

export const forwardedByDefault: Forwarded = {
  policy: {
    requestHeaders: [HOST],
    connectTimeoutMs: 60_000,
    readTimeoutMs: 60_000,
    sendTimeoutMs: 60_000,
    hideHeaders: HIDDEN,
    passHeaders: [],
    interceptErrors: false,
    accelRedirect: true,
    retry: { on: ['error', 'timeout'], tries: 0 },
    upstreamTls: { verify: false, sendName: false },
    redirects: [{ kind: 'default' }],
  },
  retry: { on: ['error', 'timeout'], tries: 0 },
  tls: { verify: false, sendName: false },
};

/** What proxy_* may have said around a grpc_pass does not hold for it. */
const NOT_OF_GRPC: Policy = {
  redirects: [],
  cookiePaths: [],
  cookieDomains: [],
  cookieFlags: [],
  method: [{ name: 'request_method' }],
  passRequestHeaders: true,
  passRequestBody: true,
};

/** Everything, for a place whose outer levels speak the other family. */
export function wholePolicy(family: Family, { policy }: Forwarded): Policy {
  if (family === 'grpc') return { ...policy, ...NOT_OF_GRPC };
  return { cookiePaths: [], cookieDomains: [], cookieFlags: [], ...policy };
}

/** `own`: what this level says itself. */
export function readForwarding(
  level: Level,
  family: Family,
  outer: Forwarded,
  reading: Reading,
): { readonly own: Policy; readonly merged: Forwarded } {
  const tls = readTls(level, family, outer.tls, reading);
  const retry = readRetry(level, family, outer.retry, reading);
  const own = given<Policy>({
    requestHeaders: readSetHeaders(level, family, reading),
    hideHeaders: names(level, `${family}_hide_header`, HIDDEN),
    passHeaders: names(level, `${family}_pass_header`, []),
    connectTimeoutMs: readTimeout(level, `${family}_connect_timeout`, reading),
    readTimeoutMs: readTimeout(level, `${family}_read_timeout`, reading),
    sendTimeoutMs: readTimeout(level, `${family}_send_timeout`, reading),
    interceptErrors: level.isOn(`${family}_intercept_errors`),
    accelRedirect: level
      .all(`${family}_ignore_headers`)
      .some(({ args }) => args.some(({ text }) => text.toLowerCase() === 'x-accel-redirect'))
      ? false
      : undefined,
    retry,
    upstreamTls: tls,
    ...(family === 'proxy' ? readProxyAlone(level, reading) : {}),
  } as Policy);
  return {
    own,
    merged: {
      policy: { ...outer.policy, ...own },
      tls: tls ?? outer.tls,
      retry: retry ?? outer.retry,
    },
  };
}

/** What grpc_* has no counterpart of. */
function readProxyAlone(level: Level, reading: Reading): Policy {
  const method = level.value('proxy_method');
  return given<Policy>({
    method: method && reading.template(method),
    passRequestHeaders: level.isOn('proxy_pass_request_headers'),
    passRequestBody: level.isOn('proxy_pass_request_body'),
    redirects: readRedirects(level, reading),
    cookiePaths: readTextRules(level, 'proxy_cookie_path', false, reading),
    cookieDomains: readTextRules(level, 'proxy_cookie_domain', true, reading),
    cookieFlags: readCookieFlags(level, reading),
  } as Policy);
}

/** A level with one of its own inherits none: the Host of nginx's default is among what is lost, and comes back. */
function readSetHeaders(level: Level, family: Family, reading: Reading): HeaderEdit[] | undefined {
  const directives = level.all(`${family}_set_header`);
  if (directives.length === 0) return undefined;
  const edits = directives.flatMap((directive): HeaderEdit[] => {
    const [name, value] = directive.args as [Word, Word];
    if (!isFieldName(name, reading)) return [];
    return [{ do: 'set', name: name.text, value: reading.template(value), origin: originOf(directive) }];
  });
  return edits.some(({ name }) => name.toLowerCase() === 'host') ? edits : [...edits, HOST];
}

export function isFieldName(name: Word, reading: Reading): boolean {
  if (/^[!#$%&'*+.^_`|~\w-]+$/.test(name.text)) return true;
  reading.refuse(
    name,
    `${quote(name.text)} is not the name of a header`,
    'wants letters, digits and hyphens',
  );
  return false;
}

function names(level: Level, directive: string, always: readonly string[]): string[] | undefined {
  const own = level.all(directive);
  return own.length === 0 ? undefined : [...own.map(({ args }) => args[0]!.text), ...always];
}

export function readTimeout(level: Level, name: string, reading: Reading): number | undefined {
  const word = level.value(name);
  if (word === undefined) return undefined;
  const time = readTimeMs(word.text);
  if (time === undefined)
    return reading.refuse(word, `${name}: ${quote(word.text)} is not a time`, 'wants one as in 60s or 1h30m');
  return Math.max(time, 1);
}

const causes: Readonly<Record<string, RetryCause>> = {
  __proto__: null as never,
  error: 'error',
  timeout: 'timeout',
  invalid_header: 'invalid-reply',
  http_403: 403,
  http_404: 404,
  http_429: 429,
  http_500: 500,
  http_502: 502,
  http_503: 503,
  http_504: 504,
};

function readRetry(level: Level, family: Family, outer: Retry, reading: Reading): Retry | undefined {
  const when = level.all(`${family}_next_upstream`).flatMap(({ args }) => args);
  const tries = level.value(`${family}_next_upstream_tries`);
  const time = level.value(`${family}_next_upstream_timeout`);
  if (when.length === 0 && tries === undefined && time === undefined) return undefined;
  const count = tries && readCount(tries.text);
  if (tries !== undefined && count === undefined)
    reading.refuse(tries, `${quote(tries.text)} is not a number of tries`, 'wants a whole number');
  const timeoutMs = time && readTimeMs(time.text);
  if (time !== undefined && timeoutMs === undefined)
    reading.refuse(time, `${quote(time.text)} is not a time`, 'wants one as in 10s');
  return {
    ...outer,
    ...(when.length > 0 && readCauses(when, reading)),
    ...(count !== undefined && { tries: count }),
    ...(timeoutMs !== undefined && { timeoutMs }),
  };
}

function readCauses(words: readonly Word[], reading: Reading): Pick<Retry, 'on' | 'nonIdempotent'> {
  const on = words.flatMap((word) => {
    if (['off', 'non_idempotent', 'updating'].includes(word.text)) return [];
    const cause = causes[word.text];
    if (cause !== undefined) return [cause];
    reading.refuse(
      word,
      `${quote(word.text)} is no reason to try the next upstream`,
      `wants off or some of ${Object.keys(causes).join(', ')}, non_idempotent`,
    );
    return [];
  });
  const isOff = words.some(({ text }) => text === 'off');
  return { on: isOff ? [] : on, nonIdempotent: words.some(({ text }) => text === 'non_idempotent') };
}

function readTls(
  level: Level,
  family: Family,
  outer: UpstreamTls,
  reading: Reading,
): UpstreamTls | undefined {
  const read = (name: string) => level.value(`${family}_ssl_${name}`);
  const pem = (word: Word | undefined, isCertificates: boolean) =>
    word && readPem(word, isCertificates, reading);
  const own = given<Partial<UpstreamTls>>({
    verify: level.isOn(`${family}_ssl_verify`),
    sendName: level.isOn(`${family}_ssl_server_name`),
    name: readTlsName(read('name'), reading),
    authorities: pem(read('trusted_certificate'), true),
    certificate: pem(read('certificate'), true),
    key: pem(read('certificate_key'), false),
  });
  if (Object.keys(own).length === 0) return undefined;
  const all = { ...outer, ...own };
  const verify = level.one(`${family}_ssl_verify`);
  if (all.verify && all.authorities === undefined && verify !== undefined)
    reading.refuse(
      verify.name,
      `${verify.name.text} has no authorities to verify by`,
      `write ${family}_ssl_trusted_certificate with a PEM file`,
    );
  return all;
}

/** `$proxy_host` is the default. */
function readTlsName(word: Word | undefined, reading: Reading): string | undefined {
  if (word === undefined || word.text === '$proxy_host') return undefined;
  if (!word.text.includes('$')) return word.text;
  return reading.refuse(
    word,
    'the name to verify holds variables',
    'write the name out, or take it away: then it is that of proxy_pass',
  );
}

/** `isCertificates`: or else one private key. */
export function readPem(word: Word, isCertificates: boolean, reading: Reading): string | undefined {
  if (word.text === '') return undefined;
  if (word.text.includes('$')) return reading.refuse(word, 'the path holds variables', 'write it out');
  const text = reading.readNamed(word);
  if (text === undefined) return undefined;
  if (isCertificates ? splitChain(text).length > 0 : /-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(text))
    return text;
  return reading.refuse(
    word,
    `${quote(word.text)} holds no ${isCertificates ? 'certificate' : 'private key'}`,
    'wants a PEM file',
  );
}

function readRedirects(level: Level, reading: Reading): RedirectRule[] | undefined {
  const directives = level.all('proxy_redirect');
  if (directives.length === 0) return undefined;
  const rules: RedirectRule[] = [];
  let isJudged = false;
  for (const { name, args } of directives) {
    const [from, to] = args as [Word, Word?];
    if (to !== undefined) {
      const match = readTextMatch(from, false, reading);
      if (match !== undefined) rules.push({ kind: 'rule', from: match, to: reading.template(to) });
    } else if (from.text === 'default') {
      if (!isJudged) judgeDefaultRedirect(level, name, reading);
      isJudged = true;
      rules.push({ kind: 'default' });
    } else if (from.text !== 'off') {
      reading.refuse(
        from,
        `proxy_redirect ${quote(from.text)} lacks what to put there`,
        'wants off, default, or two texts',
      );
    } else if (directives.length > 1) {
      reading.refuse(name, 'proxy_redirect off stands beside others', 'wants off alone');
    }
  }
  return rules;
}

/** Nothing but the URL of the proxy_pass before it tells what the default is. */
function judgeDefaultRedirect(level: Level, name: Word, reading: Reading): void {
  const pass = level.directives.findIndex((one) => one.name.text === 'proxy_pass');
  const here = level.directives.findIndex((one) => one.name === name);
  const isTold = pass >= 0 && pass < here && !level.directives[pass]!.args[0]!.text.includes('$');
  if (!isTold)
    reading.refuse(
      name,
      'proxy_redirect default has no proxy_pass without variables before it',
      'write it behind the proxy_pass of its location, or take it away: it is the default',
    );
}

/** `isDomain`: a pattern ignores case in any case. */
function readTextMatch(word: Word, isDomain: boolean, reading: Reading): TextMatch | undefined {
  const { text } = word;
  if (!text.startsWith('~')) return { kind: 'text', text: reading.template(word) };
  const ignoreCase = text.startsWith('~*');
  const pattern = reading.pattern(word, ignoreCase || isDomain, text.slice(ignoreCase ? 2 : 1));
  return pattern && { kind: 'pattern', pattern };
}

function readTextRules(
  level: Level,
  name: string,
  isDomain: boolean,
  reading: Reading,
): TextRule[] | undefined {
  const directives = level.all(name);
  if (directives.length === 0) return undefined;
  return directives.flatMap(({ args }): TextRule[] => {
    const [from, to] = args as [Word, Word?];
    if (to === undefined) {
      if (from.text !== 'off' || directives.length > 1)
        reading.refuse(
          from,
          `${name} ${quote(from.text)} lacks what to put there`,
          'wants off alone, or two texts',
        );
      return [];
    }
    const match = readTextMatch(from, isDomain, reading);
    return match === undefined ? [] : [{ from: match, to: reading.template(to) }];
  });
}

const FLAG = /^(secure|httponly|samesite=(strict|lax|none)|no(secure|httponly|samesite))$/i;

function readCookieFlags(level: Level, reading: Reading): CookieFlags[] | undefined {
  const directives = level.all('proxy_cookie_flags');
  if (directives.length === 0) return undefined;
  return directives.flatMap(({ args }): CookieFlags[] => {
    const [cookie, ...flags] = args as [Word, ...Word[]];
    if (cookie.text === 'off' && flags.length === 0) return [];
    // A cookie's name ignores case, as a pattern does.
    const match =
      cookie.text === '~'
        ? readTextMatch({ ...cookie, text: '~.*' }, true, reading)
        : readTextMatch(cookie, true, reading);
    for (const flag of flags)
      if (!FLAG.test(flag.text))
        reading.refuse(
          flag,
          `${quote(flag.text)} is not a flag of cookies`,
          'wants secure, httponly, samesite=strict|lax|none, or no… of them',
        );
    const known = flags.map(({ text }) => text.toLowerCase()).filter((text) => FLAG.test(text));
    if (match === undefined) return [];
    const isGone = (flag: string) => /^no(secure|httponly|samesite)$/.test(flag);
    return [
      {
        cookie: match,
        set: known.filter((flag) => !isGone(flag)),
        remove: known.filter(isGone).map((flag) => flag.slice(2)),
      },
    ];
  });
}
