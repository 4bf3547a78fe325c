// Text with variables in it: read once, then a function from a request to text.

import { bytesOf } from './bytes.ts';
import type { Value } from './compiled.ts';
import type { Template } from './model.ts';

/** `$name`, `${name}` and `$1` are variables; everything else is text. There is no escape for `$`, as in nginx. */
export function parseTemplate(text: string): Template | { readonly fault: string; readonly cure: string } {
  const parts: (string | { readonly name: string })[] = [];
  const variable = /\$(?:\{(\w+)\}|([1-9])|([A-Za-z_]\w*))/y;
  let start = 0;
  for (let dollar = text.indexOf('$'); dollar >= 0; dollar = text.indexOf('$', start)) {
    if (dollar > start) parts.push(text.slice(start, dollar));
    variable.lastIndex = dollar;
    const found = variable.exec(text);
    if (found === null)
      return {
        fault: `a $ without a variable's name after it: ${text.slice(dollar, dollar + 20)}`,
        cure: 'write the name, as in $host; for a $ itself use a variable that holds one',
      };
    // Names of variables ignore case.
    parts.push({ name: (found[1] ?? found[2] ?? found[3])!.toLowerCase() });
    start = variable.lastIndex;
  }
  if (start < text.length) parts.push(text.slice(start));
  return parts;
}

/** Finds the function of a variable by its name. */
export type Resolve = (name: string) => Value;

const empty: Value = () => '';

export function compileTemplate(template: Template, resolve: Resolve): Value {
  const parts = template.map((part) => (typeof part === 'string' ? bytesOf(part) : resolve(part.name)));
  const [first, second] = parts;
  if (first === undefined) return empty;
  if (second === undefined) return typeof first === 'string' ? () => first : first;
  return (run) => {
    let text = '';
    for (const part of parts) text += typeof part === 'string' ? part : part(run);
    return text;
  };
}

/** The text of a template without variables. */
export function literalOf(template: Template): string | undefined {
  return template.every((part) => typeof part === 'string') ? template.map(bytesOf).join('') : undefined;
}

/** As it was written, more or less: for people. */
export function templateText(template: Template): string {
  return template
    .map((part, i) => {
      if (typeof part === 'string') return part;
      const next = template[i + 1];
      return typeof next === 'string' && /^\w/.test(next) ? `\${${part.name}}` : `$${part.name}`;
    })
    .join('');
}
