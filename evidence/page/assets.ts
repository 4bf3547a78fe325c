// What the page loads: its style, its script, its icon and the verifier, compressed when the program was bundled.

import { readFileSync } from 'node:fs';
import { createDocument, type Document } from './document.ts';

const types: Readonly<Record<string, string>> = {
  'page.css': 'text/css; charset=utf-8',
  'page.js': 'text/javascript; charset=utf-8',
  'page.svg': 'image/svg+xml',
  'verifier.js': 'text/javascript; charset=utf-8',
  /** The licences of what is in it; its first line names this file. */
  'verifier.js.LEGAL.txt': 'text/plain; charset=utf-8',
};

export type Encoding = 'br' | 'gzip';

/** What the build adds to a name. */
const endings: Readonly<Record<Encoding, string>> = { br: '.br', gzip: '.gz' };

export interface Asset {
  readonly plain: Document;
  /** Beside it, where there are any. */
  readonly encoded: Readonly<Partial<Record<Encoding, Document>>>;
}

const known = new Map<string, Asset | undefined>();

/** Read when it is first asked for, and kept. Undefined for other names, and for what this program was built without. */
export function assetNamed(name: string): Asset | undefined {
  if (!Object.hasOwn(types, name)) return undefined;
  if (!known.has(name)) known.set(name, load(name, types[name]!));
  return known.get(name);
}

function load(name: string, contentType: string): Asset | undefined {
  const plain = bytesOf(name);
  if (plain === undefined) return undefined;
  const encoded = Object.entries(endings).flatMap(([encoding, ending]) => {
    const bytes = bytesOf(name + ending);
    return bytes === undefined ? [] : [[encoding, createDocument(contentType, bytes)]];
  });
  return { plain: createDocument(contentType, plain), encoded: Object.fromEntries(encoded) };
}

/** In the bundle all lie beside this code. From source the verifier is where `npm run bundle:browser` puts it. */
function bytesOf(name: string): Uint8Array | undefined {
  const isMade = import.meta.url.endsWith('.ts') && name.startsWith('verifier.js');
  try {
    return readFileSync(new URL(isMade ? `../../dist/browser/${name}` : `./${name}`, import.meta.url));
  } catch {
    return undefined;
  }
}
