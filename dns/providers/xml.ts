// The simple XML of some APIs: elements, attributes and text. Everything else is refused.

export interface Element {
  readonly name: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly children: readonly Element[];
  /** Its own text, without that of its children. */
  readonly text: string;
}

interface Open {
  name: string;
  attributes: Record<string, string>;
  children: Element[];
  text: string;
}

const TOKEN =
  /<\?[^>]*\?>|<!--[\s\S]*?-->|<\/([\w.:-]+)\s*>|<([\w.:-]+)((?:\s+[\w.:-]+\s*=\s*(?:"[^"<]*"|'[^'<]*'))*)\s*(\/?)>|([^<]+)/gy;
const ATTRIBUTE = /([\w.:-]+)\s*=\s*(?:"([^"]*)"|'([^']*)')/g;

/** The root element, or undefined if the text is incomplete or not well formed. */
export function parseXml(text: string): Element | undefined {
  const root: Open = { name: '', attributes: {}, children: [], text: '' };
  const open = [root];
  let at = 0;
  for (const match of text.trim().matchAll(TOKEN)) {
    at += match[0].length;
    const [, closes, opens, attributes = '', empty, content] = match;
    const parent = open.at(-1)!;
    if (content !== undefined) parent.text += decodeEntities(content);
    if (opens !== undefined) {
      const element = { name: opens, attributes: readAttributes(attributes), children: [], text: '' };
      parent.children.push(element);
      if (empty === '') open.push(element);
    }
    if (closes !== undefined && (open.length === 1 || open.pop()!.name !== closes)) return undefined;
  }
  const whole = at === text.trim().length && open.length === 1;
  return whole && root.children.length === 1 && root.text.trim() === '' ? root.children[0] : undefined;
}

/** All elements of that name at any depth, whatever its case. */
export function elementsNamed(element: Element, name: string): Element[] {
  const here = element.name.toLowerCase() === name.toLowerCase() ? [element] : [];
  return [...here, ...element.children.flatMap((child) => elementsNamed(child, name))];
}

function readAttributes(text: string): Record<string, string> {
  const found = [...text.matchAll(ATTRIBUTE)].map(([, name, double, single]) => [
    name!,
    decodeEntities(double ?? single ?? ''),
  ]);
  return Object.fromEntries(found);
}

const ENTITIES: Readonly<Record<string, string>> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" };

function decodeEntities(text: string): string {
  return text.replace(
    /&(?:#x([0-9a-f]{1,6})|#(\d{1,7})|(\w+));/gi,
    (whole, hex?: string, decimal?: string, name?: string) => {
      if (name !== undefined) return ENTITIES[name] ?? whole;
      const code = hex === undefined ? Number(decimal) : Number.parseInt(hex, 16);
      return code <= 0x10ffff ? String.fromCodePoint(code) : whole;
    },
  );
}
