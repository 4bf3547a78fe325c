// The fields of a reply on its way to the client: what of the upstream's stays behind, what is rewritten, what rules add.

import type { CompiledContent, Field, FieldEdits, Fields, Run, TextRewrite } from './compiled.ts';
import { rewriteCookie, rewriteText } from './cookies.ts';
import { corsFields, corsNames, isPreflight } from './cors.ts';
import { expiresFields } from './expires.ts';
import { fits } from './match.ts';
import { redirectTarget } from './redirect.ts';
import { safeValue } from './request-headers.ts';

/** nginx's: unless `always`, and for expires. */
const ADDED_STATUSES: ReadonlySet<number> = new Set([200, 201, 204, 206, 301, 302, 303, 304, 307, 308]);

const NONE: readonly string[] = [];
const NO_FIELDS: readonly Field[] = [];

/** As in nginx: of these a reply has one, and it is the one that is added. */
export function replacesOnReply(lower: string): boolean {
  return lower === 'etag' || lower === 'last-modified';
}

/** Of an upstream's reply. */
export function upstreamReplyEdits(run: Run, status: number, fields: Fields): FieldEdits {
  const { forward, reply } = run.place.settings;
  run.told = NO_FIELDS;
  const moves = forward.redirects.length > 0 && mayMove(fields);
  if (reply.fixed !== undefined && forward.cookies === undefined && !moves) {
    const edits = ADDED_STATUSES.has(status) ? reply.fixed.usual : reply.fixed.others;
    run.status = status;
    run.sent = edits.own;
    return edits;
  }
  const removed: string[] = [];
  const own: Field[] = [];
  if (moves) {
    rewriteLocation(run, 'location', fields, removed, own);
    rewriteLocation(run, 'refresh', fields, removed, own);
  }
  if (forward.cookies !== undefined) rewriteCookies(run, fields, removed, own);
  if (reply.cors !== undefined) removed.push(...corsNames);
  addOwn(run, status, fields, removed, own);
  return { hidden: forward.hidden, removed: removed.length === 0 ? NONE : removed, own };
}

function mayMove(fields: Fields): boolean {
  return fields.all('location').length > 0 || fields.all('refresh').length > 0;
}

/** Of a reply of ours, whose own fields are `fields`. */
export function ownReplyFields(run: Run, status: number, fields: readonly Field[]): readonly Field[] {
  const removed: string[] = [];
  const own: Field[] = [];
  run.told = fields;
  addOwn(run, status, asFields(fields), removed, own);
  const kept =
    removed.length === 0 ? fields : fields.filter(({ name }) => !removed.includes(name.toLowerCase()));
  return own.length === 0 ? kept : [...kept, ...own];
}

function asFields(fields: readonly Field[]): Fields {
  return {
    all: (name) => fields.filter((field) => field.name.toLowerCase() === name).map(({ value }) => value),
  };
}

function addOwn(run: Run, status: number, fields: Fields, removed: string[], own: Field[]): void {
  const { reply } = run.place.settings;
  const usual = ADDED_STATUSES.has(status);
  if (reply.expires !== undefined && usual) addExpires(run, fields, removed, own);
  run.status = status;
  run.sent = own;
  for (const { name, lower, value, field, always } of reply.added) {
    if (!usual && !always) continue;
    if (replacesOnReply(lower)) removed.push(lower);
    if (field !== undefined) {
      own.push(field);
      continue;
    }
    const text = value(run);
    if (text !== '') own.push({ name, value: safeValue(text) });
  }
  applyEdits(run, fields, removed, own);
  if (reply.cors !== undefined) own.push(...corsFields(run, reply.cors, isPreflight(run)));
}

function applyEdits(run: Run, fields: Fields, removed: string[], own: Field[]): void {
  for (const { do: how, name, lower, value } of run.place.settings.reply.edits) {
    if (
      how === 'default' &&
      (hasOwn(own, lower) || (!removed.includes(lower) && fields.all(lower).length > 0))
    )
      continue;
    const text = value(run);
    // Twice set is sent twice: what this list has put there itself stays.
    if ((how === 'set' || how === 'remove') && !removed.includes(lower)) {
      removed.push(lower);
      dropOwn(own, lower);
    }
    if (text !== '') own.push({ name, value: safeValue(text) });
  }
}

function hasOwn(own: readonly Field[], lower: string): boolean {
  return own.some(({ name }) => name.toLowerCase() === lower);
}

function dropOwn(own: Field[], lower: string): void {
  for (let i = own.length - 1; i >= 0; i--) if (own[i]!.name.toLowerCase() === lower) own.splice(i, 1);
}

function addExpires(run: Run, fields: Fields, removed: string[], own: Field[]): void {
  const { value, modified } = run.place.settings.reply.expires!;
  const now = Math.floor(Date.now() / 1000);
  const lastModified = modified ? Date.parse(fields.all('last-modified')[0] ?? '') : Number.NaN;
  const added = expiresFields(value(run), Number.isNaN(lastModified) ? now : lastModified / 1000, now);
  if (added.length === 0) return;
  removed.push('expires', 'cache-control');
  own.push(...added);
}

function rewriteLocation(run: Run, name: string, fields: Fields, removed: string[], own: Field[]): void {
  const [value] = fields.all(name);
  if (value === undefined) return;
  const url = name === 'refresh' ? /^\s*\d+\s*;\s*url=/i.exec(value) : null;
  const before = url?.[0] ?? '';
  const rewritten = rewrittenRedirect(run, value.slice(before.length));
  if (rewritten === undefined) return;
  removed.push(name);
  const target = name === 'location' ? redirectTarget(run, rewritten) : safeValue(rewritten);
  own.push({ name: name === 'location' ? 'Location' : 'Refresh', value: before + target });
}

/** By the first rule that fits. Undefined: it passes as it is. */
function rewrittenRedirect(run: Run, location: string): string | undefined {
  for (const rule of run.place.settings.forward.redirects) {
    const found =
      rule === 'default' ? byDefault(run, run.place.content, location) : byRule(run, rule, location);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Back from the upstream's URL to where it is served. With variables in the URL there is no default. */
function byDefault(run: Run, content: CompiledContent, location: string): string | undefined {
  if (content.kind !== 'proxy') return undefined;
  const from = content.path === undefined ? `${content.url}/` : content.url;
  if (!location.startsWith(from)) return undefined;
  return (content.path === undefined ? '/' : run.place.path) + location.slice(from.length);
}

function byRule(run: Run, rule: TextRewrite, location: string): string | undefined {
  if (rule.kind === 'text') return rewriteText(location, [rule], 'beginning', run);
  return fits(rule.from, location, run) ? rule.to(run) : undefined;
}

function rewriteCookies(run: Run, fields: Fields, removed: string[], own: Field[]): void {
  const lines = fields.all('set-cookie');
  if (lines.length === 0) return;
  removed.push('set-cookie');
  const { cookies } = run.place.settings.forward;
  for (const line of lines)
    own.push({ name: 'Set-Cookie', value: safeValue(rewriteCookie(line, cookies!, run)) });
}
