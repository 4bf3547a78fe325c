// HTML as text in which nothing that was put in can become markup.

/** Only `html` and `join` make one. */
export interface Html {
  readonly markup: string;
}

type Part = string | number | Html | readonly Html[];

/** What stands in braces is escaped, also for attributes in double quotes, unless it is Html already. */
export function html(texts: TemplateStringsArray, ...parts: readonly Part[]): Html {
  const written = parts.map((part, index) => markupOf(part) + texts[index + 1]);
  return { markup: texts[0] + written.join('') };
}

function markupOf(part: Part): string {
  if (typeof part === 'string' || typeof part === 'number') return escaped(String(part));
  return 'markup' in part ? part.markup : part.map(({ markup }) => markup).join('');
}

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
