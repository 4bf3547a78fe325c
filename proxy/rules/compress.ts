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
}

const NOT: Compression = { encoding: undefined, level: undefined, vary: false };

/** Never what is encoded already, streams of events, gRPC, parts, or what must not be changed (RFC 9111 §5.2.2.6). */
export function compression(run: Run, compress: Compress, status: number, fields: Fields): Compression {
  if (run.method === 'HEAD' || status < 200 || status === 204 || status === 206 || status === 304) return NOT;
  if (compress.statuses !== undefined && !compress.statuses.includes(status)) return NOT;
  if (fields.all('content-encoding').length > 0 || fields.all('content-range').length > 0) return NOT;
  if (fields.all('cache-control').some((value) => /\bno-transform\b/i.test(value))) return NOT;
  if (!isWanted(compress, fields)) return NOT;
  const { headers } = run.facts;
  if (compress.viaProxies === false && headers.all('via').length > 0) return { ...NOT, vary: compress.vary };
  const encoding = preferred(compress.encodings, headers.all('accept-encoding').join(','));
  return { encoding, level: compress.level, vary: compress.vary };
}

function isWanted({ types, minBytes }: Compress, fields: Fields): boolean {
  const [type = ''] = (fields.all('content-type')[0] ?? '').split(';');
  const bare = type.trim().toLowerCase();
  if (bare === 'text/event-stream' || bare.startsWith('application/grpc')) return false;
  if (!types.includes('*') && !types.includes(bare)) return false;
  const length = fields.all('content-length')[0];
  return length === undefined || Number(length) >= minBytes;
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
  const wanted = ours.filter((encoding) => weightOf(encoding) > 0);
  return wanted.sort((a, b) => weightOf(b) - weightOf(a))[0];
}
