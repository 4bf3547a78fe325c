// map blocks: a variable whose value is looked up by that of another.

import type { Template, VariableMap } from '../../../proxy/rules/model.ts';
import { quote } from '../../config/values.ts';
import type { Directive } from './blocks.ts';
import type { Word } from './lexer.ts';
import { originOf, type Reading } from './reading.ts';

export function readMap(directive: Directive, reading: Reading): VariableMap | undefined {
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
