// map blocks: a variable whose value is looked up by that of another.

import type { Template, VariableMap } from '../../../proxy/rules/model.ts';
import { quote } from '../../config/values.ts';
import type { Directive } from './blocks.ts';
import type { Word } from './lexer.ts';
import { originOf, type Reading } from './reading.ts';

/** Chains of maps are followed one call deeper for each. */
const LONGEST_CHAIN = 100;

export function readMaps(directives: readonly Directive[], reading: Reading): VariableMap[] {
  const read = directives.flatMap((directive) => {
    const map = readMap(directive, reading);
    return map === undefined ? [] : [{ map, at: directive.name }];
  });
  const byVariable = new Map(read.map((one) => [one.map.variable, one]));
  /** How many maps a variable leads through, itself included. */
  const lengths = new Map<string, number>();
  const measure = (variable: string, depth: number): number => {
    const known = lengths.get(variable);
    if (known !== undefined) return known;
    const one = byVariable.get(variable);
    if (one === undefined) return 0;
    if (depth > LONGEST_CHAIN) return Number.POSITIVE_INFINITY;
    lengths.set(variable, Number.POSITIVE_INFINITY);
    const length = 1 + Math.max(0, ...[...variablesOf(one.map)].map((name) => measure(name, depth + 1)));
    lengths.set(variable, length);
    return length;
  };
  for (const { map, at } of read)
    if (measure(map.variable, 0) > LONGEST_CHAIN)
      reading.refuse(
        at,
        `the map of $${map.variable} leads to itself, or through more than ${LONGEST_CHAIN} maps`,
        'let its values and its source name other variables',
      );
  return read.map(({ map }) => map);
}

function variablesOf(map: VariableMap): Set<string> {
  const names = new Set<string>();
  const add = (template: Template) => {
    for (const part of template) if (typeof part !== 'string') names.add(part.name);
  };
  add(map.source);
  add(map.default ?? []);
  for (const { value } of map.entries) add(value);
  return names;
}

function readMap(directive: Directive, reading: Reading): VariableMap | undefined {
  const [source, target] = directive.args as [Word, Word];
  const template = reading.template(source);
  const variable = reading.variable(target, 'map');
  const lines = directive.block!;
  const hostnames = lines.some(({ name, args }) => name.text === 'hostnames' && args.length === 0);
  const entries: VariableMap['entries'][number][] = [];
  const seen = new Set<string>();
  let byDefault: Template | undefined;
  for (const { name, args, block } of lines) {
    if (args.length === 0 && (name.text === 'hostnames' || name.text === 'volatile')) continue;
    const [value] = args;
    if (value === undefined || args.length > 1 || block !== undefined) {
      reading.refuse(
        name,
        `the line of ${quote(name.text)} is no entry of a map`,
        'wants a text or ~pattern, and a value',
      );
      continue;
    }
    const key = hostnames ? name.text.toLowerCase() : name.text;
    if (seen.has(key))
      reading.refuse(name, `${quote(name.text)} is written twice in this map`, 'wants one of them');
    seen.add(key);
    const given = reading.template(value);
    if (name.text === 'default') byDefault = given;
    else {
      const entry = readKey(name, reading);
      if (entry !== undefined) entries.push({ ...entry, value: given });
    }
  }
  if (variable === undefined) return undefined;
  return {
    origin: originOf(directive),
    variable,
    source: template,
    ...(hostnames && { hostnames }),
    entries,
    ...(byDefault !== undefined && { default: byDefault }),
  };
}

/** A backslash in front takes the meaning from words like default. */
function readKey(word: Word, reading: Reading): ReturnType<Reading['textOrPattern']> {
  return word.text.startsWith('\\')
    ? { kind: 'text', text: word.text.slice(1) }
    : reading.textOrPattern(word);
}
