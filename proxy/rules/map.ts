// The map of nginx: a variable whose value is looked up by the value of another.

import { bytesOf } from './bytes.ts';
import type { Matcher, Run, Value } from './compiled.ts';
import { compileMatcher, fits } from './match.ts';
import type { VariableMap } from './model.ts';
import { compileTemplate, type Resolve } from './template.ts';

/** Exact texts first, then `*.x` the longest first, then `x.*`, then patterns in order, then the default. Case is ignored. */
export function compileMap(map: VariableMap, resolve: Resolve, slotOf: (name: string) => number): Value {
  const exact = new Map<string, Value>();
  const endings = new Map<string, Value>();
  const beginnings = new Map<string, Value>();
  const patterns: { readonly matcher: Matcher; readonly value: Value }[] = [];
  for (const entry of map.entries) {
    const value = compileTemplate(entry.value, resolve);
    if (entry.kind === 'pattern') {
      patterns.push({ matcher: compileMatcher(entry.pattern, slotOf), value });
      continue;
    }
    const text = bytesOf(entry.text).toLowerCase();
    if (map.hostnames !== true) exact.set(text, value);
    else if (text.startsWith('*.')) endings.set(text.slice(2), value);
    else if (text.endsWith('.*')) beginnings.set(text.slice(0, -2), value);
    else {
      if (text.startsWith('.')) endings.set(text.slice(1), value);
      exact.set(text.replace(/^\./, ''), value);
    }
  }
  const source = compileTemplate(map.source, resolve);
  const otherwise = compileTemplate(map.default ?? [], resolve);
  return (run) => {
    const subject = source(run);
    const text = subject.toLowerCase();
    const found =
      exact.get(text) ??
      (endings.size > 0 ? byEnding(endings, text) : undefined) ??
      (beginnings.size > 0 ? byBeginning(beginnings, text) : undefined) ??
      patterns.find(({ matcher }) => fits(matcher, subject, run))?.value ??
      otherwise;
    return found(run);
  };
}

/** Of the names that end with `.` and a known one, the value of the longest. */
export function byEnding<T>(endings: ReadonlyMap<string, T>, name: string): T | undefined {
  for (let dot = name.indexOf('.'); dot >= 0; dot = name.indexOf('.', dot + 1)) {
    const found = endings.get(name.slice(dot + 1));
    if (found !== undefined && dot > 0) return found;
  }
  return undefined;
}

/** Of the names that begin with a known one and `.`, the value of the longest. */
export function byBeginning<T>(beginnings: ReadonlyMap<string, T>, name: string): T | undefined {
  for (let dot = name.lastIndexOf('.'); dot > 0; dot = name.lastIndexOf('.', dot - 1)) {
    const found = beginnings.get(name.slice(0, dot));
    if (found !== undefined) return found;
  }
  return undefined;
}

/** A map's value is looked up once a request, however often it is asked for. */
export function remembered(value: Value, slot: number): Value {
  return (run: Run) => {
    const known = run.slots[slot];
    if (known !== undefined) return known;
    const found = value(run);
    run.slots[slot] = found;
    return found;
  };
}
