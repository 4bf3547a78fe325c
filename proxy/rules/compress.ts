// Whether a reply is compressed on its way to the client, and how.

import type { Fields, Run } from './compiled.ts';
import type { Compress } from './model.ts';

export type Encoding = Compress['encodings'][number];

export interface Compression {
  /** Undefined: it goes as it is. */
  readonly encoding: Encoding | undefined;
  readonly level: number | undefined;
  /** It could have been: caches must know. */
  readonly vary: boolean;
  /** For whoever learns of its length later. */
  readonly minBytes: number;
}

const NOT: Compression = { encoding: undefined, level: undefined, vary: false, minBytes: 0 };
/** What says which bytes there are, or that more follows, which would be wrong or lost. */
const TELLING = [
  'content-encoding',
  'content-range',
  'content-digest',
  'repr-digest',
  'digest',
  'content-md5',
  'trailer',
];

/** Never what is encoded already, streams of events, gRPC, parts, or what must not be changed (RFC 9111 §5.2.2.6). */
export function compression(run: Run, compress: Compress, status: number, fields: Fields): Compression {
  if (run.method === 'HEAD' || status < 200 || status === 204 || status === 206 || status === 304) return NOT;
  if (compress.statuses !== undefined && !compress.statuses.includes(status)) return NOT;
  if (TELLING.some((name) => fields.all(name).length > 0)) return NOT;
  if (fields.all('cache-control').some((value) => /\bno-transform\b/i.test(value))) return NOT;
  if (!isWanted(compress, fields)) return NOT;
  const { vary, level, minBytes } = compress;
  const { headers, protocol } = run.facts;
  const isOld = protocol === 'HTTP/1.0' && compress.http10 !== true;
  if (isOld || !mayGoBy(compress.viaProxies ?? true, headers, fields)) return { ...NOT, vary };
  return {
    encoding: preferred(compress.encodings, headers.all('accept-encoding').join(',')),
    level,
    vary,
    minBytes,
  };
}

/** nginx's gzip_proxied, in its order. */
function mayGoBy(wanted: NonNullable<Compress['viaProxies']>, request: Fields, reply: Fields): boolean {
  if (wanted === true || request.all('via').length === 0) return true;
  if (wanted === false) return false;
  if (wanted.includes('auth') && request.all('authorization').length > 0) return true;
  const [expires] = reply.all('expires');
  if (expires !== undefined) {
    const at = Date.parse(expires);
    const now = Date.parse(reply.all('date')[0] ?? '') || Date.now();
    return wanted.includes('expired') && at < now;
  }
  const control = reply.all('cache-control').join(',').toLowerCase();
  if (control !== '')
    return (['no-cache', 'no-store', 'private'] as const).some(
      (word) => wanted.includes(word) && control.includes(word),
    );
  if (wanted.includes('no_last_modified') && reply.all('last-modified').length > 0) return false;
  return !(wanted.includes('no_etag') && reply.all('etag').length > 0);
}

function isWanted({ types, minBytes }: Compress, fields: Fields): boolean {
  const [type = ''] = (fields.all('content-type')[0] ?? '').split(';');
  const bare = type.trim().toLowerCase();
  if (bare === 'text/event-stream' || bare.startsWith('application/grpc')) return false;
  if (!types.includes('*') && !types.includes(bare)) return false;
  const length = fields.all('content-length')[0];
  return length === undefined || (Number(length) >= minBytes && length !== '0');
}

/** RFC 9110 §12.5.3. The first of ours that is accepted; a weight of 0 forbids. */
function preferred(ours: readonly Encoding[], accepted: string): Encoding | undefined {
  const weights = new Map<string, number>();
  for (const item of accepted.slice(0, 1_024).split(',')) {
    const [coding = '', ...parameters] = item.split(';').map((part) => part.trim().toLowerCase());
    const q = parameters.find((parameter) => parameter.startsWith('q='));
    weights.set(coding, q === undefined ? 1 : Number(q.slice(2)) || 0);
  }
  const weightOf = (encoding: string) => weights.get(encoding) ?? weights.get('*') ?? 0;
  const plain = weights.get('identity') ?? 0;
  const wanted = ours.filter((encoding) => weightOf(encoding) > 0 && weightOf(encoding) >= plain);
  return wanted.sort((a, b) => weightOf(b) - weightOf(a))[0];
}
