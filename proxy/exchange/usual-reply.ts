// The usual reply of a status that rules answer with: the page of the fault that it means, or one of its own.

import { type FaultCode, factsOf } from '../faults.ts';
import type { Fields } from '../rules/compiled.ts';
import { faultReply, faultTrailers, statusReply } from './fault-reply.ts';
import type { OwnReply } from './ruled.ts';

/** Faults of requests by the status that tells of them. */
const faultByStatus: Readonly<Record<number, FaultCode>> = {
  400: 'bad-request',
  404: 'no-route',
  405: 'method-refused',
  413: 'body-too-large',
  414: 'target-too-long',
  431: 'headers-too-large',
  500: 'failed',
};

export function usualReply({ status, fields, fault }: OwnReply, headers: Fields): OwnReply {
  if (status < 400) return { status, fields, body: NO_BYTES, fault };
  const accept = headers.all('accept').join(',');
  const meant = meaning(status, fault);
  const usual = meant === undefined ? statusReply(status, accept) : faultReply(meant, accept);
  return { status, fields: [...usual.fields, ...fields], body: Buffer.from(usual.body, 'latin1'), fault };
}

const NO_BYTES = Buffer.alloc(0);

function meaning(status: number, fault: FaultCode | undefined): FaultCode | undefined {
  return fault !== undefined && factsOf(fault).status === status ? fault : faultByStatus[status];
}

/** HTTP to gRPC status codes, as the gRPC over HTTP/2 protocol maps them. */
const grpcByStatus: Readonly<Record<number, number>> = {
  400: 13,
  401: 16,
  403: 7,
  404: 12,
  413: 8,
  429: 14,
  502: 14,
  503: 14,
  504: 14,
};

/** The same for gRPC. */
export function grpcTrailersOf(
  status: number,
  fault: FaultCode | undefined,
): { readonly 'grpc-status': string; readonly 'grpc-message': string } {
  const meant = meaning(status, fault);
  if (meant !== undefined) return faultTrailers(meant);
  return { 'grpc-status': String(grpcByStatus[status] ?? 2), 'grpc-message': `refused with ${status}` };
}
