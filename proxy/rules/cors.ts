// Cross-origin requests: who may ask from a browser, and the answer to its preflight (Fetch standard, CORS protocol).

import { bytesOf } from './bytes.ts';
import type { Field, Run } from './compiled.ts';
import type { Cors } from './model.ts';
import { compilePattern } from './pattern.ts';

/** A browser asks before it sends. */
export function isPreflight(run: Run): boolean {
  const { headers, method } = run.facts;
  return (
    method === 'OPTIONS' &&
    headers.all('origin').length > 0 &&
    headers.all('access-control-request-method').length > 0
  );
}

/** Of any reply; those of the upstream about the same are not passed. */
export function corsFields(run: Run, cors: Cors, preflight: boolean): readonly Field[] {
  const origin = run.facts.headers.all('origin')[0];
  const fields: Field[] = [];
  const add = (name: string, value: string) => fields.push({ name, value });
  const any =
    cors.credentials !== true && cors.origins.some((one) => one.kind === 'text' && one.text === '*');
  if (!any) add('Vary', 'Origin');
  if (origin === undefined || (!any && !mayAsk(cors, origin))) return fields;
  add('Access-Control-Allow-Origin', any ? '*' : origin);
  if (cors.credentials === true) add('Access-Control-Allow-Credentials', 'true');
  if (!preflight) {
    if (cors.expose !== undefined && cors.expose.length > 0)
      add('Access-Control-Expose-Headers', cors.expose.join(', '));
    return fields;
  }
  add('Access-Control-Allow-Methods', cors.methods.join(', '));
  const headers =
    cors.headers?.join(', ') ?? run.facts.headers.all('access-control-request-headers').join(', ');
  if (headers !== '') add('Access-Control-Allow-Headers', headers);
  if (cors.maxAgeSeconds !== undefined) add('Access-Control-Max-Age', String(cors.maxAgeSeconds));
  return fields;
}

export const corsNames: readonly string[] = [
  'access-control-allow-origin',
  'access-control-allow-credentials',
  'access-control-allow-methods',
  'access-control-allow-headers',
  'access-control-expose-headers',
  'access-control-max-age',
];

function mayAsk({ origins }: Cors, origin: string): boolean {
  return origins.some((one) =>
    one.kind === 'text'
      ? one.text === '*' || bytesOf(one.text).toLowerCase() === origin.toLowerCase()
      : compiled(one.pattern).test(origin),
  );
}

const patterns = new WeakMap<object, ReturnType<typeof compilePattern>>();

function compiled(pattern: Parameters<typeof compilePattern>[0]): ReturnType<typeof compilePattern> {
  const known = patterns.get(pattern);
  if (known !== undefined) return known;
  const made = compilePattern(pattern);
  patterns.set(pattern, made);
  return made;
}
