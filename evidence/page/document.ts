// Bytes to be served with their type, and the tag by which a reader knows that he has them.

import { createHash } from 'node:crypto';

export interface Document {
  readonly contentType: string;
  readonly body: Uint8Array;
  /** Strong (RFC 9110 §8.8.3): another encoding is another body and so has another tag. */
  readonly etag: string;
}

export function createDocument(contentType: string, content: string | Uint8Array): Document {
  const body = typeof content === 'string' ? Buffer.from(content) : content;
  const etag = `"${createHash('sha256').update(body).digest('hex').slice(0, 32)}"`;
  return { contentType, body, etag };
}
