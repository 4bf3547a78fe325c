// What the demo's CA answers instead of what was asked: a problem document (RFC 8555 §6.7, RFC 9457).

export type RefusalType =
  | 'accountDoesNotExist'
  | 'badCSR'
  | 'badNonce'
  | 'badPublicKey'
  | 'badSignatureAlgorithm'
  | 'connection'
  | 'invalidContact'
  | 'malformed'
  | 'orderNotReady'
  | 'rejectedIdentifier'
  | 'serverInternal'
  | 'tls'
  | 'unauthorized';

export interface ProblemDocument {
  readonly type: `urn:ietf:params:acme:error:${RefusalType}`;
  readonly detail: string;
  readonly status: number;
}

export class AcmeRefusal extends Error {
  override readonly name = 'AcmeRefusal';
  readonly code: RefusalType;
  readonly status: number;
  constructor(code: RefusalType, detail: string, status = 400) {
    super(detail);
    this.code = code;
    this.status = status;
  }
}

export function problemDocument(refusal: AcmeRefusal): ProblemDocument {
  return {
    type: `urn:ietf:params:acme:error:${refusal.code}`,
    detail: refusal.message,
    status: refusal.status,
  };
}
