// Whether a text fits: patterns that leave captures behind, and the conditions of routes on method, headers and query.

import { bytesOf } from './bytes.ts';
import type { Matcher, Run } from './compiled.ts';
import type { NamedMatch, Pattern, RequestMatch, ValueMatch } from './model.ts';
import { compilePattern } from './pattern.ts';

/** `slotOf` gives the slot of a variable, for the named groups. */
export function compileMatcher(pattern: Pattern, slotOf: (name: string) => number): Matcher {
  const compiled = compilePattern(pattern);
  return {
    pattern: compiled,
    named: compiled.names.map((name) => [compiled.indexOf(name), slotOf(name.toLowerCase())] as const),
  };
}

/** A fit sets the captures and the named groups; a misfit leaves them as they were. */
export function fits({ pattern, named }: Matcher, subject: string, run: Run): boolean {
  const captures = pattern.exec(subject);
  if (captures === undefined) return false;
  run.captures = captures;
  for (const [capture, slot] of named) run.slots[slot] = captures[capture] ?? '';
  return true;
}

/** A function that is true where all of it fits. */
export function compileRequestMatch({
  methods,
  headers = [],
  query = [],
}: RequestMatch): (run: Run) => boolean {
  const tests: ((run: Run) => boolean)[] = [];
  if (methods !== undefined) {
    const known = new Set(methods);
    tests.push((run) => known.has(run.method));
  }
  for (const match of headers) tests.push(headerTest(match));
  for (const match of query) tests.push(queryTest(match));
  return (run) => tests.every((test) => test(run));
}

function headerTest({ name, value }: NamedMatch): (run: Run) => boolean {
  const lower = name.toLowerCase();
  const test = valueTest(value);
  if (lower === 'host') return (run) => test(run.facts.host);
  return (run) => {
    const all = run.facts.headers.all(lower);
    return all.length === 0 ? test(undefined) : all.some(test);
  };
}

/** Decoded, as programs read a query: `+` is a space. */
function queryTest({ name, value }: NamedMatch): (run: Run) => boolean {
  const test = valueTest(value);
  const wanted = bytesOf(name);
  return (run) => {
    const found: string[] = [];
    for (const pair of run.args.split('&')) {
      const equals = pair.indexOf('=');
      if (decoded(equals < 0 ? pair : pair.slice(0, equals)) !== wanted || pair === '') continue;
      found.push(equals < 0 ? '' : decoded(pair.slice(equals + 1)));
    }
    return found.length === 0 ? test(undefined) : found.some(test);
  };
}

function decoded(text: string): string {
  return text
    .replaceAll('+', ' ')
    .replaceAll(/%([0-9A-Fa-f]{2})/g, (_, digits: string) =>
      String.fromCharCode(Number.parseInt(digits, 16)),
    );
}

function valueTest(value: ValueMatch): (text: string | undefined) => boolean {
  if (value.kind === 'present') return (text) => text !== undefined;
  if (value.kind === 'absent') return (text) => text === undefined;
  if (value.kind === 'text') {
    const wanted = bytesOf(value.text);
    return (text) => text === wanted;
  }
  const pattern = compilePattern(value.pattern);
  return (text) => text !== undefined && pattern.test(text);
}
