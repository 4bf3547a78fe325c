// HTTP/2 connections of clients: their limits and clocks, and each request to where it belongs.

import { Fault } from '../faults.ts';
import {
  type Http2Connection,
  type Http2ConnectionUser,
  type Http2Stream,
  openHttp2Connection,
} from '../http2/connection.ts';
import { fieldLimitsOf } from '../http2/fields.ts';
import { type BlockLimits, createField, type HeaderField } from '../http2/hpack.ts';
import { coveredBy, speaksHttp2 } from '../rules/routes.ts';
import type { Deadline } from '../socket/deadlines.ts';
import { onData } from '../socket/reads.ts';
import { createRoster, type RosterMember } from '../socket/roster.ts';
import {
  type Acceptor,
  type ClientConnection,
  FIRST_WORDS_MS,
  LAST_REQUEST_MS,
  type ProxyContext,
} from './context.ts';
import { decide, isRefusal } from './decide.ts';
import { forwardedFields, headerLines } from './headers.ts';
import { Http2Answer } from './http2-answer.ts';
import { Http2Exchange } from './http2-exchange.ts';
import { type ForwardedFamily, type Http2Request, readRequest } from './http2-request.ts';
import { Http2Ruled } from './http2-ruled.ts';
import { Http2ToHttp1 } from './http2-to-http1.ts';
import { Http2ToHttp2 } from './http2-to-http2.ts';
import { type ExchangeObserver, observerOf } from './observe.ts';
import { followRules } from './ruled.ts';

/** Per stream: at 50 ms of round trip an upload still moves 20 MiB/s. */
const STREAM_WINDOW = 1024 * 1024;
const CONNECTION_WINDOW = 16 * 1024 * 1024;

export interface Http2Acceptor extends Acceptor {
  /** `first`: bytes that were already read from the connection. */
  accept(connection: ClientConnection, first?: Buffer): void;
}

/**
 * An acceptor for connections that negotiated `h2`. A client that breaks RFC 9113, floods, or never sends its
 * preface loses its own connection (GOAWAY) and disturbs no other.
 */
export function createHttp2Acceptor(context: ProxyContext): Http2Acceptor {
  const clients = createRoster<Client>();
  const shared: Shared = {
    context,
    observer: observerOf(context),
    fieldLimits: fieldLimitsOf(context.limits),
    ended: false,
  };
  let draining = false;
  return {
    accept(connection, first) {
      if (connection.socket.destroyed) return;
      const client = createClient(shared, connection, () => clients.remove(client));
      clients.add(client);
      if (first !== undefined) client.http2.receive(first, first.length);
      if (draining) sayGoodbye(client);
    },
    drain() {
      draining = true;
      clients.each(sayGoodbye);
    },
    get open() {
      return clients.size;
    },
    destroyAll() {
      shared.ended = true;
      clients.each(({ http2 }) => http2.destroy());
    },
  };
}

/** What all connections share. */
interface Shared {
  readonly context: ProxyContext;
  readonly observer: ExchangeObserver | undefined;
  readonly fieldLimits: BlockLimits;
  /** Connections are being ended by us, whatever is under way. */
  ended: boolean;
}

interface Client extends RosterMember {
  readonly shared: Shared;
  readonly connection: ClientConnection;
  readonly http2: Http2Connection;
  readonly forwardedFor: (request: Http2Request) => ForwardedFamily;
}

/**
 * RFC 9113 §6.8: first a GOAWAY that refuses nothing, so that requests which crossed it on the way are still answered;
 * the one that counts comes when those must have arrived.
 */
function sayGoodbye({ http2 }: Client): void {
  http2.announceEnd();
  const timer = setTimeout(() => http2.end(), LAST_REQUEST_MS);
  http2.socket.once('close', () => clearTimeout(timer));
}

function createClient(shared: Shared, connection: ClientConnection, closed: () => void): Client {
  const { context } = shared;
  const { deadlines, limits } = context;
  // Asked while the socket is open, or nobody could tell any more.
  const { socket, clientAddress } = connection;
  // Counted from the last stream, not the last byte: PINGs must not hold an idle connection.
  const idle: Deadline = { at: Number.POSITIVE_INFINITY, expired: () => http2.end() };
  const preface: Deadline = {
    at: deadlines.now() + limits.headerTimeoutMs,
    expired: () => http2.destroy(),
  };
  const watchIdle = () => {
    idle.at = deadlines.instant() + limits.keepAliveTimeoutMs;
    deadlines.watch(idle);
  };
  const user: Http2ConnectionUser = {
    greeted() {
      deadlines.forget(preface);
      if (http2.openStreams === 0) watchIdle();
    },
    streamOpened(stream, fields, ended, tooLarge) {
      if (http2.openStreams === 1) deadlines.forget(idle);
      takeRequest(client, stream, fields, ended, tooLarge);
    },
    streamClosed(stream) {
      (stream.note as Http2Exchange | undefined)?.closed(shared.ended);
      if (http2.openStreams === 0 && !http2.closed) watchIdle();
    },
    connectionClosed(error) {
      deadlines.forget(idle);
      deadlines.forget(preface);
      closed();
      if (error !== undefined) context.log.debug({ client: clientAddress, err: error }, 'connection ended');
    },
  };
  const http2 = openHttp2Connection({
    socket,
    role: 'server',
    deadlines,
    user,
    maxConcurrentStreams: limits.maxConcurrentStreams,
    streamWindow: STREAM_WINDOW,
    connectionWindow: CONNECTION_WINDOW,
    fieldLimits: shared.fieldLimits,
  });
  const client: Client = {
    shared,
    connection,
    http2,
    forwardedFor: createForwardedFor(connection),
  };
  connection.holder = {
    idleSince() {
      if (http2.closed) return 0;
      if (http2.openStreams > 0) return Number.POSITIVE_INFINITY;
      if (idle.at !== Number.POSITIVE_INFINITY) return idle.at - limits.keepAliveTimeoutMs;
      return preface.at - limits.headerTimeoutMs + FIRST_WORDS_MS;
    },
    leave: () => http2.leave(),
  };
  deadlines.watch(preface);
  onData(socket, (bytes) => {
    deadlines.enter();
    try {
      http2.receive(bytes, bytes.length);
    } finally {
      deadlines.leave();
    }
  });
  return client;
}

/** What is said of an untrusted client changes only with the host asked, and a connection rarely asks two. */
function createForwardedFor(connection: ClientConnection): (request: Http2Request) => ForwardedFamily {
  let lastAuthority: string | undefined;
  let last: ForwardedFamily = { fields: [], lines: '' };
  return ({ authority, forwarded }) => {
    const trusted = connection.trustedClient && forwarded !== undefined;
    if (!trusted && authority === lastAuthority) return last;
    const pairs = forwardedFields(connection, authority, forwarded ?? {});
    const family = {
      fields: pairs.map(([name, value]) => createField(name, value)),
      lines: headerLines(pairs),
    };
    if (trusted) return family;
    lastAuthority = authority;
    last = family;
    return last;
  };
}

function takeRequest(
  { shared, connection, forwardedFor }: Client,
  stream: Http2Stream,
  fields: readonly HeaderField[],
  ended: boolean,
  tooLarge: boolean,
) {
  const { context, observer } = shared;
  const exchange = new Http2Exchange(context, connection, stream, observer);
  stream.user = exchange;
  stream.note = exchange;
  const request = tooLarge ? 'headers-too-large' : readRequest(fields, ended);
  if (typeof request === 'string') exchange.beginUnread(fields);
  if (request === 'malformed') {
    exchange.fault = 'bad-request';
    return stream.resetMalformed();
  }
  if (typeof request === 'string') return exchange.fail(new Fault(request));
  exchange.begin(request);
  const covered = coveredBy(connection.certificateNames, request.host);
  const decision = decide(request, covered, context);
  if (isRefusal(decision)) return exchange.fail(new Fault(decision));
  if (decision.answeredBy !== undefined) {
    exchange.match = decision;
    return new Http2Answer(exchange).begin(context.localHandlers[decision.answeredBy]!);
  }
  if (decision.upstream === undefined) return followRules(new Http2Ruled(exchange), context.rules!, decision);
  exchange.forwarded = exchange.forwardedWithOwn(forwardedFor(request));
  const side = speaksHttp2(decision.upstream.protocol)
    ? new Http2ToHttp2(exchange)
    : new Http2ToHttp1(exchange);
  exchange.forward(decision, side);
}
