// What goes upstream as the request target: the client's own bytes, or what rules made of them.

import { percent } from './bytes.ts';
import type { Run } from './compiled.ts';
import { escapePath, isSendable } from './uri.ts';

/** `path`: the part of a proxy_pass URL from `/` on, without variables. */
export function upstreamTarget(run: Run, path: string | undefined): string {
  if (path === undefined && run.targetHolds) return run.facts.target;
  const from = run.placeHolds && path !== undefined ? run.place.path.length : 0;
  const rest = run.uri.slice(from);
  const before = run.placeHolds && path !== undefined ? path : '';
  const escaped = run.quoted || run.internal ? escapePath(rest) : rest;
  return sendable(run.args === '' ? before + escaped : `${before}${escaped}?${run.args}`);
}

/** `expanded`: that part of a URL in variables, which goes as it is. Empty: as for a URL without one. */
export function expandedTarget(run: Run, expanded: string): string {
  if (expanded === '') return upstreamTarget(run, undefined);
  return sendable(expanded.startsWith('/') ? expanded : `/${expanded}`);
}

/** The target without `prefix`, byte for byte; decoded and escaped again where the bytes say it in another way. */
export function strippedTarget(run: Run, prefix: string): string {
  const bare = prefix.endsWith('/') ? prefix.slice(0, -1) : prefix;
  const { target } = run.facts;
  if (run.targetHolds && target.startsWith(bare) && !DOT_SEGMENT.test(target))
    return rooted(target.slice(bare.length));
  const rest = run.uri.startsWith(bare) ? run.uri.slice(bare.length) : run.uri;
  return sendable(rooted(escapePath(rest)) + (run.args === '' ? '' : `?${run.args}`));
}

/** What an upstream might resolve to another place than the rules have judged. */
const DOT_SEGMENT = /(?:[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?:[/\\?;]|%2f|%5c|$)/i;

function rooted(target: string): string {
  return target.startsWith('/') ? target : `/${target}`;
}

/** Spaces and controls would end the request line (RFC 9112 §3). */
function sendable(target: string): string {
  if (isSendable(target)) return target;
  return target.replaceAll(/[\x00-\x20\x7f]/g, (byte) => percent[byte.charCodeAt(0)]!);
}
