// A file as a reply, with ranges and conditions (RFC 9110 §13 and §14); what leads out of its root is not there.

import { readdir, stat } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { send } from '@fastify/send';
import type { Fields } from '../rules/compiled.ts';
import type { SendFile } from '../rules/step.ts';
import { placeBelow } from './disk.ts';
import { isOwnable } from './head-fields.ts';
import type { OwnFields } from './ruled.ts';

export interface FileReply {
  readonly status: number;
  readonly fields: OwnFields;
  /** Of a stream. */
  readonly length: number | undefined;
  readonly body: Readable | undefined;
  /** Instead of a stream. */
  readonly bytes: Buffer | undefined;
}

/** Headers that choose what of a file is sent. */
const CONDITIONS = [
  'if-match',
  'if-none-match',
  'if-modified-since',
  'if-unmodified-since',
  'if-range',
  'range',
];

/** Undefined: it is not there. */
export async function sendFile(
  step: SendFile,
  method: string,
  headers: Fields,
): Promise<FileReply | undefined> {
  const place = await realPlace(step);
  if (place === undefined) return undefined;
  if (step.listing) return listing(step, place);
  // An error page is sent whole, whatever was asked of the page in whose place it is.
  const names = step.status === 200 ? CONDITIONS : [];
  const asked = Object.fromEntries(
    names.flatMap((name) => {
      const values = headers.all(name);
      return values.length === 0 ? [] : [[name, values.join(', ')]];
    }),
  );
  const given = await send(
    { method: method === 'HEAD' ? 'HEAD' : 'GET', headers: asked } as unknown as Parameters<typeof send>[0],
    encodeURIComponent(place.slice(place.lastIndexOf('/') + 1)),
    {
      root: place.slice(0, place.lastIndexOf('/') + 1),
      index: false,
      dotfiles: 'allow',
      cacheControl: false,
      etag: step.etag,
    },
  );
  if (given.type === 'error' && given.statusCode === 404) return undefined;
  if (given.type === 'directory') return undefined;
  return {
    status: given.statusCode === 200 ? step.status : given.statusCode,
    fields: fieldsOf(step, given.headers as Readonly<Record<string, string>>),
    length: lengthOf(given.headers as Readonly<Record<string, string>>),
    body: given.type === 'error' ? undefined : given.stream,
    bytes: undefined,
  };
}

async function realPlace({ path, root }: SendFile): Promise<string | undefined> {
  if (path.includes('\0')) return undefined;
  try {
    const place = await placeBelow(path, root);
    return place === undefined ? undefined : Buffer.from(place, 'latin1').toString('utf8');
  } catch {
    return undefined;
  }
}

/** The rules know the type better, and framing is the ingress's own. */
function fieldsOf(step: SendFile, given: Readonly<Record<string, string>>): OwnFields {
  const kept = Object.entries(given)
    .filter(([name]) => /^(?:accept-ranges|last-modified|etag|content-range)$/i.test(name))
    .map(([name, value]) => [name, String(value)] as const);
  const own = step.fields
    .filter(({ name }) => isOwnable(name.toLowerCase()))
    .map(({ name, value }) => [name, value] as const);
  return [['Content-Type', step.contentType], ...kept, ...own];
}

function lengthOf(given: Readonly<Record<string, string>>): number | undefined {
  const said = Object.entries(given).find(([name]) => name.toLowerCase() === 'content-length')?.[1];
  return said === undefined ? undefined : Number(said);
}

async function listing(step: SendFile, place: string): Promise<FileReply | undefined> {
  const found = await stat(place);
  if (!found.isDirectory()) return undefined;
  const entries = await readdir(place, { withFileTypes: true });
  const names = entries.map((entry) => (entry.isDirectory() ? `${entry.name}/` : entry.name)).sort();
  const items = ['../', ...names].map((name) => `<li><a href="${linkTo(name)}">${escaped(name)}</a></li>`);
  const html = `<!doctype html>\n<meta charset="utf-8">\n<title>Index</title>\n<ul>\n${items.join('\n')}\n</ul>\n`;
  return {
    status: step.status,
    fields: fieldsOf({ ...step, contentType: 'text/html; charset=utf-8' }, {}),
    length: undefined,
    body: undefined,
    bytes: Buffer.from(html),
  };
}

/** Dots that begin a name would lead elsewhere, and a colon would name a scheme. */
function linkTo(name: string): string {
  if (name === '../') return name;
  const folder = name.endsWith('/') ? '/' : '';
  return `./${encodeURIComponent(folder === '' ? name : name.slice(0, -1))}${folder}`;
}

function escaped(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}
