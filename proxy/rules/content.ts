// What answers at a place once a request may have it: the upstream, a reply of ours, a redirect or files.

import { createHash } from 'node:crypto';
import { normalize } from 'node:path/posix';
import { plainAddress, verdict } from './addresses.ts';
import type { CompiledCanary, CompiledContent, Field, Pool } from './compiled.ts';
import { extensionOf } from './media.ts';
import { requestFields, safeValue } from './request-headers.ts';
import type { Control, Forward, Step } from './step.ts';
import { expandedTarget, strippedTarget, upstreamTarget } from './upstream-uri.ts';
import { escapePath, splitQuery } from './uri.ts';
import { fileName } from './variables.ts';

export function answer(run: Control, content: CompiledContent): Step {
  switch (content.kind) {
    case 'proxy':
      return forwardTo(run, content);
    case 'proxy-to':
      return forwardToUrl(run, content);
    case 'respond':
      return run.own(
        content.status,
        [
          { name: 'Content-Type', value: content.contentType ?? contentTypeOf(run) },
          ...content.headers.map(({ name, value }) => ({ name, value: safeValue(value(run)) })),
        ],
        content.body(run),
      );
    case 'redirect':
      return run.redirect(content.status, content.to(run));
    case 'files':
      return answerFile(run, content.fallback);
    case 'maintenance':
      return answerMaintenance(run, content);
    case 'nothing':
      return run.fail(404);
  }
}

function answerMaintenance(run: Control, content: CompiledContent & { kind: 'maintenance' }): Step {
  const { except, retryAfter, html, json, status } = content;
  if (except !== undefined && verdict(except.addresses, plainAddress(run.client))?.allow === true)
    return answer(run, except.content);
  const fields: Field[] =
    retryAfter === undefined ? [] : [{ name: 'Retry-After', value: String(retryAfter) }];
  return document(run, status, html, json, fields) ?? run.fail(status, fields);
}

/** In the form that the client likes; undefined: there is none. */
export function document(
  run: Control,
  status: number,
  html: string | undefined,
  json: string | undefined,
  fields: readonly Field[],
): Step | undefined {
  const likesHtml = run.facts.headers.all('accept').some((accept) => accept.includes('text/html'));
  const body = likesHtml ? (html ?? json) : (json ?? html);
  if (body === undefined) return undefined;
  const type = body === html ? 'text/html; charset=utf-8' : 'application/json';
  return run.own(status, [{ name: 'Content-Type', value: type }, ...fields], body);
}

/** nginx's charset_types, as they are by default. */
const withCharset: ReadonlySet<string> = new Set([
  'text/html',
  'text/xml',
  'text/plain',
  'text/vnd.wap.wml',
  'application/javascript',
  'application/rss+xml',
]);

/** By the extension of the URI. */
export function contentTypeOf(run: Control): string {
  if (run.keptType !== undefined) return run.keptType;
  const { types, defaultType, charset } = run.place.settings.files;
  const type = types.get(extensionOf(run.uri)) ?? defaultType;
  return charset !== undefined && withCharset.has(type) ? `${type}; charset=${charset}` : type;
}

// Forwarding

function forwardTo(run: Control, content: CompiledContent & { kind: 'proxy' }): Step {
  run.proxyHost = content.host;
  const pool =
    content.canary !== undefined && isCanary(run, content.canary) ? content.canary.pool : content.pool;
  const target =
    content.stripPrefix === undefined
      ? upstreamTarget(run, content.path)
      : strippedTarget(run, content.stripPrefix);
  return forward(run, pool, target);
}

function forwardToUrl(run: Control, { url, variant }: CompiledContent & { kind: 'proxy-to' }): Step {
  const found = run.rules.poolFor(url(run), variant);
  // nginx: an invalid URL prefix, and no resolver for the name.
  if (found === undefined) return run.fail(500);
  run.proxyHost = found.host;
  return forward(run, found.pool, expandedTarget(run, found.path));
}

function forward(run: Control, pool: Pool, target: string): Forward {
  const settings = run.place.settings.forward;
  const fields = requestFields(run, settings.headers, run.copied);
  return {
    do: 'forward',
    pool,
    hashKey: pool.balance?.by === 'hash' ? pool.balance.key(run) : '',
    method: settings.method?.(run).toUpperCase() || run.method,
    target,
    host: fields.host,
    removed: fields.removed,
    says: fields.says,
    own: fields.own,
    passHeaders: settings.passHeaders,
    passBody: settings.passBody && !run.isSub && !run.bodyGone,
    passUnderscores: run.site.underscoresInHeaders,
    passInvalid: !run.site.ignoreInvalidHeaders,
    forwardedFields: settings.forwardedFields,
    upgrade: settings.upgrades === 'as-asked' ? undefined : fields.upgrade,
    retry: settings.retry,
    maxBodyBytes: run.place.settings.maxBodyBytes,
  };
}

function isCanary(run: Control, { percent, key, when }: CompiledCanary): boolean {
  if (when?.(run) === true) return true;
  const digest = createHash('sha256').update(key(run), 'latin1').digest();
  return digest.readUInt32BE(0) % 10_000 < percent * 100;
}

// Files

/** Runs before the content of a place, whatever it is. */
export function tryFiles(run: Control, then: () => Step): Step {
  const files = run.place.tryFiles;
  if (files === undefined) return then();
  const tryFrom = (at: number): Step => {
    const candidate = files.paths[at];
    if (candidate === undefined) return lastTried(run);
    const value = candidate.value(run);
    const { path, root } = onDisk(run, value);
    // Without a root nothing is there, least of all what lies below the root of the disk.
    if (run.place.settings.files.root === undefined) return tryFrom(at + 1);
    return run.look(candidate.directory ? 'directory' : 'file', path, root, (found) => {
      if (!found) return tryFrom(at + 1);
      run.uri = value;
      return then();
    });
  };
  return tryFrom(0);
}

function lastTried(run: Control): Step {
  const last = run.place.tryFiles!.last;
  if (last.kind === 'status') return run.fail(last.status);
  if (last.kind === 'named') return run.goToNamed(last.name);
  const { uri, args } = splitQuery(last.uri(run));
  return run.goTo(uri, args);
}

/** `value` instead of the URI, below root or alias. */
function onDisk(run: Control, value: string): { readonly path: string; readonly root: string } {
  const { root } = run.place.settings.files;
  const base = root?.path(run) ?? '';
  const matched = run.place.path;
  const below =
    root?.alias === true && matched !== '' && value.startsWith(matched) ? value.slice(matched.length) : value;
  return { path: base + below, root: rootOf(run) };
}

function answerFile(run: Control, fallback: string | undefined): Step {
  const { method, uri } = run;
  if (method !== 'GET' && method !== 'HEAD' && method !== 'POST') return run.fail(405);
  if (uri.endsWith('/')) return answerIndex(run, fallback);
  const path = fileName(run);
  const root = rootOf(run);
  return run.look('file', path, root, (isFile) => {
    if (isFile) return method === 'POST' ? run.fail(405) : run.file(path, root, false);
    return run.look('directory', path, root, (isDirectory) => {
      if (!isDirectory) return missing(run, fallback);
      const args = run.args === '' ? '' : `?${run.args}`;
      return run.redirect(301, `${escapePath(uri)}/${args}`);
    });
  });
}

/** The first index that is there, by an internal redirect: another location may answer it. */
function answerIndex(run: Control, fallback: string | undefined): Step {
  const { index, listing } = run.place.settings.files;
  const folder = fileName(run);
  const root = rootOf(run);
  const tryFrom = (at: number): Step => {
    const name = index[at]?.(run);
    if (name === undefined) {
      return run.look('directory', folder, root, (found) => {
        if (!found) return missing(run, fallback);
        if (listing) return run.method === 'POST' ? run.fail(405) : run.file(folder, root, true);
        return fallback === undefined ? run.fail(403) : missing(run, fallback);
      });
    }
    if (name.startsWith('/')) return run.goTo(name, run.args);
    return run.look('file', folder + name, root, (found) =>
      found ? run.goTo(run.uri + name, run.args) : tryFrom(at + 1),
    );
  };
  return tryFrom(0);
}

function missing(run: Control, fallback: string | undefined): Step {
  if (fallback === undefined || run.method === 'POST') return run.fail(404);
  const root = rootOf(run);
  const path = root.replace(/\/$/, '') + (fallback.startsWith('/') ? fallback : `/${fallback}`);
  return run.look('file', path, root, (found) => {
    if (!found) return run.fail(404);
    // Its type is that of the fallback, not that of the path that was asked for.
    run.uri = fallback.startsWith('/') ? fallback : `/${fallback}`;
    return run.file(path, root, false);
  });
}

/** What no file may lie outside of. Of a path with variables, what stands before them: the client may have its say in them. */
function rootOf(run: Control): string {
  const { root } = run.place.settings.files;
  if (root === undefined) return '';
  const path = root.path(run);
  if (root.fixed === '') return path;
  // An alias in a pattern is the path of a file, and not of a folder.
  const isFolder = !root.alias || run.place.kind !== 'pattern';
  return isFolder && normalize(path).startsWith(root.fixed) ? path : root.fixed;
}
