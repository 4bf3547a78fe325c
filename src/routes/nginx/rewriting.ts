// set, if, rewrite, return and break of a level, in the order of the file.

import type { Condition, If, Instruction, Return } from '../../../proxy/rules/model.ts';
import { quote } from '../../config/values.ts';
import type { Directive } from './blocks.ts';
import type { Word } from './lexer.ts';
import { originOf, type Reading } from './reading.ts';
import { readCount } from './values.ts';

/** What an `if` of a location says beyond this: undefined in a server, where it may say nothing else. */
export type ReadBranch = ((block: readonly Directive[]) => Pick<If, 'policy' | 'content'>) | undefined;

export function readProgram(
  directives: readonly Directive[],
  branch: ReadBranch,
  reading: Reading,
): Instruction[] {
  return directives.flatMap((directive): Instruction[] => {
    const read = readers[directive.name.text]?.(directive, branch, reading);
    return read === undefined ? [] : [{ ...read, origin: originOf(directive) }];
  });
}

const readers: Readonly<
  Record<string, (directive: Directive, branch: ReadBranch, reading: Reading) => Instruction | undefined>
> = {
  __proto__: null as never,
  set: ({ args }, _, reading) => {
    const [name, value] = args as [Word, Word];
    const variable = reading.variable(name, 'set');
    const template = reading.template(value);
    return variable === undefined ? undefined : { do: 'set', variable, value: template };
  },
  break: () => ({ do: 'break' }),
  return: ({ args }, _, reading) => readReturn(args, reading),
  rewrite: ({ args }, _, reading) => readRewrite(args as [Word, Word, Word?], reading),
  if: ({ name, args, block }, branch, reading) => {
    const condition = readCondition(name, args, reading);
    const body = readProgram(block!, undefined, reading);
    const more = branch?.(block!) ?? {};
    return condition === undefined ? undefined : { do: 'if', condition, body, ...more };
  },
};

const flags = {
  __proto__: null as never,
  last: 'last',
  break: 'break',
  redirect: 'redirect',
  permanent: 'permanent',
} as const;

function readRewrite([from, to, flag]: [Word, Word, Word?], reading: Reading): Instruction | undefined {
  const pattern = reading.pattern(from, false);
  const template = reading.template(to);
  const known = flag === undefined ? 'next' : flags[flag.text as keyof typeof flags];
  if (known === undefined)
    return reading.refuse(
      flag!,
      `${quote(flag!.text)} is not a flag of rewrite`,
      'wants last, break, redirect or permanent',
    );
  return pattern && { do: 'rewrite', pattern, to: template, flag: known };
}

const REDIRECTS = new Set([301, 302, 303, 307, 308]);

function readReturn([first, text]: readonly Word[], reading: Reading): Return | undefined {
  if (text === undefined && /^(https?:\/\/|\$scheme)/.test(first!.text))
    return { do: 'return', status: 302, location: reading.template(first!) };
  const status = readCount(first!.text, 999);
  if (status === undefined || (status < 200 && status !== 0) || status === 0)
    return reading.refuse(
      first!,
      `${quote(first!.text)} is neither a status nor a URL`,
      'wants a status from 200 to 999, a status and a text, or a URL',
    );
  if (text === undefined) return { do: 'return', status };
  const template = reading.template(text);
  return REDIRECTS.has(status)
    ? { do: 'return', status, location: template }
    : { do: 'return', status, body: template };
}

const fileTests = { f: 'file', d: 'directory', e: 'exists', x: 'executable' } as const;

function readCondition(name: Word, args: readonly Word[], reading: Reading): Condition | undefined {
  const words = withoutParentheses(args);
  const wrong = () =>
    reading.refuse(
      name,
      `if ${args.map(({ text }) => text).join(' ')} is not a condition`,
      'wants ($a), ($a = text), ($a ~ re) or (-f path), and spaces around the operator',
    );
  if (words === undefined) return wrong();
  const [first, second, third, ...more] = words;
  if (first === undefined || more.length > 0) return wrong();
  const file = /^(!?)-([fdex])$/.exec(first.text);
  if (file !== null) {
    if (second === undefined || third !== undefined) return wrong();
    const test = fileTests[file[2] as keyof typeof fileTests];
    return { test, path: reading.template(second), ...(file[1] === '!' && { not: true }) };
  }
  if (!/^\$\w+$/.test(first.text)) return wrong();
  const variable = reading.use(first);
  if (variable === undefined) return undefined;
  if (second === undefined) return { test: 'set', variable };
  if (third === undefined) return wrong();
  return readComparison(variable, second, third, reading);
}

function readComparison(
  variable: string,
  operator: Word,
  value: Word,
  reading: Reading,
): Condition | undefined {
  const [, no, kind] = /^(!?)(=|~\*?)$/.exec(operator.text) ?? [];
  const not = no === '!' ? { not: true } : {};
  if (kind === '=') return { test: 'equal', variable, value: reading.template(value), ...not };
  if (kind === undefined)
    return reading.refuse(
      operator,
      `${quote(operator.text)} compares nothing`,
      'wants =, !=, ~, !~, ~* or !~*',
    );
  const pattern = reading.pattern(value, kind === '~*');
  return pattern && { test: 'match', variable, pattern, ...not };
}

/** They may be words of their own or parts of the first and the last. Undefined: they are not there. */
function withoutParentheses(args: readonly Word[]): Word[] | undefined {
  const words = [...args];
  const first = words[0];
  if (first === undefined || !first.text.startsWith('(')) return undefined;
  words[0] = { ...first, text: first.text.slice(1), column: first.column + 1 };
  if (words[0].text === '') words.shift();
  const last = words.pop();
  if (last === undefined || !last.text.endsWith(')')) return undefined;
  const text = last.text.slice(0, -1);
  return text === '' ? words : [...words, { ...last, text }];
}
