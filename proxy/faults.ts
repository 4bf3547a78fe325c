// What can go wrong between a client and an upstream: whose fault it is, and whether a retry is safe.

export type FaultSide = 'downstream' | 'upstream' | 'ingress';

export interface FaultKind {
  readonly side: FaultSide;
  /** HTTP status (RFC 9110 §15). */
  readonly status: number;
  /** gRPC status code, by the mapping of the gRPC over HTTP/2 protocol (14 UNAVAILABLE, 13 INTERNAL, ...). */
  readonly grpc: number;
  /** Whether the upstream cannot have acted on the request, whatever its method. */
  readonly retrySafe: boolean;
  /** For the client: never an address, a name or a path of the inside. */
  readonly message: string;
}

const kinds = {
  'bad-request': kind('downstream', 400, 13, 'the request is malformed or ambiguous'),
  'no-route': kind('downstream', 404, 12, 'nothing is served under this host and path'),
  'method-refused': kind('downstream', 405, 12, 'this method is not served here'),
  'request-timeout': kind('downstream', 408, 4, 'the request took too long to arrive'),
  'body-too-large': kind('downstream', 413, 8, 'the request body is larger than allowed'),
  'target-too-long': kind('downstream', 414, 8, 'the request target is longer than allowed'),
  'expectation-failed': kind('downstream', 417, 12, 'this expectation is not supported'),
  misdirected: kind('downstream', 421, 12, 'the host asked for is not the one this connection was made to'),
  'headers-too-large': kind('downstream', 431, 8, 'the request header fields are larger than allowed'),
  'not-implemented': kind('downstream', 501, 12, 'this transfer coding is not supported'),
  'version-refused': kind('downstream', 505, 12, 'this HTTP version is not supported'),
  'client-closed': kind('downstream', 499, 1, 'the client went away'),
  'upstream-refused': kind('upstream', 502, 14, 'the upstream cannot be connected to', true),
  'upstream-unresolved': kind('upstream', 502, 14, "the upstream's name cannot be resolved", true),
  'upstream-untrusted': kind('upstream', 502, 14, "the upstream's certificate is not trusted", true),
  'upstream-closed': kind(
    'upstream',
    502,
    14,
    'the upstream closed the connection before its reply was complete',
  ),
  'upstream-malformed': kind('upstream', 502, 13, 'the reply of the upstream is malformed'),
  'upstream-unavailable': kind('upstream', 503, 14, 'no upstream is available', true),
  'connect-timeout': kind('upstream', 504, 14, 'the upstream did not accept the connection in time', true),
  'upstream-timeout': kind('upstream', 504, 4, 'the upstream did not reply in time'),
  overloaded: kind('ingress', 503, 14, 'the ingress has no capacity left', true),
  draining: kind('ingress', 503, 14, 'the ingress is shutting down', true),
  failed: kind('ingress', 500, 13, 'the ingress failed to handle the request'),
} satisfies Record<string, FaultKind>;

export type FaultCode = keyof typeof kinds;

export const faultCodes = Object.keys(kinds) as readonly FaultCode[];

/** `message` is for the log and may name addresses; the client is told only what faultReply() says. */
export class Fault extends Error {
  override readonly name = 'Fault';
  readonly code: FaultCode;
  readonly side: FaultSide;
  readonly status: number;
  readonly grpcStatus: number;
  readonly retrySafe: boolean;
  /** What the client may read. */
  readonly publicMessage: string;
  constructor(code: FaultCode, detail?: string, options?: ErrorOptions) {
    const { side, status, grpc, retrySafe, message } = kinds[code];
    super(detail === undefined ? message : `${message}: ${detail}`, options);
    this.code = code;
    this.side = side;
    this.status = status;
    this.grpcStatus = grpc;
    this.retrySafe = retrySafe;
    this.publicMessage = message;
  }
}

/** What is told of a fault, to whoever puts it into a reply. */
export function factsOf(code: FaultCode): FaultKind {
  return kinds[code];
}

function kind(side: FaultSide, status: number, grpc: number, message: string, retrySafe = false): FaultKind {
  return { side, status, grpc, retrySafe, message };
}
