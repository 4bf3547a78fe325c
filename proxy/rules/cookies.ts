// Set-Cookie of an upstream, with path, domain and flags as rules want them.

import type { CookieRules, Run, TextRewrite } from './compiled.ts';
import { fits } from './match.ts';

interface Attribute {
  readonly key: string;
  /** Undefined: it has none. */
  readonly value: string | undefined;
}

/** A line without a change comes back as it was. */
export function rewriteCookie(line: string, { paths, domains, flags }: CookieRules, run: Run): string {
  const [pair = '', ...rest] = line.split(';');
  const name = pair.slice(0, Math.max(pair.indexOf('='), 0)).trim();
  let changed = false;
  const attributes = rest.map((text): Attribute => {
    const attribute = parseAttribute(text);
    const rewritten = rewriteAttribute(attribute, paths, domains, run);
    if (rewritten !== undefined) changed = true;
    return rewritten ?? attribute;
  });
  const rule = flags.find(({ cookie }) =>
    'text' in cookie ? cookie.text(run) === name : fits(cookie.matcher, name, run),
  );
  if (rule === undefined && !changed) return line;
  const flagged = rule === undefined ? attributes : withFlags(attributes, rule.set, rule.remove);
  return [pair, ...flagged.map(({ key, value }) => (value === undefined ? key : `${key}=${value}`))].join(
    '; ',
  );
}

function parseAttribute(text: string): Attribute {
  const equals = text.indexOf('=');
  if (equals < 0) return { key: text.trim(), value: undefined };
  return { key: text.slice(0, equals).trim(), value: text.slice(equals + 1).trim() };
}

function rewriteAttribute(
  { key, value }: Attribute,
  paths: readonly TextRewrite[],
  domains: readonly TextRewrite[],
  run: Run,
): Attribute | undefined {
  if (value === undefined) return undefined;
  const lower = key.toLowerCase();
  if (lower === 'path') return changedTo(key, rewriteText(value, paths, 'beginning', run));
  if (lower !== 'domain') return undefined;
  return changedTo(key, rewriteText(value, domains, 'whole', run));
}

function changedTo(key: string, value: string | undefined): Attribute | undefined {
  return value === undefined ? undefined : { key, value };
}

/** By the first rule that fits. Undefined: none does. */
export function rewriteText(
  text: string,
  rules: readonly TextRewrite[],
  how: 'beginning' | 'whole',
  run: Run,
): string | undefined {
  for (const rule of rules) {
    if (rule.kind === 'pattern') {
      // Of what it was tried on, nothing stays.
      if (fits(rule.from, text, run)) return rule.to(run);
      continue;
    }
    const from = rule.from(run);
    // A dot in front of a domain means nothing any more (RFC 6265 §5.2.3), and stays where it is.
    const dot = how === 'whole' && text.startsWith('.') ? '.' : '';
    const bare = text.slice(dot.length).toLowerCase();
    if (how === 'whole' && from.replace(/^\./, '').toLowerCase() === bare) return dot + rule.to(run);
    if (how === 'beginning' && text.startsWith(from)) return rule.to(run) + text.slice(from.length);
  }
  return undefined;
}

function withFlags(
  attributes: readonly Attribute[],
  set: readonly string[],
  remove: readonly string[],
): Attribute[] {
  const given = set.map((flag) => parseAttribute(usual[flag.toLowerCase()] ?? flag));
  const gone = new Set([...remove, ...given.map(({ key }) => key)].map((key) => key.toLowerCase()));
  return [...attributes.filter(({ key }) => !gone.has(key.toLowerCase())), ...given];
}

/** In the spelling of RFC 6265. */
const usual: Readonly<Record<string, string>> = {
  secure: 'Secure',
  httponly: 'HttpOnly',
  'samesite=strict': 'SameSite=Strict',
  'samesite=lax': 'SameSite=Lax',
  'samesite=none': 'SameSite=None',
};
