// Whether a request is signed with a key as AWS Signature Version 4 says: what Amazon's own side does with it.

import { createHash, createHmac } from 'node:crypto';
import type { Call } from './api-double.ts';

export interface Signature {
  readonly accessKeyId: string;
  readonly service: string;
  isBy(secret: string): boolean;
}

/** Undefined if there is none. The body is as it was sent, text or bytes. */
export function readSignature(call: Call): Signature | undefined {
  const pattern =
    /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8}\/[^/]+\/([^/]+)\/aws4_request), ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$/;
  const [, accessKeyId, scope, service, names, signature] =
    pattern.exec(call.headers.authorization ?? '') ?? [];
  if (accessKeyId === undefined || scope === undefined || service === undefined || names === undefined)
    return undefined;
  const [path = '', query = ''] = call.path.split('?');
  const canonical = [
    call.method,
    path,
    query.split('&').sort().join('&'),
    ...names.split(';').map((name) => `${name}:${call.headers[name]?.trim().replace(/ +/g, ' ')}`),
    '',
    names,
    sha256(Buffer.isBuffer(call.body) ? call.body : String(call.body ?? '')),
  ].join('\n');
  const toSign = ['AWS4-HMAC-SHA256', call.headers['x-amz-date'], scope, sha256(canonical)].join('\n');
  const sign = (secret: string) => {
    let key: string | Buffer = `AWS4${secret}`;
    for (const part of scope.split('/')) key = createHmac('sha256', key).update(part).digest();
    return createHmac('sha256', key).update(toSign).digest('hex');
  };
  return { accessKeyId, service, isBy: (secret) => sign(secret) === signature };
}

function sha256(text: string | Buffer): string {
  return createHash('sha256').update(text).digest('hex');
}
