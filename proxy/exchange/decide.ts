// What becomes of a request: refused, answered here or forwarded. The order of the checks is said here, and nowhere else.

import type { FaultCode } from '../faults.ts';
import type { RouteMatch, UpstreamSettings } from '../rules/routes.ts';
import type { ProxyContext } from './context.ts';

/** What a head asks for, whatever protocol it came by. */
export interface Asked {
  readonly method: string;
  /** Lower case, without a port. Undefined: malformed. */
  readonly host: string | undefined;
  /** The target in origin or asterisk form, its query included. Undefined: it fits neither. Empty for a plain CONNECT. */
  readonly path: string | undefined;
  /** -1: none given. */
  readonly contentLength: number;
  /** Of an extended CONNECT (RFC 8441). */
  readonly protocol: string | undefined;
}

/** Why it is refused, or the match that says who answers it here, where it is forwarded to, or that rules decide. Nothing is made for it. */
export type Decision = FaultCode | RouteMatch;

/** `covered`: the certificate of the connection covers the host. */
export function decide(
  asked: Asked,
  covered: boolean,
  context: Pick<ProxyContext, 'limits' | 'routes'>,
): Decision {
  const { method, host, path, contentLength, protocol } = asked;
  if (host === undefined || path === undefined) return 'bad-request';
  // RFC 9110 §9.3.6 and §9.3.8: no tunnels to anywhere, and nobody is shown what browsers and proxies add to a request.
  if ((method === 'CONNECT' && protocol === undefined) || method === 'TRACE') return 'method-refused';
  // RFC 9110 §15.5.20: not the connection for this host.
  if (!covered) return 'misdirected';
  const routes = context.routes();
  const match = path === '*' ? routes.whole(host) : routes.find(host, pathOf(path));
  const { maxBodyBytes } = match ?? context.limits;
  if (contentLength > maxBodyBytes) return 'body-too-large';
  if (match === undefined) return 'no-route';
  if (match.answeredBy !== undefined || match.upstream === undefined) return match;
  return refusalOf(match.upstream, protocol) ?? match;
}

/** Why this upstream cannot serve a request that it would be forwarded. */
export function refusalOf(upstream: UpstreamSettings, protocol: string | undefined): FaultCode | undefined {
  // Raw bytes are what this host serves, and a connection that carries HTTP cannot carry them.
  if (upstream.protocol === 'tcp') return 'misdirected';
  if (protocol !== undefined && !carries(upstream, protocol)) return 'not-implemented';
  return undefined;
}

export function isRefusal(decision: Decision): decision is FaultCode {
  return typeof decision === 'string';
}

/** A target without its query. */
export function pathOf(target: string): string {
  const question = target.indexOf('?');
  return question < 0 ? target : target.slice(0, question);
}

/** The query of a target, without the question mark. */
export function queryOf(target: string): string {
  const question = target.indexOf('?');
  return question < 0 ? '' : target.slice(question + 1);
}

/** RFC 8441 §4: of all that an extended CONNECT could ask for, WebSocket is carried, to upstreams of HTTP/1.1. */
function carries({ protocol: spoken }: UpstreamSettings, protocol: string): boolean {
  return protocol === 'websocket' && (spoken === 'http' || spoken === 'https' || spoken === 'auto');
}
