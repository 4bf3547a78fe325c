// What all answers under /evidences/ have in common: anybody may read them, any page too, and errors say why in JSON.

import type { LocalReply } from '../src/lib/local-handler.ts';

/** In every reply. Any page may read evidence, because it is public, and must ask for it anew, because it changes. */
export const publicHeaders = {
  'access-control-allow-origin': '*',
  'access-control-expose-headers': 'etag, retry-after',
  'cache-control': 'no-cache',
  'x-content-type-options': 'nosniff',
};

export interface EvidenceReply extends LocalReply {
  readonly body: Uint8Array;
}

export function problem(status: number, error: string, more: Record<string, string> = {}): EvidenceReply {
  return {
    status,
    headers: { ...publicHeaders, ...more, 'content-type': 'application/json' },
    body: Buffer.from(`${JSON.stringify({ error })}\n`),
  };
}
