// A level's policy in the words of a routes file, with a list of what these have no words for.

import type { HeaderEdit, Policy, RequestZone, RuleSet, Template } from '../../proxy/rules/model.ts';
import { templateText } from '../../proxy/rules/template.ts';

export type Yaml = string | number | boolean | readonly Yaml[] | { readonly [key: string]: Yaml };
export type YamlMap = Record<string, Yaml>;

export interface Unsaid {
  /** Undefined: it holds for all. */
  readonly origin: string | undefined;
  /** In words of the nginx file. */
  readonly what: string;
}

/** Tells of something that the routes file has no word for. */
export type Tell = (what: string, origin?: string) => void;

/** `policy` is whole: what is inherited is in it. `forwards`: whether what concerns upstreams is worth a word. */
export function writePolicy(policy: Policy, rules: RuleSet, forwards: boolean, tell: Tell): YamlMap {
  return {
    ...(forwards ? writeForwarding(policy, tell) : {}),
    ...writeHeaders(policy, forwards, sayable(rules, tell)),
    ...writeAccess(policy, tell),
    ...writeLimits(policy, rules, tell),
    ...writeReplies(policy, tell),
  };
}

/** Keeps what a routes file has the variables for, and tells of the rest. */
type Sayable = <T extends { readonly name: string; readonly value: Template }>(fields: readonly T[]) => T[];

function sayable(rules: RuleSet, tell: Tell): Sayable & { readonly tell: Tell } {
  const keep = <T extends { readonly name: string; readonly value: Template }>(fields: readonly T[]) =>
    fields.filter(({ name, value }) => {
      const lost = lostVariable(value, rules);
      if (lost !== undefined) tell(`${name} with $${lost}, which another directive sets`);
      return lost === undefined;
    });
  return Object.assign(keep, { tell });
}

/** The first variable of a text that `set`, `map` or `auth_request_set` defines. */
export function lostVariable(template: Template, rules: RuleSet): string | undefined {
  const defined = definedVariables(rules);
  const lost = template.find((part) => typeof part !== 'string' && defined.has(part.name));
  return typeof lost === 'string' ? undefined : lost?.name;
}

const known = new WeakMap<RuleSet, ReadonlySet<string>>();

function definedVariables(rules: RuleSet): ReadonlySet<string> {
  const before = known.get(rules);
  if (before !== undefined) return before;
  const names = new Set<string>();
  collect(rules, names);
  known.set(rules, names);
  return names;
}

/** Every `variable` that a part of the rules gives a value to. */
function collect(part: unknown, names: Set<string>): void {
  if (typeof part !== 'object' || part === null) return;
  const { variable, value, source } = part as Record<string, unknown>;
  const defines = (Array.isArray(value) && !('test' in part)) || Array.isArray(source);
  if (typeof variable === 'string' && defines) names.add(variable.toLowerCase());
  for (const inner of Object.values(part)) collect(inner, names);
}

export function duration(ms: number): string {
  return ms % 1000 === 0 ? `${ms / 1000}s` : `${ms}ms`;
}

function writeForwarding(policy: Policy, tell: Tell): YamlMap {
  const { connectTimeoutMs: connect, readTimeoutMs: read, sendTimeoutMs: send, retry } = policy;
  const times = Object.entries({ connect, read, send }).filter(([, ms]) => ms !== undefined && ms !== 60_000);
  if (policy.redirects?.some(({ kind }) => kind === 'rule')) tell('proxy_redirect with texts of its own');
  if ((policy.cookiePaths ?? []).length > 0) tell('proxy_cookie_path');
  if ((policy.cookieDomains ?? []).length > 0) tell('proxy_cookie_domain');
  if ((policy.cookieFlags ?? []).length > 0) tell('proxy_cookie_flags');
  if (policy.method !== undefined) tell('proxy_method');
  if (policy.passRequestBody === false || policy.passRequestHeaders === false)
    tell('proxy_pass_request_body and _headers');
  return {
    ...(times.length > 0 && {
      timeouts: Object.fromEntries(times.map(([name, ms]) => [name, duration(ms!)])),
    }),
    ...(retry !== undefined && isUnusual(retry) && { retry: writeRetry(retry) }),
  };
}

function isUnusual({ on, tries = 0, timeoutMs, nonIdempotent }: NonNullable<Policy['retry']>): boolean {
  return on.join(' ') !== 'error timeout' || tries !== 0 || timeoutMs !== undefined || nonIdempotent === true;
}

function writeRetry({ on, tries = 0, timeoutMs, nonIdempotent }: NonNullable<Policy['retry']>): YamlMap {
  return {
    on: on.map((cause) => (cause === 'invalid-reply' ? 'invalid' : cause)),
    ...(tries > 0 && { tries }),
    ...(timeoutMs !== undefined && { timeout: duration(timeoutMs) }),
    ...(nonIdempotent === true && { non_idempotent: true }),
  };
}

/** What the ingress tells every upstream unasked, under these names. */
const UNASKED = /^(x-real-ip|x-forwarded-(for|proto|host|port)|upgrade|connection)$/i;

function writeHeaders(policy: Policy, forwards: boolean, keep: ReturnType<typeof sayable>): YamlMap {
  const request = forwards ? writeEdits((policy.requestHeaders ?? []).filter(isOwn), keep) : {};
  const added = keep(policy.addHeaders ?? []);
  if (added.some(({ always }) => always !== true))
    keep.tell('add_header without always: the routes file adds to replies of every status');
  const hidden = (policy.hideHeaders ?? []).filter((name) => !['Date', 'Server', 'X-Pad'].includes(name));
  const response: YamlMap = {
    ...(added.length > 0 && { add: pairs(added) }),
    ...(forwards && hidden.length > 0 && { remove: hidden }),
  };
  const headers = {
    ...(Object.keys(request).length > 0 && { request }),
    ...(Object.keys(response).length > 0 && { response }),
  };
  return Object.keys(headers).length > 0 ? { headers } : {};
}

/** The client's own Host passes unasked. */
function isOwn(edit: HeaderEdit): boolean {
  if (UNASKED.test(edit.name)) return false;
  if (edit.name.toLowerCase() !== 'host' || edit.do === 'remove') return true;
  return !['$host', '$http_host'].includes(templateText(edit.value));
}

function writeEdits(edits: readonly HeaderEdit[], keep: Sayable): YamlMap {
  const isGone = (edit: HeaderEdit) => edit.do === 'remove' || edit.value.length === 0;
  const kept = keep(edits.flatMap((edit) => (edit.do === 'remove' || isGone(edit) ? [] : [edit])));
  const gone = edits.filter(isGone).map(({ name }) => name);
  return {
    ...(kept.length > 0 && { set: pairs(kept) }),
    ...(gone.length > 0 && { remove: gone }),
  };
}

function pairs(fields: readonly { readonly name: string; readonly value: Template }[]): YamlMap {
  return Object.fromEntries(fields.map(({ name, value }) => [name, templateText(value)]));
}

function writeAccess(policy: Policy, tell: Tell): YamlMap {
  const { addresses = [], basicRealm = false, basicUsers = [], authRequest = false } = policy;
  if (authRequest !== false) tell('auth_request: write forward_auth with the URL of the service');
  if (policy.satisfy === 'any' && addresses.length > 0) tell('satisfy any');
  if ((policy.realIpFrom ?? []).length > 0) tell('set_real_ip_from: set TRUSTED_PROXIES');
  return {
    ...writeAddresses(addresses, tell),
    ...(basicRealm !== false && writeBasicAuth(basicRealm, basicUsers, tell)),
  };
}

function writeBasicAuth(realm: Template, users: NonNullable<Policy['basicUsers']>, tell: Tell): YamlMap {
  const hashed = users.filter(({ hash }) => !hash.startsWith('{PLAIN}'));
  if (hashed.length < users.length) tell('auth_basic_user_file with plain passwords: write hashes of them');
  if (hashed.length === 0) return { deny: ['any'] };
  return {
    basic_auth: {
      realm: templateText(realm),
      users: Object.fromEntries(hashed.map(({ name, hash }) => [name, hash])),
    },
  };
}

function writeAddresses(addresses: NonNullable<Policy['addresses']>, tell: Tell): YamlMap {
  const last = addresses.at(-1);
  if (last === undefined) return {};
  const isRest = last.range === 'all';
  const listed = isRest ? addresses.slice(0, -1) : addresses;
  const ranges = listed.map(({ range }) => range);
  const allows = listed.filter(({ allow }) => allow).length;
  if (isRest && !last.allow && listed.length === 0) return { deny: ['any'] };
  if (isRest && !last.allow && allows === listed.length) return { allow: ranges };
  if ((!isRest || last.allow) && allows === 0) return ranges.length === 0 ? {} : { deny: ranges };
  tell('allow and deny in turns', last.origin);
  return {};
}

function writeLimits(policy: Policy, rules: RuleSet, tell: Tell): YamlMap {
  const { requestLimits = [], connectionLimits = [], maxBodyBytes } = policy;
  const rates = requestLimits.flatMap(({ zone: name, burst = 0, delay = 0 }) => {
    const zone = rules.requestZones?.find((one) => one.name === name);
    const by = zone && writeKey(zone.key, `limit_req_zone ${name}`, tell, zone.origin);
    if (zone === undefined || by === undefined) return [];
    if (delay < burst) tell('limit_req without nodelay: the routes file lets a burst through at once');
    return [{ rate: rateOf(zone), burst, ...by }];
  });
  if (rates.length > 0)
    tell('limit_req_zone shared by several places: the routes file counts for each of them');
  const seats = connectionLimits.flatMap(({ zone: name, max }) => {
    const zone = rules.connectionZones?.find((one) => one.name === name);
    const by = zone && writeKey(zone.key, `limit_conn_zone ${name}`, tell, zone.origin);
    return by === undefined ? [] : [{ limit: max, ...by }];
  });
  if (seats.length > 1) tell('limit_conn of several zones at one place: the first is written');
  const status = rates.length > 0 ? policy.requestLimitStatus : policy.connectionLimitStatus;
  if (rates.length + seats.length > 0 && status !== 429)
    tell('limit_req_status and limit_conn_status: the routes file answers 429');
  return {
    ...(maxBodyBytes !== undefined && maxBodyBytes > 0 && { body_limit: maxBodyBytes }),
    ...(rates.length > 0 && { rate_limit: rates.length === 1 ? rates[0]! : rates }),
    ...(seats.length > 0 && { concurrency: seats[0]! }),
  };
}

/** What is counted. Undefined after telling that it cannot be said. */
function writeKey(key: Template, what: string, tell: Tell, origin: string | undefined): YamlMap | undefined {
  const [first, more] = key;
  if (first === undefined || more !== undefined || typeof first === 'string')
    return key.every((part) => typeof part === 'string') ? { by: 'all' } : untold();
  if (/^(binary_)?remote_addr$/.test(first.name)) return { by: 'address' };
  if (first.name === 'server_name') return { by: 'all' };
  const [, family, name = ''] = /^(http|cookie)_(\w+)$/.exec(first.name) ?? [];
  if (family === 'cookie') return { by: { cookie: name } };
  return family === 'http' ? { by: { header: name.replaceAll('_', '-') } } : untold();

  function untold(): undefined {
    tell(`${what} by ${templateText(key)}`, origin);
  }
}

function rateOf({ perThousandSeconds }: RequestZone): string {
  return perThousandSeconds % 1000 === 0
    ? `${perThousandSeconds / 1000}/s`
    : `${Math.ceil((perThousandSeconds * 60) / 1000)}/m`;
}

function writeReplies(policy: Policy, tell: Tell): YamlMap {
  for (const { origin } of policy.errorPages ?? [])
    tell('error_page: write error_pages with documents of its own', origin);
  if (policy.expires !== undefined) tell('expires: write headers with Cache-Control');
  if (policy.accessLog === false || typeof policy.accessLog === 'object')
    tell('access_log for some requests only');
  const { compress } = policy;
  if (compress === undefined || compress === false) return {};
  const { encodings, types, minBytes } = compress;
  return { compress: { encodings: [...encodings], types: [...types], min_size: minBytes } };
}
