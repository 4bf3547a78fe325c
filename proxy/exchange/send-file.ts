// A file as a reply, whole or in parts; what leads out of its root is not there.

import { constants } from 'node:fs';
import { open, readdir, stat } from 'node:fs/promises';
import type { Field, Fields } from '../rules/compiled.ts';
import type { SendFile } from '../rules/step.ts';
import { placeBelow } from './disk.ts';
import { FileBody, type Part } from './file-body.ts';
import { type FileFacts, type Portion, portionOf, type Range } from './file-ranges.ts';
import { isOwnable } from './head-fields.ts';
import type { OwnFields } from './ruled-client.ts';

export interface FileReply {
  /** With 412 and 416 the rules say what the client is told. */
  readonly status: number;
  readonly fields: OwnFields;
  readonly length: number;
  /** Must be read, or destroyed. */
  readonly body: FileBody | undefined;
  /** Instead of it. */
  readonly bytes: Buffer;
}

/** Read at once: it fits into one write, and nobody has to wait for its parts. */
const SMALL_BYTES = 64 * 1024;
const NO_BYTES = Buffer.alloc(0);

/** Undefined: it is not there. */
export async function sendFile(
  step: SendFile,
  method: string,
  headers: Fields,
): Promise<FileReply | undefined> {
  const place = await realPlace(step);
  if (place === undefined) return undefined;
  if (step.listing) return listing(step, place);
  // A pipe without a writer would be waited for. The last name of a real path is no link, unless it has just become one.
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  const handle = await open(Buffer.from(place, 'latin1'), flags).catch(() => undefined);
  if (handle === undefined) return undefined;
  let isKept = false;
  try {
    const found = await handle.stat();
    if (!found.isFile()) return undefined;
    const file = factsOf(step, found.size, Math.floor(found.mtimeMs / 1000));
    // An error page is sent whole, whatever was asked of the page in whose place it is.
    const portion: Portion = step.status === 200 ? portionOf(file, headers) : { kind: 'whole' };
    const reply = replyOf(step, file, portion);
    const { parts, length } = reply;
    if (parts.length === 0 || length === 0 || method === 'HEAD')
      return { ...reply, body: method === 'HEAD' ? FileBody.none : undefined, bytes: NO_BYTES };
    const body = new FileBody(handle, parts);
    if (length <= SMALL_BYTES) return { ...reply, body: undefined, bytes: await body.whole() };
    isKept = true;
    return { ...reply, body, bytes: NO_BYTES };
  } finally {
    if (!isKept) await handle.close();
  }
}

async function realPlace({ path, root }: SendFile): Promise<string | undefined> {
  if (path.includes('\0')) return undefined;
  try {
    return await placeBelow(path, root);
  } catch {
    return undefined;
  }
}

/** The tag is made as nginx makes it, so that what browsers have kept stays good when the one takes the other's place. */
function factsOf({ etag }: SendFile, bytes: number, modified: number): FileFacts {
  return { bytes, modified, etag: etag ? `"${modified.toString(16)}-${bytes.toString(16)}"` : undefined };
}

interface Planned {
  readonly status: number;
  readonly fields: OwnFields;
  readonly parts: readonly Part[];
  readonly length: number;
}

function replyOf(step: SendFile, file: FileFacts, portion: Portion): Planned {
  const { bytes } = file;
  switch (portion.kind) {
    case 'failed-condition':
      return { status: 412, fields: [], parts: [], length: 0 };
    case 'no-such-range':
      return { status: 416, fields: [['Content-Range', `bytes */${bytes}`]], parts: [], length: 0 };
    case 'unchanged':
      return { status: 304, fields: withoutType(fieldsOf(step, file)), parts: [], length: 0 };
    case 'whole': {
      const ranges = step.status === 200 ? ([['Accept-Ranges', 'bytes']] as const) : [];
      const fields = fieldsOf(step, file);
      return {
        status: step.status,
        fields: [...fields, ...ranges],
        parts: [{ start: 0, end: bytes }],
        length: bytes,
      };
    }
    case 'ranges':
      return portion.ranges.length === 1
        ? onePart(step, file, portion.ranges[0]!)
        : severalParts(step, file, portion.ranges);
  }
}

function onePart(step: SendFile, file: FileFacts, range: Range): Planned {
  const told = [['Content-Range', written(range, file)]] as const;
  return {
    status: 206,
    fields: [...fieldsOf(step, file), ...told],
    parts: [range],
    length: range.end - range.start,
  };
}

/** RFC 9110 §14.6. */
function severalParts(step: SendFile, file: FileFacts, ranges: readonly Range[]): Planned {
  const boundary = `part-${crypto.randomUUID()}`;
  const parts = ranges.flatMap((range): Part[] => {
    const about = `Content-Type: ${step.contentType}\r\nContent-Range: ${written(range, file)}`;
    return [Buffer.from(`\r\n--${boundary}\r\n${about}\r\n\r\n`, 'latin1'), range];
  });
  parts.push(Buffer.from(`\r\n--${boundary}--\r\n`, 'latin1'));
  const length = parts.reduce(
    (sum, part) => sum + (part instanceof Uint8Array ? part.length : part.end - part.start),
    0,
  );
  const type = ['Content-Type', `multipart/byteranges; boundary=${boundary}`] as const;
  return { status: 206, fields: [type, ...withoutType(fieldsOf(step, file))], parts, length };
}

function written({ start, end }: Range, { bytes }: FileFacts): string {
  return `bytes ${start}-${end - 1}/${bytes}`;
}

/** What stands in the place of another page has no date of its own: the page has none. */
function fieldsOf(step: SendFile, { etag, modified }: FileFacts): OwnFields {
  const version = etag === undefined ? [] : [{ name: 'ETag', value: etag }];
  if (step.status === 200)
    version.unshift({ name: 'Last-Modified', value: new Date(modified * 1000).toUTCString() });
  return ownable(step.fieldsWith(version));
}

function ownable(fields: readonly Field[]): OwnFields {
  return fields
    .filter(({ name }) => isOwnable(name.toLowerCase()))
    .map(({ name, value }) => [name, value] as const);
}

function withoutType(fields: OwnFields): OwnFields {
  return fields.filter(([name]) => name.toLowerCase() !== 'content-type');
}

async function listing(step: SendFile, place: string): Promise<FileReply | undefined> {
  const folder = Buffer.from(place, 'latin1');
  const found = await stat(folder);
  if (!found.isDirectory()) return undefined;
  const entries = await readdir(folder, { withFileTypes: true, encoding: 'utf8' });
  const names = entries.map((entry) => (entry.isDirectory() ? `${entry.name}/` : entry.name)).sort();
  const items = ['../', ...names].map((name) => `<li><a href="${linkTo(name)}">${escaped(name)}</a></li>`);
  const bytes = Buffer.from(
    `<!doctype html>\n<meta charset="utf-8">\n<title>Index</title>\n<ul>\n${items.join('\n')}\n</ul>\n`,
  );
  return {
    status: step.status,
    fields: ownable(step.fieldsWith([])),
    length: bytes.length,
    body: undefined,
    bytes,
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
