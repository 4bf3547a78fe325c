// The spans of one request: the server's, and below it one for each upstream that was asked; OpenTelemetry's HTTP conventions.

import type { RecordedRequest, RecordedTry } from '../workers/messages.ts';
import { type AttributeValue, nanoseconds, type Span, spanKind } from './span.ts';

/** The server's span last: it ends last. */
export function spansOf(request: RecordedRequest): Span[] {
  return [...request.tries.map((one) => ofTry(request, one)), ofServer(request)];
}

function ofServer(request: RecordedRequest): Span {
  const { method, route, host, status, grpcStatus, fault, parent, trouble } = request;
  const failure = errorType(fault, status >= 500 ? status : 0);
  return {
    trace: request.trace,
    span: request.span,
    parent,
    parentIsRemote: parent !== '',
    name: nameOf(method, route),
    kind: spanKind.server,
    start: nanoseconds(request.at),
    end: nanoseconds(request.at + request.ms),
    attributes: present([
      ['http.request.method', method],
      ['http.request.method_original', request.sentMethod],
      ['url.scheme', 'https'],
      ['url.path', request.path],
      ['url.query', request.query],
      ['server.address', host],
      ['server.port', request.port],
      ['http.route', route],
      ['http.response.status_code', status],
      ['rpc.grpc.status_code', grpcStatus === -1 ? undefined : grpcStatus],
      ['http.request.body.size', request.received],
      ['http.response.body.size', request.sent],
      ['network.protocol.name', 'http'],
      ['network.protocol.version', request.protocol === 'h2' ? '2' : '1.1'],
      ['tls.protocol.version', request.tls.replace(/^TLSv/, '')],
      ['client.address', request.client],
      ['user_agent.original', request.userAgent],
      ['error.type', failure],
      ['dstack_ingress.attempts', request.attempts > 1 ? request.attempts : undefined],
    ]),
    // What a client did wrong is not the server's failure.
    error: trouble ? '' : undefined,
  };
}

function ofTry(request: RecordedRequest, one: RecordedTry): Span {
  const { status, fault } = one;
  const failure = errorType(fault, status >= 400 ? status : 0);
  const at = request.at + one.afterMs;
  return {
    trace: request.trace,
    span: one.span,
    parent: request.span,
    parentIsRemote: false,
    name: nameOf(request.method, ''),
    kind: spanKind.client,
    start: nanoseconds(at),
    end: nanoseconds(at + one.ms),
    attributes: present([
      ['http.request.method', request.method],
      ['url.scheme', one.tls ? 'https' : 'http'],
      ['server.address', one.host],
      ['server.port', one.port],
      ['http.response.status_code', status],
      ['http.request.resend_count', one.number > 1 ? one.number - 1 : undefined],
      ['error.type', failure],
    ]),
    error: failure === undefined ? undefined : '',
  };
}

/** Of few values: never a path. */
function nameOf(method: string, route: string): string {
  const verb = method === '_OTHER' ? 'HTTP' : method;
  return route === '' ? verb : `${verb} ${route}`;
}

/** A word of ours, or the status. */
function errorType(fault: string | undefined, status: number): string | undefined {
  return fault ?? (status > 0 ? String(status) : undefined);
}

/** What is not known is not said: no text is empty, and no status or port is 0. */
function present(attributes: readonly (readonly [string, AttributeValue | undefined])[]) {
  return attributes.flatMap(([name, value]) =>
    value === undefined || value === '' || (value === 0 && !MAY_BE_ZERO.has(name))
      ? []
      : [[name, value] as const],
  );
}

const MAY_BE_ZERO = new Set(['http.request.body.size', 'http.response.body.size', 'rpc.grpc.status_code']);
