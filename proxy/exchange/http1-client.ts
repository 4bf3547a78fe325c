// One HTTP/1.1 exchange after another between a client's socket and upstream sockets (RFC 9112), as one state machine.

import type { TLSSocket } from 'node:tls';
import { Fault, type FaultCode } from '../faults.ts';
import { parseHost, sameAuthority } from '../http1/authority.ts';
import {
  type BodyReader,
  beginBody,
  beginReplyBody,
  beginRequestBody,
  createBodyReader,
  createMessageHead,
  INCOMPLETE,
  type MessageHead,
  parseReplyHead,
  parseRequestHead,
  REFUSED,
  readBody,
} from '../http1/message.ts';
import { coveredBy, type RouteMatch, speaksHttp2, type UpstreamSettings } from '../rules/routes.ts';
import type { Deadline } from '../socket/deadlines.ts';
import { destroyOnError } from '../socket/errors.ts';
import { LINGER_MS, Lingering } from '../socket/lingering.ts';
import { createPacer, type Pacer } from '../socket/pacing.ts';
import { addPiece, beginPieces, gathered, type Pieces } from '../socket/pieces.ts';
import { onData } from '../socket/reads.ts';
import { resetConnection } from '../socket/reset.ts';
import { createRoster, type Roster, type RosterMember } from '../socket/roster.ts';
import {
  flush,
  flushGathered,
  gather,
  isFull,
  settle,
  writeAdjoining,
  writeJoined,
  writeLent,
  writeReply,
} from '../socket/writes.ts';
import { type SwitchAsked, switchAskedBy, switchesAsAsked } from '../tunnel/switch.ts';
import type { Tunnel } from '../tunnel/tunnel.ts';
import { noteUpstreamFault } from '../upstream/faults.ts';
import { foreignBytes } from '../upstream/foreign-bytes.ts';
import type {
  AcquireOptions,
  Acquisition,
  Loss,
  UpstreamLink,
  UpstreamUser,
} from '../upstream/http1-pool.ts';
import { type AccessEntry, createAccessEntry } from './access-log.ts';
import {
  type Acceptor,
  type Connection,
  FIRST_WORDS_MS,
  type Holder,
  LAST_REQUEST_MS,
  type ProxyContext,
} from './context.ts';
import { type Asked, decide, isRefusal } from './decide.ts';
import {
  forwardedBefore,
  forwardedLines,
  interimHeadText,
  replyHeadText,
  requestHeadText,
  trailerText,
} from './headers.ts';
import { Http1Answer, type Http1Answering } from './http1-answer.ts';
import { writeFault } from './http1-reply.ts';
import { acquireHttp2Link, type Http2Link } from './http2-link.ts';
import { INTERIM_PAUSE_BYTES, MOST_INTERIM_BYTES, UNTAKEN } from './interim.ts';
import { KeptBody } from './kept-body.ts';
import { loggedRequestLine } from './logged.ts';
import { isWorthKeeping, mayTryAgain, REPLAY_BYTES, type Tries } from './retry.ts';
import { asksForUpgrade, beginTunnel } from './upgrade.ts';

export interface Http1Acceptor extends Acceptor {
  /** `first`: bytes that were already read from the connection. */
  accept(connection: Connection, first?: Buffer): void;
}

/** Waiting for a request. */
const IDLE = 0;
/** Between the first and the last byte of a request head. */
const HEAD = 1;
/** From a request head to the end of its reply. */
const EXCHANGE = 2;
/** The protocol was switched. */
const TUNNEL = 3;
/** The last reply was written; what still comes is thrown away. */
const CLOSING = 4;
const CLOSED = 5;
/** A request has come, and waits for its turn of the event loop. */
const IN_LINE = 6;

const FRESH: AcquireOptions = { fresh: true };

/** How the reply's body leaves: as it came, cut into chunks, or taken out of its chunks. */
const AS_IT_CAME = 0;
const CHUNKED = 1;
const UNCHUNKED = 2;

interface Relay extends Omit<UpstreamUser, 'upstreamReady'>, RosterMember, Tries, Holder, Http1Answering {
  readonly shared: Shared;
  readonly connection: Connection;
  readonly client: TLSSocket;
  readonly deadline: Deadline;
  state: number;
  /** Bytes of the client's that wait: an unfinished head, a body without an upstream, or pipelined requests. */
  held: Buffer | undefined;
  /** The unfinished head, once it has come in more than one piece; `held` is what of it has been read. */
  pieces: Pieces | undefined;
  clientPaused: boolean;
  upstreamPaused: boolean;
  /** Whether the connection can carry another request after this one. */
  keepAlive: boolean;

  method: string;
  http10: boolean;
  requestText: string;
  readonly request: BodyReader;
  requestNominated: readonly string[];
  /** Undefined until it is decided what becomes of the request. */
  match: RouteMatch | undefined;
  settings: UpstreamSettings | undefined;
  /** When the whole exchange must be over, in the deadlines' time. */
  endsAt: number;
  attempt: Acquisition | undefined;
  link: UpstreamLink | Http2Link | undefined;
  upstreamReady(link: UpstreamLink | Http2Link): void;
  bodySent: boolean;
  /** What was sent of the body, as it was sent; undefined if that has become too much, or was nothing. */
  replay: KeptBody | undefined;
  /** What the request asks to switch to; undefined: nothing that is passed on. */
  upgrading: SwitchAsked | undefined;

  readonly reply: BodyReader;
  /** An unfinished head. */
  replyHeld: Pieces | undefined;
  replyHeard: boolean;
  replyBegun: boolean;
  replyMode: number;
  replyNominated: readonly string[];
  upstreamKeeps: boolean;

  tunnel: Tunnel | undefined;
  /** While a handler of our own answers. */
  answer: Http1Answer | undefined;
  /** Once the last reply was written, and more has come. */
  lingering: Lingering | undefined;
  /** Of the exchange under way; undefined where no access log is written. */
  readonly access: AccessEntry | undefined;

  /** The last Host, what it means here, and what the upstream is told of the client because of it. */
  hostText: string;
  host: string | undefined;
  hostCovered: boolean;
  forwarded: string;
  /** Whether it is to be told what the client's own fields say as well. */
  trustedClient: boolean;
}

type Writable<T> = { -readonly [name in keyof T]: T[name] };

interface Shared {
  readonly context: ProxyContext;
  readonly relays: Roster<Relay>;
  /** Filled by each parse, and used up before the next. */
  readonly head: MessageHead;
  readonly replyHead: MessageHead;
  readonly asked: Writable<Asked>;
  readonly pacer: Pacer<Relay>;
  draining: boolean;
}

export function createHttp1Acceptor(context: ProxyContext): Http1Acceptor {
  const shared: Shared = {
    context,
    relays: createRoster(),
    head: createMessageHead(),
    replyHead: createMessageHead(),
    asked: { method: '', host: undefined, path: undefined, contentLength: -1, protocol: undefined },
    pacer: createPacer(beginInTurn, flushGathered),
    draining: false,
  };
  return {
    accept: (connection, first) => acceptConnection(shared, connection, first),
    drain() {
      shared.draining = true;
      // The next request may be on its way: it is answered, and told that it was the last.
      const until = context.deadlines.now() + LAST_REQUEST_MS;
      shared.relays.each((relay) => {
        if (relay.state === IDLE) relay.deadline.at = Math.min(relay.deadline.at, until);
      });
    },
    get open() {
      return shared.relays.size;
    },
    destroyAll() {
      shared.relays.each((relay) => {
        if (relay.access !== undefined) relay.access.fault ??= 'draining';
        destroyClient(relay);
        clientClosed(relay);
      });
    },
  };
}

function acceptConnection(shared: Shared, connection: Connection, first: Buffer | undefined) {
  const { socket } = connection;
  const relay = createRelay(shared, connection);
  shared.relays.add(relay);
  connection.holder = relay;
  relay.deadline.at = shared.context.deadlines.after(shared.context.limits.headerTimeoutMs);
  shared.context.deadlines.watch(relay.deadline);
  onData(socket, (bytes) => clientData(relay, bytes));
  socket.on('drain', () => clientDrained(relay));
  socket.on('end', () => clientEnded(relay));
  destroyOnError(socket);
  socket.on('close', () => clientClosed(relay));
  if (socket.destroyed) return clientClosed(relay);
  if (first !== undefined) clientData(relay, first);
}

function createRelay(shared: Shared, connection: Connection): Relay {
  const relay: Relay = {
    shared,
    context: shared.context,
    connection,
    client: connection.socket,
    deadline: { at: 0, expired: () => expire(relay), place: -1 },
    place: -1,
    state: IDLE,
    held: undefined,
    pieces: undefined,
    clientPaused: false,
    upstreamPaused: false,
    keepAlive: true,
    method: '',
    http10: false,
    requestText: '',
    request: createBodyReader(),
    requestNominated: [],
    match: undefined,
    settings: undefined,
    endsAt: Number.POSITIVE_INFINITY,
    attempt: undefined,
    link: undefined,
    bodySent: false,
    replay: undefined,
    refusals: 0,
    repeated: false,
    upgrading: undefined,
    reply: createBodyReader(),
    replyHeld: undefined,
    replyHeard: false,
    replyBegun: false,
    replyMode: AS_IT_CAME,
    replyNominated: [],
    upstreamKeeps: false,
    tunnel: undefined,
    answer: undefined,
    lingering: undefined,
    access:
      shared.context.accessLog === undefined
        ? undefined
        : createAccessEntry('http/1.1', connection.clientAddress, 0),
    hostText: '',
    host: undefined,
    hostCovered: false,
    forwarded: '',
    trustedClient: false,
    idleSince,
    leave,
    beginOwnReply,
    endOwnReply,
    setClock,
    takeHeld,
    hold: holdMore,
    pauseClient: pauseThis,
    resumeClient: resumeThis,
    noteSent,
    failBody,
    failAnswer,
    cutAnswer,
    upstreamReady,
    upstreamFailed,
    upstreamData,
    upstreamDrained,
    upstreamEnded,
    upstreamClosed,
  };
  return relay;
}

// --- The client's side ---

function clientData(relay: Relay, bytes: Buffer) {
  switch (relay.state) {
    case IDLE:
      // Pipelined requests that are held come first, and begin in a moment.
      if (relay.held !== undefined || relay.shared.pacer.admits(relay))
        return readRequest(relay, behindHeld(relay, bytes));
      relay.state = IN_LINE;
      relay.held = bytes;
      relay.deadline.at = Number.POSITIVE_INFINITY;
      return;
    case IN_LINE:
      return hold(relay, bytes);
    case HEAD:
      return moreOfHead(relay, bytes);
    case EXCHANGE:
      if (relay.answer?.reads) return relay.answer.clientData(bytes);
      if (relay.request.done || relay.link === undefined) return hold(relay, bytes);
      return passRequestBody(relay, '', bytes);
    case TUNNEL:
      return relay.tunnel!.clientData(bytes);
    case CLOSING:
      return linger(relay, bytes.length);
    default:
      return;
  }
}

/** Its turn has come, unless the client has gone meanwhile. */
function beginInTurn(relay: Relay) {
  if (relay.state !== IN_LINE) return;
  relay.state = IDLE;
  readHeld(relay);
}

/** Pipelined requests (RFC 9112 §9.3.2), or a body whose upstream is not connected yet, wait where the client is. */
function hold(relay: Relay, bytes: Buffer) {
  relay.held = behindHeld(relay, bytes);
  pauseClient(relay);
}

function behindHeld({ held }: Relay, bytes: Buffer): Buffer {
  return held === undefined ? bytes : Buffer.concat([held, bytes]);
}

function moreOfHead(relay: Relay, bytes: Buffer) {
  const { limits } = relay.shared.context;
  const held = relay.held!;
  relay.pieces ??= beginPieces(held, 0, held.length);
  if (!addPiece(relay.pieces, bytes, 0, bytes.length, limits.maxHeaderBytes)) return;
  readRequest(relay, gathered(relay.pieces));
}

function pauseClient(relay: Relay) {
  if (relay.clientPaused) return;
  relay.clientPaused = true;
  relay.client.pause();
}

function resumeClient(relay: Relay) {
  if (!relay.clientPaused) return;
  relay.clientPaused = false;
  relay.client.resume();
}

function readRequest(relay: Relay, bytes: Buffer) {
  const { head, context } = relay.shared;
  relay.held = undefined;
  const taken = parseRequestHead(head, bytes, 0, bytes.length, context.limits);
  if (taken === INCOMPLETE) {
    relay.held = bytes;
    if (relay.state === HEAD) return;
    relay.state = HEAD;
    relay.deadline.at = context.deadlines.after(context.limits.headerTimeoutMs);
    return;
  }
  relay.state = EXCHANGE;
  relay.pieces = undefined;
  relay.requestText = '';
  relay.attempt = undefined;
  relay.match = undefined;
  relay.settings = undefined;
  relay.bodySent = false;
  relay.replay = undefined;
  relay.refusals = 0;
  relay.repeated = false;
  relay.replyHeld = undefined;
  relay.replyHeard = false;
  relay.replyBegun = false;
  relay.upstreamPaused = false;
  relay.upstreamKeeps = false;
  if (relay.access !== undefined) beginAccess(relay, head);
  if (taken === REFUSED) {
    relay.method = '';
    relay.http10 = false;
    return refuse(relay, head.refusal.code, head.refusal.reason);
  }
  if (taken < bytes.length) relay.held = bytes.subarray(taken);
  beginExchange(relay, head);
}

/** A request that cannot be answered by an upstream, and after which nothing else may be read. */
function refuse(relay: Relay, code: FaultCode, reason: string) {
  if (relay.access !== undefined) relay.access.received = relay.request.received;
  relay.keepAlive = false;
  beginBody(relay.request, 'none');
  relay.held = undefined;
  replyFault(relay, new Fault(code, reason));
}

function beginExchange(relay: Relay, head: MessageHead) {
  const { context } = relay.shared;
  relay.method = head.method;
  relay.http10 = head.minor === 0;
  // Until there is a text for the upstream: a refusal takes its form from what was heard.
  relay.requestText = head.text;
  relay.keepAlive = !relay.shared.draining && !head.close && (head.minor === 1 || head.keepAlive);
  relay.upgrading = asksForUpgrade(head) ? switchAskedBy(head) : undefined;
  beginRequestBody(relay.request, head);
  const hostText = head.hasHost ? head.host : hostWithoutField(head, relay);
  if (hostText !== relay.hostText) noteHost(relay, hostText);
  const { host, access } = relay;
  if (access !== undefined) access.host = host ?? hostText;
  const { asked } = relay.shared;
  asked.method = head.method;
  asked.host = host;
  asked.path = host === undefined ? undefined : originForm(head, hostText);
  asked.contentLength = head.contentLength;
  const decision = decide(asked, relay.hostCovered, context);
  if (isRefusal(decision)) return refuseHead(relay, head, decision);
  relay.match = decision;
  if (decision.answeredBy !== undefined) {
    relay.answer = new Http1Answer(relay, head, asked.path!, host!, decision.maxBodyBytes);
    return relay.answer.begin(context.localHandlers[decision.answeredBy]!);
  }
  forward(relay, head, asked.path!, decision.upstream);
}

function refuseHead(relay: Relay, head: MessageHead, code: FaultCode) {
  switch (code) {
    case 'bad-request':
      return refuse(
        relay,
        code,
        relay.host === undefined ? 'the Host is malformed' : 'the target does not fit',
      );
    case 'method-refused':
      return refuse(relay, code, head.method);
    case 'body-too-large':
      return refuse(relay, code, 'by its length');
    default:
      replyCode(relay, code);
  }
}

function noteHost(relay: Relay, hostText: string) {
  const { connection } = relay;
  relay.hostText = hostText;
  relay.host = parseHost(hostText);
  if (relay.host === undefined) return;
  relay.hostCovered = coveredBy(connection.certificateNames, relay.host);
  relay.forwarded = forwardedLines(connection, hostText);
  relay.trustedClient = connection.trustedClient;
}

/** RFC 9112 §3.2: origin-form as it is, absolute-form if it names the same host, asterisk-form for OPTIONS. */
function originForm(head: MessageHead, hostText: string): string | undefined {
  const { target, method } = head;
  if (target.startsWith('/')) return target;
  if (target === '*') return method === 'OPTIONS' ? target : undefined;
  // CONNECT has a form of its own, and is refused for itself.
  if (method === 'CONNECT') return target;
  const absolute = ABSOLUTE_FORM.exec(target);
  if (absolute === null || !sameAuthority(absolute[2]!, hostText, absolute[1]!.toLowerCase()))
    return undefined;
  return `${absolute[3] ?? '/'}${absolute[4] ?? ''}`;
}

const ABSOLUTE_FORM = /^(https?):\/\/([^/?]+)(\/[^?]*)?(\?.*)?$/i;

/** HTTP/1.0 without Host: a target in absolute form names the host, and otherwise the handshake did. */
function hostWithoutField({ target }: MessageHead, { connection }: Relay): string {
  return ABSOLUTE_FORM.exec(target)?.[2] ?? connection.serverName;
}

function forward(relay: Relay, head: MessageHead, target: string, settings: UpstreamSettings) {
  const { context } = relay.shared;
  const own = relay.trustedClient
    ? forwardedLines(relay.connection, relay.hostText, forwardedBefore(head))
    : relay.forwarded;
  relay.settings = settings;
  // No connection of HTTP/2 becomes another protocol's (RFC 9113 §8.6).
  if (speaksHttp2(settings.protocol)) relay.upgrading = undefined;
  // RFC 9112 §3.2: what leaves is HTTP/1.1, which has a Host.
  const hosted = head.hasHost ? own : `Host: ${relay.hostText}\r\n${own}`;
  relay.requestText = requestHeadText(head, target, hosted, relay.upgrading !== undefined);
  relay.requestNominated = head.nominated;
  // The upstream's connect timeout counts from here, and the other clocks from when it is connected.
  const { totalTimeoutMs } = settings;
  relay.endsAt =
    totalTimeoutMs === undefined ? Number.POSITIVE_INFINITY : context.deadlines.after(totalTimeoutMs);
  relay.deadline.at = relay.endsAt;
  relay.attempt = acquire(relay, settings);
}

function acquire(relay: Relay, settings: UpstreamSettings, how?: AcquireOptions): Acquisition {
  const { upstreams, http2Upstreams, deadlines } = relay.shared.context;
  if (!speaksHttp2(settings.protocol)) return upstreams.acquire(settings, relay, how);
  return acquireHttp2Link(http2Upstreams, deadlines, settings, relay, relay.requestText);
}

function passRequestBody(relay: Relay, prefix: string, bytes: Buffer) {
  const { request, link } = relay;
  const { limits } = relay.shared.context;
  const { maxBodyBytes } = relay.match!;
  let pos = 0;
  let from = 0;
  let text = prefix;
  while (pos < bytes.length && !request.done) {
    const next = readBody(request, bytes, pos, bytes.length, limits);
    if (next === REFUSED) return failRequest(relay, request.refusal.code, request.refusal.reason);
    if (request.received > maxBodyBytes) return failRequest(relay, 'body-too-large', 'by count');
    if (request.cutEnd > request.cutStart) {
      text += bytes.toString('latin1', from, request.cutStart);
      from = request.cutEnd;
      if (request.done) text += trailerText(request.trailers!, relay.requestNominated);
    }
    pos = next;
  }
  if (pos < bytes.length) hold(relay, bytes.subarray(pos));
  if (pos > 0) keepBody(relay, text.slice(prefix.length), bytes, from, pos);
  const socket = link!.socket;
  if (!request.done) gather(socket);
  if (text === '') writeAdjoining(socket, bytes, from, pos);
  else {
    settle();
    writeJoined(socket, text, bytes, from, pos);
  }
  if (request.done) settle();
  if (isFull(socket)) pauseClient(relay);
  touch(relay);
}

/** For a second attempt, should there be one; `text` and `bytes[start, end)` are about to be sent. */
function keepBody(relay: Relay, text: string, bytes: Buffer, start: number, end: number) {
  if (!relay.bodySent && !relay.replyHeard) {
    const { kind, received, remaining } = relay.request;
    if (isWorthKeeping(kind === 'length' ? received + remaining : -1)) relay.replay = new KeptBody();
  }
  relay.bodySent = true;
  const { replay } = relay;
  if (replay === undefined) return;
  const framed = replay.size + text.length + end - start;
  if (relay.request.received > REPLAY_BYTES || framed > 2 * REPLAY_BYTES) {
    relay.replay = undefined;
    return;
  }
  replay.addText(text);
  replay.add(bytes, start, end);
}

/** The client broke its own message: nobody may take what was sent of it for the whole. */
function failRequest(relay: Relay, code: FaultCode, reason: string) {
  dropUpstream(relay);
  if (relay.replyBegun) return abandonClient(relay, code);
  refuse(relay, code, reason);
}

function dropUpstream(relay: Relay) {
  const { link, attempt } = relay;
  relay.link = undefined;
  relay.attempt = undefined;
  relay.upstreamPaused = false;
  if (link !== undefined) link.destroy();
  else attempt?.abandon();
}

function clientDrained(relay: Relay) {
  if (relay.state === TUNNEL) return relay.tunnel!.clientDrained();
  if (relay.state === IDLE) return readHeld(relay);
  if (relay.answer !== undefined) return relay.answer.clientDrained();
  if (!relay.upstreamPaused) return;
  relay.upstreamPaused = false;
  relay.link?.socket.resume();
  touch(relay);
}

/** In the middle of an exchange the end of a client's bytes is taken for its going away, as other proxies do. */
function clientEnded(relay: Relay) {
  if (relay.state === TUNNEL) return relay.tunnel!.clientEnded();
  if (relay.state === EXCHANGE || relay.state === IN_LINE) return destroyClient(relay);
  relay.client.end();
}

/** Replies of before are whole, and go out. */
function destroyClient(relay: Relay) {
  flush(relay.client);
  relay.client.destroy();
}

function clientClosed(relay: Relay) {
  if (relay.state === CLOSED) return;
  relay.tunnel?.clientClosed();
  relay.answer?.abandon('the client has gone');
  if (relay.state === EXCHANGE) logAccess(relay, 'client-closed');
  else if (relay.state === TUNNEL) logAccess(relay);
  relay.state = CLOSED;
  relay.held = undefined;
  relay.pieces = undefined;
  dropUpstream(relay);
  relay.shared.context.deadlines.forget(relay.deadline);
  relay.shared.relays.remove(relay);
}

// --- When there is no room for another connection ---

/** Told from the deadline, which is set anew where idleness begins. */
function idleSince(this: Relay): number {
  const { limits } = this.shared.context;
  switch (this.state) {
    case IDLE:
      if (this.held !== undefined) return Number.POSITIVE_INFINITY;
      if (this.method !== '') return this.deadline.at - limits.keepAliveTimeoutMs;
      return this.deadline.at - limits.headerTimeoutMs + FIRST_WORDS_MS;
    case HEAD:
      return this.deadline.at - limits.headerTimeoutMs + FIRST_WORDS_MS;
    case CLOSING:
      return this.deadline.at - LINGER_MS;
    default:
      return Number.POSITIVE_INFINITY;
  }
}

function leave(this: Relay): void {
  if (this.state !== CLOSING) endClient(this);
  this.client.destroySoon();
}

// --- Clocks ---

/** One clock at a time: that of the side that is being waited for. */
function touch(relay: Relay) {
  const { deadlines, limits } = relay.shared.context;
  const settings = relay.settings!;
  let ms = settings.readTimeoutMs;
  if (relay.upstreamPaused) ms = limits.clientIdleTimeoutMs;
  else if (!relay.request.done) ms = relay.clientPaused ? settings.sendTimeoutMs : limits.clientIdleTimeoutMs;
  relay.deadline.at = Math.min(deadlines.after(ms), relay.endsAt);
}

function expire(relay: Relay) {
  relay.shared.context.deadlines.watch(relay.deadline);
  // Whatever comes of it, it must not last for ever.
  relay.deadline.at = relay.shared.context.deadlines.now() + LINGER_MS;
  switch (relay.state) {
    case HEAD:
      relay.state = EXCHANGE;
      relay.pieces = undefined;
      relay.method = '';
      relay.replyBegun = false;
      if (relay.access !== undefined) beginAccess(relay, undefined);
      return refuse(relay, 'request-timeout', 'its head');
    case EXCHANGE:
      return expireExchange(relay);
    case IDLE:
      return endClient(relay);
    default:
      destroyClient(relay);
  }
}

function expireExchange(relay: Relay) {
  if (relay.answer !== undefined) return expireAnswer(relay, relay.answer);
  const waitsForClient = relay.link !== undefined && !relay.request.done && !relay.clientPaused;
  if (relay.replyBegun) {
    const slow = waitsForClient || relay.upstreamPaused;
    return abandonClient(relay, slow ? 'request-timeout' : 'upstream-timeout');
  }
  if (waitsForClient) {
    dropUpstream(relay);
    return refuse(relay, 'request-timeout', 'its body');
  }
  relay.link?.fail();
  relay.link = undefined;
  dropUpstream(relay);
  replyFault(relay, new Fault('upstream-timeout', loggedRequestLine(relay.requestText)));
}

function expireAnswer(relay: Relay, answer: Http1Answer) {
  answer.abandon('the client took too long');
  if (relay.replyBegun) return abandonClient(relay, 'request-timeout');
  refuse(relay, 'request-timeout', 'its body');
}

// --- The upstream's side ---

function upstreamReady(this: Relay, link: UpstreamLink | Http2Link) {
  this.link = link;
  if (this.access !== undefined) this.access.upstream = link.address;
  this.attempt = undefined;
  // With those of other clients: an upstream that is asleep is woken once for all of them.
  gather(link.socket);
  if (this.bodySent) return sendAgain(this, link);
  if (this.request.done) {
    link.socket.write(this.requestText, 'latin1');
    return touch(this);
  }
  const bytes = this.held;
  this.held = undefined;
  resumeClient(this);
  if (bytes !== undefined) return passRequestBody(this, this.requestText, bytes);
  link.socket.write(this.requestText, 'latin1');
  touch(this);
}

/** All that the upstream before was sent, and what has come since. */
function sendAgain(relay: Relay, link: UpstreamLink | Http2Link) {
  link.socket.write(relay.requestText, 'latin1');
  // Copied: what is kept may grow while this waits.
  link.socket.write(Buffer.from(relay.replay!.content));
  if (relay.request.done || relay.link !== link) return touch(relay);
  const bytes = relay.held;
  relay.held = undefined;
  resumeClient(relay);
  if (bytes !== undefined) return passRequestBody(relay, '', bytes);
  touch(relay);
}

function upstreamFailed(this: Relay, fault: Fault) {
  this.attempt = undefined;
  replyFault(this, fault);
}

function upstreamDrained(this: Relay) {
  // Pipelined requests stay where they are.
  if (this.held === undefined) resumeClient(this);
  touch(this);
}

function upstreamData(this: Relay, bytes: Buffer, end: number) {
  this.replyHeard = true;
  this.replay = undefined;
  if (this.replyBegun) {
    passReplyBody(this, '', bytes, 0, end);
    return;
  }
  if (this.replyHeld === undefined) return readReply(this, bytes, end);
  const pieces = this.replyHeld;
  const { limits } = this.shared.context;
  if (!addPiece(pieces, bytes, 0, end, limits.maxHeaderBytes)) return touch(this);
  readReply(this, gathered(pieces), pieces.length);
}

function readReply(relay: Relay, bytes: Buffer, end: number) {
  const { replyHead: head, context } = relay.shared;
  let pos = 0;
  for (;;) {
    const taken = pos === end ? INCOMPLETE : parseReplyHead(head, bytes, pos, end, context.limits);
    if (taken === INCOMPLETE) {
      keepReply(relay, bytes, pos, end);
      return touch(relay);
    }
    if (taken === REFUSED) {
      const { protocol } = relay.settings!;
      return failReply(relay, foreignBytes(protocol, bytes, pos, end) ?? head.refusal.reason);
    }
    pos += taken;
    if (head.status >= 200) return beginReply(relay, head, bytes, pos, end);
    if (head.status === 101) {
      const link = relay.link!;
      const { upgrading } = relay;
      if (upgrading === undefined || !('handTo' in link) || !switchesAsAsked(head, upgrading))
        return failReply(relay, 'a switch of protocols that was not asked for');
      relay.state = TUNNEL;
      relay.tunnel = beginTunnel(relay.client, link, head, {
        context,
        settings: relay.settings!,
        access: relay.access,
      });
      relay.link = undefined;
      relay.deadline.at = Number.POSITIVE_INFINITY;
      const early = relay.held;
      relay.held = undefined;
      resumeClient(relay);
      if (pos < end) relay.tunnel.upstreamData(bytes.subarray(pos, end), end - pos);
      if (early !== undefined) relay.tunnel.clientData(early);
      return;
    }
    // RFC 9110 §15.2: interim replies are passed on, but never to HTTP/1.0.
    if (!relay.http10 && !passInterim(relay, head)) return failReply(relay, UNTAKEN);
  }
}

/** The head that is unfinished in `bytes[pos, end)`; all that has come is kept as it is, and the rest of it copied. */
function keepReply(relay: Relay, bytes: Buffer, pos: number, end: number) {
  if (pos === end) relay.replyHeld = undefined;
  else if (pos > 0 || relay.replyHeld === undefined) relay.replyHeld = beginPieces(bytes, pos, end);
}

/** False: more waits for the client than is kept. */
function passInterim(relay: Relay, head: MessageHead): boolean {
  const { client } = relay;
  client.write(interimHeadText(head), 'latin1');
  const waiting = client.writableLength;
  if (waiting > INTERIM_PAUSE_BYTES && client.writableNeedDrain && !relay.upstreamPaused) {
    relay.upstreamPaused = true;
    relay.link!.socket.pause();
  }
  return waiting <= MOST_INTERIM_BYTES;
}

function failReply(relay: Relay, reason: string) {
  relay.link?.fail();
  relay.link = undefined;
  replyFault(relay, new Fault('upstream-malformed', reason));
}

function beginReply(relay: Relay, head: MessageHead, bytes: Buffer, pos: number, end: number) {
  const { reply } = relay;
  relay.replyHeld = undefined;
  beginReplyBody(reply, head, relay.method);
  relay.replyBegun = true;
  if (relay.access !== undefined) relay.access.status = head.status;
  relay.requestText = '';
  relay.replyNominated = head.nominated;
  relay.upstreamKeeps =
    reply.kind !== 'until-close' &&
    !head.close &&
    (head.minor === 1 || head.keepAlive) &&
    relay.upgrading === undefined;
  relay.replyMode = AS_IT_CAME;
  let own = '';
  if (relay.http10) {
    // RFC 9112 §6.1: HTTP/1.0 knows no chunks; the end of the connection is the end of the body.
    if (reply.kind === 'chunked') relay.replyMode = UNCHUNKED;
    if (reply.kind === 'chunked' || reply.kind === 'until-close') relay.keepAlive = false;
  } else if (reply.kind === 'until-close') {
    relay.replyMode = CHUNKED;
    own = 'Transfer-Encoding: chunked\r\n';
  }
  // A body that is still arriving may never end: after this reply nothing else can be read.
  if (!relay.request.done || relay.shared.draining) relay.keepAlive = false;
  if (!relay.keepAlive) own += 'Connection: close\r\n';
  else if (relay.http10) own += 'Connection: keep-alive\r\n';
  if (head.status === 426 && head.upgradeTo !== '') own += upgradeOffer(head, relay.keepAlive);
  const text = replyHeadText(head, relay.http10 ? 'unframed' : 'as-it-came', own);
  passReplyBody(relay, text, bytes, pos, end);
}

/** RFC 9110 §15.5.22: a 426 must say what to upgrade to. */
function upgradeOffer(head: MessageHead, keepAlive: boolean): string {
  return `Upgrade: ${head.upgradeTo}\r\n${keepAlive ? 'Connection: upgrade\r\n' : ''}`;
}

function passReplyBody(relay: Relay, prefix: string, bytes: Buffer, start: number, end: number) {
  const { reply, client, replyMode } = relay;
  let ready = true;
  if (reply.kind === 'chunked' || replyMode !== AS_IT_CAME) {
    ready = passFramedReply(relay, prefix, bytes, start, end);
    if (relay.state !== EXCHANGE) return;
  } else {
    const next = readBody(reply, bytes, start, end, relay.shared.context.limits);
    if (next < end) relay.upstreamKeeps = false;
    if (prefix !== '') ready = writeReply(client, prefix, bytes, start, next);
    else if (next > start) ready = writeLent(client, bytes, start, next);
  }
  if (reply.done) return finishReply(relay);
  if (!ready && !relay.upstreamPaused) {
    relay.upstreamPaused = true;
    relay.link!.socket.pause();
  }
  touch(relay);
}

/** Chunks in, chunks out, or both. What was checked passes as it came; only extensions and trailers are cut out. */
function passFramedReply(relay: Relay, prefix: string, bytes: Buffer, start: number, end: number): boolean {
  const { reply, client, replyMode } = relay;
  const { limits } = relay.shared.context;
  let text = prefix;
  let from = start;
  let pos = start;
  let ready = true;
  const passTo = (to: number) => {
    if (text !== '') ready = writeReply(client, text, bytes, from, to);
    else if (to > from) ready = writeLent(client, bytes, from, to);
    text = '';
  };
  while (pos < end && !reply.done) {
    const next = readBody(reply, bytes, pos, end, limits);
    if (next === REFUSED) {
      // The head has left: only the missing end can tell the client.
      passTo(pos);
      cutShort(relay, new Fault('upstream-malformed', reply.refusal.reason));
      return false;
    }
    if (replyMode === CHUNKED) {
      text += `${(reply.dataEnd - reply.dataStart).toString(16)}\r\n`;
      from = reply.dataStart;
      passTo(reply.dataEnd);
      text = '\r\n';
      from = next;
    } else if (replyMode === UNCHUNKED) {
      from = reply.dataStart;
      passTo(reply.dataEnd);
      from = next;
    } else if (reply.cutEnd > reply.cutStart) {
      passTo(reply.cutStart);
      from = reply.cutEnd;
      if (reply.done) text = trailerText(reply.trailers!, relay.replyNominated);
    }
    pos = next;
  }
  passTo(pos);
  if (pos < end) relay.upstreamKeeps = false;
  return ready;
}

function upstreamEnded(this: Relay) {
  if (!this.replyBegun || this.reply.kind !== 'until-close') {
    const { link } = this;
    this.link = undefined;
    link?.destroy();
    return loseUpstream(this, undefined, 'unheard');
  }
  this.reply.done = true;
  finishReply(this);
}

function upstreamClosed(this: Relay, error: Error | undefined, loss: Loss) {
  this.link = undefined;
  loseUpstream(this, error, loss);
}

function loseUpstream(relay: Relay, error: Error | undefined, loss: Loss) {
  if (relay.state !== EXCHANGE) return;
  const fault = error instanceof Fault ? error : closedFault(relay, error);
  if (relay.replyBegun) return cutShort(relay, fault);
  const bodyKept = !relay.bodySent || relay.replay !== undefined;
  if (relay.replyHeard || !mayTryAgain(relay, loss, relay.method, bodyKept)) return replyFault(relay, fault);
  relay.deadline.at = relay.endsAt;
  relay.upstreamPaused = false;
  if (!relay.request.done) pauseClient(relay);
  relay.attempt = acquire(relay, relay.settings!, FRESH);
}

function closedFault(relay: Relay, cause: Error | undefined): Fault {
  const when = relay.replyBegun ? 'in the middle of its reply' : 'without a reply';
  return new Fault('upstream-closed', when, { cause });
}

/** A reply that can no longer be whole: the client must not take it for one (RFC 9112 §8). */
function cutShort(relay: Relay, fault: Fault) {
  logUpstream(relay, fault);
  logAccess(relay, fault.code);
  dropUpstream(relay);
  // The end of a body that is framed is missed by itself, and a reset might overtake what there is of the reply.
  if (!relay.request.done && !relay.http10) return endClient(relay);
  relay.state = CLOSING;
  destroyClient(relay);
}

function finishReply(relay: Relay) {
  const { link } = relay;
  if (relay.replyMode === CHUNKED) relay.client.write('0\r\n\r\n', 'latin1');
  relay.link = undefined;
  if (relay.upstreamPaused) {
    relay.upstreamPaused = false;
    link?.socket.resume();
  }
  if (link !== undefined) {
    if (relay.upstreamKeeps && relay.request.done) link.release();
    else link.destroy();
  }
  afterReply(relay);
}

function afterReply(relay: Relay) {
  relay.answer = undefined;
  if (relay.access !== undefined) logAccess(relay);
  if (!relay.keepAlive || !relay.request.done) return endClient(relay);
  relay.state = IDLE;
  relay.replyMode = AS_IT_CAME;
  const { deadlines, limits } = relay.shared.context;
  relay.deadline.at = deadlines.after(limits.keepAliveTimeoutMs);
  // Who does not take replies gets no more of them to pile up.
  if (relay.client.writableNeedDrain) pauseClient(relay);
  else if (relay.held !== undefined) process.nextTick(readHeld, relay);
  else resumeClient(relay);
}

/** The next pipelined request; not at once, or a thousand of them would be a thousand frames deep. */
function readHeld(relay: Relay) {
  if (relay.state !== IDLE) return;
  const { held } = relay;
  relay.held = undefined;
  resumeClient(relay);
  if (held !== undefined) readRequest(relay, held);
}

function endClient(relay: Relay) {
  relay.state = CLOSING;
  relay.held = undefined;
  const { deadlines } = relay.shared.context;
  relay.deadline.at = deadlines.now() + LINGER_MS;
  relay.client.end();
  // RFC 9112 §9.6: closing with bytes unread would reset the connection, and the reply with it.
  resumeClient(relay);
}

/** What is still sent is thrown away, and lets the client have more time to come to read its reply. */
function linger(relay: Relay, size: number) {
  const { deadlines } = relay.shared.context;
  relay.lingering ??= new Lingering(deadlines);
  if (relay.lingering.tires(size)) return destroyClient(relay);
  relay.deadline.at = relay.lingering.at;
}

// --- The access log ---

/** `head` is undefined if none arrived whole. */
function beginAccess(relay: Relay, head: MessageHead | undefined) {
  const access = relay.access!;
  access.protocol = 'http/1.1';
  access.method = head?.method ?? '';
  access.host = head?.host ?? '';
  access.target = head?.target ?? '';
  access.status = 0;
  access.sent = 0;
  access.received = 0;
  access.startedAt = relay.shared.context.deadlines.now();
  access.upstream = undefined;
  access.fault = undefined;
  relay.request.received = 0;
  relay.reply.received = 0;
}

/** Once for each exchange: when its reply has been written, or can no longer be. */
function logAccess(relay: Relay, fault?: FaultCode) {
  const { access, shared } = relay;
  if (access === undefined) return;
  access.fault ??= fault;
  if (access.fault === 'client-closed' && !relay.replyBegun) access.status = 499;
  // Replies of our own and tunnels have counted themselves.
  access.received += relay.request.received;
  access.sent += relay.reply.received;
  shared.context.accessLog!.write(access, shared.context.deadlines.now());
}

// --- Replies of our own ---

function replyCode(relay: Relay, code: FaultCode) {
  replyFault(relay, new Fault(code));
}

function replyFault(relay: Relay, fault: Fault) {
  if (relay.state !== EXCHANGE) return;
  if (fault.side !== 'downstream') logUpstream(relay, fault);
  else
    relay.shared.context.log.debug({ err: fault, client: relay.connection.clientAddress }, 'request refused');
  if (relay.replyBegun) return abandonClient(relay, fault.code);
  if (relay.access !== undefined) relay.access.fault = fault.code;
  writeFault(relay, fault.code, relay.requestText);
}

/** A reply has begun that will never be whole. */
function abandonClient(relay: Relay, code: FaultCode, framed = true) {
  if (relay.access !== undefined) relay.access.fault = code;
  // The missing end of a body that is framed is missed by itself.
  if (!framed) resetConnection(relay.client);
  destroyClient(relay);
}

function logUpstream(relay: Relay, fault: Fault) {
  noteUpstreamFault(relay.shared.context, relay.settings, fault, { host: relay.host, method: relay.method });
}

// --- As http1-reply.ts and http1-answer.ts see it ---

function beginOwnReply(this: Relay, status: number, sent: number, framed: boolean): boolean {
  if (!this.request.done || this.shared.draining || !framed) this.keepAlive = false;
  this.replyBegun = true;
  this.requestText = '';
  if (this.access !== undefined) {
    this.access.status = status;
    this.access.sent = sent;
  }
  return this.keepAlive;
}

function endOwnReply(this: Relay): void {
  afterReply(this);
}

function setClock(this: Relay, ms: number): void {
  this.deadline.at = this.shared.context.deadlines.after(ms);
}

function takeHeld(this: Relay): Buffer | undefined {
  const { held } = this;
  this.held = undefined;
  return held;
}

function holdMore(this: Relay, bytes: Buffer): void {
  hold(this, bytes);
}

function pauseThis(this: Relay): void {
  pauseClient(this);
}

function resumeThis(this: Relay): void {
  resumeClient(this);
}

function noteSent(this: Relay, size: number): void {
  if (this.access !== undefined) this.access.sent += size;
}

function failBody(this: Relay, code: FaultCode, reason: string): void {
  failRequest(this, code, reason);
}

function failAnswer(this: Relay): void {
  replyFault(this, new Fault('failed'));
}

function cutAnswer(this: Relay, framed: boolean): void {
  abandonClient(this, 'failed', framed);
}
