// JSON that all readers understand alike: an object has each name once (RFC 7493 §2.3), and few levels.

/** What is published has six at most. Whoever goes deeper wants to exhaust a reader. */
const MOST_LEVELS = 64;

/**
 * As JSON.parse, and throws SyntaxError also for a name that stands twice in one object: of two values some readers take the
 * first and some the last, so that each is shown another document.
 */
export function parseStrictJson(text: string): unknown {
  const value: unknown = JSON.parse(text);
  const fault = faultIn(text);
  if (fault !== undefined) throw new SyntaxError(fault);
  return value;
}

/** `text` is JSON. */
function faultIn(text: string): string | undefined {
  /** The names so far of each object that is open; undefined: it is a list. */
  const open: (Set<string> | undefined)[] = [];
  let nameComes = false;
  for (let at = 0; at < text.length; at++) {
    switch (text[at]) {
      case '{':
      case '[':
        if (open.length === MOST_LEVELS) return `more than ${MOST_LEVELS} levels of JSON`;
        nameComes = text[at] === '{';
        open.push(nameComes ? new Set() : undefined);
        break;
      case '}':
      case ']':
        open.pop();
        nameComes = false;
        break;
      case ',':
        nameComes = open.at(-1) !== undefined;
        break;
      case '"': {
        const end = endOfString(text, at);
        if (nameComes) {
          const name = JSON.parse(text.slice(at, end + 1)) as string;
          if (open.at(-1)!.has(name))
            return `${JSON.stringify(name.slice(0, 100))} stands twice in one object`;
          open.at(-1)!.add(name);
          nameComes = false;
        }
        at = end;
      }
    }
  }
  return undefined;
}

/** The place of the quotation mark that ends the string which begins at `start`. */
function endOfString(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); ; end = text.indexOf('"', end + 1)) {
    let backslashes = 0;
    while (text[end - 1 - backslashes] === '\\') backslashes++;
    if (backslashes % 2 === 0) return end;
  }
}
