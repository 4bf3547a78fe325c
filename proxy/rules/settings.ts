// A level's policy as functions: what holds at a place of the rules.

import { compileAddresses, compileRanges } from './addresses.ts';
import { bytesOf } from './bytes.ts';
import type {
  Access,
  CompiledErrorPage,
  CookieRules,
  Field,
  FieldEdits,
  FileSettings,
  ForwardSettings,
  PoolVariant,
  RealIp,
  ReplySettings,
  RequestHeaders,
  Run,
  Settings,
  TextRewrite,
  Value,
} from './compiled.ts';
import { FieldNames, saidBit, saidBits } from './field-names.ts';
import { compileMatcher } from './match.ts';
import { mediaTypes } from './media.ts';
import type { ErrorPage, HeaderEdit, Origin, Policy, Template, TextMatch, TextRule } from './model.ts';
import type { Pools } from './pools.ts';
import { replacesOnReply } from './reply-headers.ts';
import { isFraming, safeValue } from './request-headers.ts';
import { RuleSetError, type Scope } from './scope.ts';
import { compileTemplate, literalOf } from './template.ts';

export interface Tools {
  readonly scope: Scope;
  readonly pools: Pools;
  zoneOf(
    kind: 'request' | 'connection',
    name: string,
    origin: Origin | undefined,
  ): { index: number; key: Value };
}

const DEFAULT_TIMEOUT_MS = 60_000;

/** What of a policy a pool is made for. */
export function variantOf(policy: Policy): PoolVariant {
  return {
    connectTimeoutMs: policy.connectTimeoutMs ?? DEFAULT_TIMEOUT_MS,
    readTimeoutMs: policy.readTimeoutMs ?? DEFAULT_TIMEOUT_MS,
    sendTimeoutMs: policy.sendTimeoutMs ?? DEFAULT_TIMEOUT_MS,
    totalTimeoutMs: policy.totalTimeoutMs,
    tls: policy.upstreamTls,
  };
}

export function compileSettings(policy: Policy, tools: Tools): Settings {
  const value = (template: Template) => compileTemplate(template, tools.scope.resolve);
  const { accessLog = true } = policy;
  const forward = compileForward(policy, tools);
  return {
    realIp: compileRealIp(policy),
    maxBodyBytes: policy.maxBodyBytes ?? 0,
    maxHeaderBytes: policy.maxHeaderBytes ?? 0,
    requestLimits: (policy.requestLimits ?? []).map(({ zone, burst = 0, delay = 0 }) => {
      const { index, key } = tools.zoneOf('request', zone, undefined);
      return { zone: index, key, burst, delay: Math.min(delay, burst) };
    }),
    requestLimitStatus: policy.requestLimitStatus ?? 503,
    connectionLimits: (policy.connectionLimits ?? []).map(({ zone, max }) => {
      return { zone, key: tools.zoneOf('connection', zone, undefined).key, max };
    }),
    connectionLimitStatus: policy.connectionLimitStatus ?? 503,
    access: compileAccess(policy, tools),
    files: compileFiles(policy, value),
    forward,
    reply: compileReply(policy, forward.hidden, tools),
    errors: {
      pages: compileErrorPages(policy.errorPages ?? [], value),
      recursive: policy.recursiveErrorPages === true,
      intercept: policy.interceptErrors === true,
    },
    redirects: {
      absolute: policy.absoluteRedirect !== false,
      port: policy.portInRedirect !== false,
      serverName: policy.serverNameInRedirect === true,
    },
    accessLog: typeof accessLog === 'boolean' ? () => accessLog : isSet(value(accessLog.if)),
  };
}

function isSet(value: Value): (run: Run) => boolean {
  return (run) => {
    const text = value(run);
    return text !== '' && text !== '0';
  };
}

function compileRealIp({ realIpFrom, realIpHeader, realIpRecursive }: Policy): RealIp | undefined {
  if (realIpFrom === undefined || realIpFrom.length === 0 || realIpHeader === 'proxy_protocol')
    return undefined;
  return {
    trusted: compileRanges(realIpFrom.map((range) => ({ range }))),
    header: (realIpHeader ?? 'X-Real-IP').toLowerCase(),
    recursive: realIpRecursive === true,
  };
}

/** Undefined: everybody may come in. */
function compileAccess(policy: Policy, { scope, pools }: Tools): Access | undefined {
  const { addresses = [], basicRealm = false, basicUsers = [], authRequest = false } = policy;
  if (addresses.length === 0 && basicRealm === false && authRequest === false) return undefined;
  const users = new Map(basicUsers.map(({ name, hash }) => [bytesOf(name), hash]));
  return {
    any: policy.satisfy === 'any',
    addresses: addresses.length === 0 ? undefined : compileAddresses(addresses),
    basic:
      basicRealm === false
        ? undefined
        : { realm: compileTemplate(basicRealm, scope.resolve), users, like: basicUsers[0]?.hash },
    ask: authRequest === false ? undefined : compileAsk(authRequest, policy, scope, pools),
    variables: (policy.authVariables ?? []).map(({ variable, value }) => ({
      slot: scope.slotOf(variable),
      value: compileTemplate(value, scope.resolve),
    })),
  };
}

function compileAsk(
  request: Exclude<Policy['authRequest'], undefined | false>,
  policy: Policy,
  scope: Scope,
  pools: Pools,
): Access['ask'] {
  const uri = compileTemplate(request.uri, scope.resolve);
  if (request.kind === 'uri') return { kind: 'uri', uri };
  const { upstream, protocol, requestHeaders, copy, copyToReply = [], timeoutMs, upstreamTls } = request;
  const variant = variantOf({
    ...policy,
    ...(timeoutMs === undefined ? {} : { readTimeoutMs: timeoutMs, totalTimeoutMs: timeoutMs }),
    ...(upstreamTls === undefined ? {} : { upstreamTls }),
  });
  return {
    kind: 'forward',
    pool: pools.pool(upstream, protocol, variant, undefined),
    uri,
    headers: compileRequestHeaders(requestHeaders, scope),
    copy: copy.map((name) => name.toLowerCase()),
    copyToReply: copyToReply.map((name) => name.toLowerCase()),
  };
}

const INDEX = [['index.html']];

function compileFiles(policy: Policy, value: (template: Template) => Value): FileSettings {
  const { root, types } = policy;
  return {
    root: root && { path: value(root.path), alias: root.alias === true, fixed: fixedFolder(root.path) },
    index: (policy.index ?? INDEX).map((template) => value(template)),
    listing: policy.autoindex === true,
    types: types === undefined ? mediaTypes : new Map(Object.entries(types)),
    defaultType: policy.defaultType ?? 'application/octet-stream',
    charset: policy.charset,
    etag: policy.etag !== false,
  };
}

function compileRequestHeaders(edits: readonly HeaderEdit[], scope: Scope): RequestHeaders {
  const own = compileEdits(edits, scope);
  const removed = own.filter(({ do: how }) => how === 'set' || how === 'remove').map(({ lower }) => lower);
  return {
    removed: new FieldNames(removed),
    says: saidBits(removed),
    own: own.filter(({ do: how }) => how !== 'remove'),
  };
}

function compileEdits(edits: readonly HeaderEdit[], { resolve }: Scope): RequestHeaders['own'] {
  return edits.map((edit) => ({
    do: edit.do,
    name: edit.name,
    lower: edit.name.toLowerCase(),
    value: compileTemplate(edit.do === 'remove' ? [] : edit.value, resolve),
    field: edit.do === 'remove' ? undefined : literalField(edit.name, edit.value),
    says: saidBit(edit.name.toLowerCase()),
    framing: isFraming(edit.name.toLowerCase()),
  }));
}

function literalField(name: string, template: Template): Field | undefined {
  const text = literalOf(template);
  return text === undefined || text === '' ? undefined : { name, value: safeValue(text) };
}

function compileForward(policy: Policy, { scope }: Tools): ForwardSettings {
  const passed = new Set((policy.passHeaders ?? []).map((name) => name.toLowerCase()));
  const hidden = [
    'x-accel-expires',
    'x-accel-redirect',
    'x-accel-limit-rate',
    'x-accel-buffering',
    'x-accel-charset',
  ];
  const names = [...hidden, ...(policy.hideHeaders ?? []).map((name) => name.toLowerCase())];
  return {
    headers: compileRequestHeaders(policy.requestHeaders ?? [], scope),
    passHeaders: policy.passRequestHeaders !== false,
    passBody: policy.passRequestBody !== false,
    forwardedFields: policy.forwardedFields !== false,
    method: policy.method && compileTemplate(policy.method, scope.resolve),
    upgrades: policy.upgrades ?? 'as-asked',
    retry: policy.retry,
    hidden: new FieldNames(names.filter((name) => !passed.has(name))),
    redirects: (policy.redirects ?? []).map((rule) =>
      rule.kind === 'default' ? 'default' : compileTextRule(rule, scope),
    ),
    cookies: compileCookies(policy, scope),
    accelRedirect: policy.accelRedirect === true,
  };
}

function compileTextRule({ from, to }: TextRule, scope: Scope): TextRewrite {
  const value = compileTemplate(to, scope.resolve);
  return from.kind === 'text'
    ? { kind: 'text', from: compileTemplate(from.text, scope.resolve), to: value }
    : { kind: 'pattern', from: compileMatcher(from.pattern, scope.slotOf), to: value };
}

function compileCookies(policy: Policy, scope: Scope): CookieRules | undefined {
  const { cookiePaths = [], cookieDomains = [], cookieFlags = [] } = policy;
  if (cookiePaths.length + cookieDomains.length + cookieFlags.length === 0) return undefined;
  const named = (cookie: TextMatch) =>
    cookie.kind === 'text'
      ? { text: compileTemplate(cookie.text, scope.resolve) }
      : { matcher: compileMatcher(cookie.pattern, scope.slotOf) };
  return {
    paths: cookiePaths.map((rule) => compileTextRule(rule, scope)),
    domains: cookieDomains.map((rule) => compileTextRule(rule, scope)),
    flags: cookieFlags.map(({ cookie, set, remove }) => ({ cookie: named(cookie), set, remove })),
  };
}

function compileReply(policy: Policy, hidden: FieldNames, { scope }: Tools): ReplySettings {
  const { addHeaders = [], replyHeaders = [], expires, compress = false, cors = false } = policy;
  const added = addHeaders.map(({ name, value, always }) => ({
    lower: name.toLowerCase(),
    name,
    value: compileTemplate(value, scope.resolve),
    field: literalField(name, value),
    always: always === true,
  }));
  const varies = replyHeaders.length > 0 || expires !== undefined || cors !== false;
  return {
    added,
    fixed: varies ? undefined : fixedEdits(added, hidden),
    edits: compileEdits(replyHeaders, scope),
    expires: expires && {
      value: compileTemplate(expires.value, scope.resolve),
      modified: expires.modified === true,
    },
    compress: compress === false ? undefined : compress,
    cors: cors === false ? undefined : cors,
  };
}

function fixedEdits(added: ReplySettings['added'], hidden: FieldNames): ReplySettings['fixed'] {
  if (added.some(({ field }) => field === undefined)) return undefined;
  const editsOf = (fields: ReplySettings['added']): FieldEdits => ({
    hidden,
    removed: fields.filter(({ lower }) => replacesOnReply(lower)).map(({ lower }) => lower),
    own: fields.map(({ field }) => field!),
  });
  return { usual: editsOf(added), others: editsOf(added.filter(({ always }) => always)) };
}

function compileErrorPages(
  pages: readonly ErrorPage[],
  value: (template: Template) => Value,
): ReadonlyMap<number, CompiledErrorPage> {
  const byStatus = new Map<number, CompiledErrorPage>();
  for (const page of pages) {
    const compiled: CompiledErrorPage = {
      origin: page.origin,
      status: page.status,
      target: compileTarget(page.target, value),
    };
    for (const status of page.statuses) if (!byStatus.has(status)) byStatus.set(status, compiled);
  }
  return byStatus;
}

function compileTarget(
  target: ErrorPage['target'],
  value: (template: Template) => Value,
): CompiledErrorPage['target'] {
  switch (target.kind) {
    case 'document':
      return {
        kind: 'document',
        html: target.html === undefined ? undefined : bytesOf(target.html),
        json: target.json === undefined ? undefined : bytesOf(target.json),
      };
    case 'named':
      return { kind: 'text', text: () => target.name };
    case 'uri':
      return { kind: 'text', text: value(target.uri) };
    case 'url':
      return { kind: 'text', text: value(target.url) };
  }
}

/** By the names of zones. */
export function createZones<T extends { readonly name: string; readonly key: Template }>(
  zones: readonly T[],
  scope: Scope,
): (name: string, origin: Origin | undefined) => { index: number; key: Value } {
  const known = new Map(
    zones.map((zone, index) => [zone.name, { index, key: compileTemplate(zone.key, scope.resolve) }]),
  );
  return (name, origin) => {
    const zone = known.get(name);
    if (zone === undefined) throw new RuleSetError(`there is no zone ${name}`, origin);
    return zone;
  };
}

/** The folder that a path with variables begins with, whatever is in them. Empty: it has none, or there is nothing but it. */
function fixedFolder([first, ...rest]: Template): string {
  if (rest.length === 0 || typeof first !== 'string') return '';
  return bytesOf(first.slice(0, first.lastIndexOf('/') + 1));
}
