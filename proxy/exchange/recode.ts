// Replies compressed on their way to the client: whole ones at once, streams piece by piece, each piece as soon as it came.

import { pipeline, type Readable, type Transform } from 'node:stream';
import { promisify } from 'node:util';
import zlib from 'node:zlib';
import type { Compression, Encoding } from '../rules/compress.ts';
import type { ContentSink, ReplyContent } from './reply-content.ts';
import type { OwnFields } from './ruled-client.ts';

const { constants } = zlib;

interface Way {
  readonly level: number;
  /** What has come so far leaves. */
  readonly flush: number;
  whole(bytes: Uint8Array, level: number): Promise<Buffer>;
  stream(level: number): Transform & zlib.Zlib;
}

const [gzip, brotli, zstd] = [
  promisify<zlib.InputType, zlib.ZlibOptions, Buffer>(zlib.gzip),
  promisify<zlib.InputType, zlib.BrotliOptions, Buffer>(zlib.brotliCompress),
  promisify<zlib.InputType, zlib.ZstdOptions, Buffer>(zlib.zstdCompress),
];

/** 256 KiB each: a longer memory gains little for pages, and every open reply would hold it. */
const WINDOW_BITS = 18;

function brotliOptions(level: number): zlib.BrotliOptions {
  return {
    params: { [constants.BROTLI_PARAM_QUALITY]: level, [constants.BROTLI_PARAM_LGWIN]: WINDOW_BITS },
  };
}

function zstdOptions(level: number): zlib.ZstdOptions {
  return {
    params: { [constants.ZSTD_c_compressionLevel]: level, [constants.ZSTD_c_windowLog]: WINDOW_BITS },
  };
}

/** The usual levels: brotli's and zstd's first ones make pages as small as gzip's sixth, in a quarter of its time. */
const ways: Readonly<Record<Encoding, Way>> = {
  gzip: {
    level: 4,
    flush: constants.Z_SYNC_FLUSH,
    whole: (bytes, level) => gzip(bytes, { level }),
    stream: (level) => zlib.createGzip({ level }),
  },
  br: {
    level: 1,
    flush: constants.BROTLI_OPERATION_FLUSH,
    whole: (bytes, level) => brotli(bytes, brotliOptions(level)),
    stream: (level) => zlib.createBrotliCompress(brotliOptions(level)),
  },
  zstd: {
    level: 1,
    flush: constants.ZSTD_e_flush,
    whole: (bytes, level) => zstd(bytes, zstdOptions(level)),
    stream: (level) => zlib.createZstdCompress(zstdOptions(level)),
  },
};

/** Of one process, at about 300 KiB each. What comes beyond goes as it is. */
const MOST_AT_ONCE = 512;
let open = 0;

/** A coding to be used, for which there is room. */
export type Coding = Compression & { readonly encoding: Encoding };

export function codingOf(compression: Compression | undefined): Coding | undefined {
  if (compression?.encoding === undefined || open >= MOST_AT_ONCE) return undefined;
  return compression as Coding;
}

export function recodeWhole(bytes: Uint8Array, { encoding, level }: Coding): Promise<Buffer> {
  const way = ways[encoding];
  open++;
  return way.whole(bytes, level ?? way.level).finally(() => open--);
}

function openCoder({ encoding, level }: Coding): Transform & zlib.Zlib {
  const way = ways[encoding];
  const coder = way.stream(level ?? way.level);
  open++;
  coder.once('close', () => open--);
  return coder;
}

/** A stream that ends by itself, a file. */
export function recodeStream(source: AsyncIterable<Uint8Array>, coding: Coding): Readable {
  // Whoever reads what comes out is told of what goes wrong.
  return pipeline(source, openCoder(coding), () => {});
}

/** What an upstream sends is not held back: once nothing more of it waits to be compressed, what there is leaves. */
export function recodeContent(content: ReplyContent, coding: Coding): Readable {
  const coder = openCoder(coding);
  const { flush } = ways[coding.encoding];
  let waiting = 0;
  const done = () => {
    waiting--;
    if (waiting === 0 && !coder.writableEnded && !coder.destroyed) coder.flush(flush);
  };
  const sink: ContentSink = {
    take(bytes) {
      waiting++;
      return coder.write(bytes, done);
    },
    end: () => void coder.end(),
    fail: (fault) => void coder.destroy(fault),
  };
  coder.on('drain', () => content.drained());
  // Also when the client has gone; and what fails here is told by reading.
  coder.on('error', () => {});
  coder.once('close', () => content.giveUp());
  content.flowTo(sink);
  return coder;
}

/** What is said of a length or of exact bytes holds no more (RFC 9110 §8.8.1: the strong validator of another form). */
export function recodedFields(fields: OwnFields, encoding: Encoding): OwnFields {
  const kept = fields.flatMap((field): OwnFields => {
    const [name, value] = field;
    switch (name.toLowerCase()) {
      case 'content-length':
      case 'accept-ranges':
        return [];
      case 'etag':
        return [[name, value.startsWith('W/') ? value : `W/${value}`]];
      default:
        return [field];
    }
  });
  return [...kept, ['Content-Encoding', encoding]];
}

/** With Vary, where caches must know that it could have been compressed; once. */
export function variedFields(fields: OwnFields, compression: Compression | undefined): OwnFields {
  if (compression?.vary !== true) return fields;
  const said = fields.some(
    ([name, value]) => name.toLowerCase() === 'vary' && /(^|,)\s*(accept-encoding|\*)\s*(,|$)/i.test(value),
  );
  return said ? fields : [...fields, ['Vary', 'Accept-Encoding']];
}
