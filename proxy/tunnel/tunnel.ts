// Raw bytes both ways between a client and an upstream, half-closes kept.

import type { TLSSocket } from 'node:tls';
import type { Log } from '../../src/lib/log.ts';
import type { Fault, FaultCode } from '../faults.ts';
import type { ListenerLimits } from '../limits.ts';
import type { Address, UpstreamSettings } from '../rules/routes.ts';
import type { Deadline, Deadlines } from '../socket/deadlines.ts';
import { destroyOnError } from '../socket/errors.ts';
import {
  endedByReset,
  hearLastWords,
  type LastWords,
  wasFoundByWriting,
} from '../socket/insides/last-words.ts';
import { onData } from '../socket/reads.ts';
import { flush, gather, isFull, writeLent } from '../socket/writes.ts';
import { noteUpstreamFault } from '../upstream/faults.ts';
import type { UpstreamLink, Upstreams, UpstreamUser } from '../upstream/http1-pool.ts';
import { createFrameTracker, type FrameTracker, goingAwayFrame, trackFrames } from './websocket-frames.ts';

/** The client's side of a tunnel: a socket, or a stream of HTTP/2. */
export interface TunnelClient {
  /** `bytes[0, end)` are lent. False: enough is waiting, and clientDrained() will say when it has gone. */
  write(bytes: Buffer, end: number): boolean;
  end(): void;
  /** What was written before goes out, as far as it can without waiting. */
  destroy(): void;
  pause(): void;
  resume(): void;
  /** Of a socket: what a failed write has found out. */
  readonly lastWords?: LastWords;
}

export function socketClient(socket: TLSSocket): TunnelClient {
  return {
    lastWords: hearLastWords(socket),
    write: (bytes, end) => writeLent(socket, bytes, 0, end),
    end: () => void socket.end(),
    destroy() {
      flush(socket);
      socket.destroy();
    },
    pause: () => void socket.pause(),
    resume: () => void socket.resume(),
  };
}

/** Two sockets joined. Whoever owns the client's listeners passes their events in. */
export interface Tunnel extends UpstreamUser {
  clientData(bytes: Buffer): void;
  clientDrained(): void;
  clientEnded(): void;
  /** The client is gone: so is the upstream. */
  clientClosed(): void;
  /** When something was last heard from either side, or when it began, in the time of the deadlines. */
  quietSince(): number;
  /** Whether either side has sent a byte. */
  hasSpoken(): boolean;
}

/** What a drain can ask of a tunnel. */
export interface OpenTunnel {
  /** Of a WebSocket: tells both ends that it is over, each where a frame ends. Nothing that is cheap does it for others. */
  goAway(): void;
  /** Ends both directions after what has been passed on. */
  end(): void;
}

/** What of the proxy around it a tunnel uses. */
export interface TunnelContext {
  readonly deadlines: Deadlines;
  readonly limits: Pick<ListenerLimits, 'clientIdleTimeoutMs'>;
  readonly log: Log;
  /** It is in there from its beginning until its client is gone. */
  readonly tunnels: Set<OpenTunnel>;
  readonly upstreams: Pick<Upstreams, 'balance'>;
}

/** What the access log is told of a tunnel. */
export interface TunnelRecord {
  /** Bytes that the client sent, and that it was sent. */
  received: number;
  sent: number;
  upstream: Address | undefined;
  fault: FaultCode | undefined;
}

export interface TunnelOptions {
  readonly context: TunnelContext;
  readonly client: TunnelClient;
  readonly settings: UpstreamSettings;
  /** Both ends speak WebSocket. */
  readonly websocket?: boolean;
  /** Told of bytes, upstream and fault as they come. */
  readonly access?: TunnelRecord | undefined;
}

/** How long a client that is still sending has to read what was said before a reset. */
const LINGER_MS = 1_000;

/** Joins `client` to `link`, or to the link that upstreamReady() will bring. Ends when both directions have. */
export function createTunnel(options: TunnelOptions, existing?: UpstreamLink): Tunnel {
  const { client, settings, context, access } = options;
  const { deadlines } = context;
  // Either side may be silent as long as its own limit says, so both may for the longer of the two.
  const idleMs = Math.max(settings.readTimeoutMs, context.limits.clientIdleTimeoutMs);
  const goodbye = options.websocket === true ? createGoodbye(client, () => link) : undefined;
  let link = existing;
  let early: Buffer[] = [];
  let spoken = false;
  let clientEnded = false;
  /** Gone for good: what it said is still passed on, what is said to it keeps nothing alive. */
  let clientGone = false;
  let upstreamGone = false;
  /** The client's side is closed, and what it said last is on its way. */
  let closed = false;
  const deadline: Deadline = {
    at: deadlines.after(idleMs),
    expired() {
      dropUpstream();
      if (closed) return;
      if (access !== undefined) access.fault ??= 'upstream-timeout';
      client.destroy();
    },
  };
  const open: OpenTunnel = {
    goAway: () => goodbye?.begin(),
    end() {
      client.end();
      link?.socket.end();
    },
  };
  deadlines.watch(deadline);
  context.tunnels.add(open);
  const touch = () => {
    if (!clientGone && !upstreamGone) deadline.at = deadlines.after(idleMs);
  };

  const passUp = (bytes: Buffer) => {
    if (link === undefined) {
      early.push(bytes);
      client.pause();
      return;
    }
    gather(link.socket);
    link.socket.write(bytes);
    if (isFull(link.socket)) client.pause();
  };
  /** What a client said before it was lost is the upstream's. */
  const dropUpstream = () => {
    if (link === undefined) return;
    flush(link.socket);
    link.destroy();
  };
  const finish = () => {
    deadlines.forget(deadline);
    dropUpstream();
  };

  return {
    quietSince: () => deadline.at - idleMs,
    hasSpoken: () => spoken,
    clientData(bytes) {
      touch();
      spoken = true;
      if (upstreamGone) return;
      if (access !== undefined) access.received += bytes.length;
      const end = goodbye === undefined ? bytes.length : goodbye.fromClient(bytes, bytes.length);
      if (end > 0) passUp(end === bytes.length ? bytes : bytes.subarray(0, end));
      goodbye?.continue();
    },
    clientDrained: () => void link?.socket.resume(),
    clientEnded() {
      clientEnded = true;
      const { lastWords } = client;
      if (lastWords?.error !== undefined) {
        if (endedByReset(lastWords)) return client.destroy();
        clientGone = true;
      }
      link?.socket.end();
    },
    clientClosed() {
      context.tunnels.delete(open);
      if (!clientEnded || link === undefined || closed) return finish();
      // A reset would overtake what it said last: the upstream, which may still be sending, is given time to read it.
      closed = true;
      clientGone = true;
      deadline.at = deadlines.now() + LINGER_MS;
      link.socket.pause();
    },
    upstreamReady(ready) {
      touch();
      link = ready;
      if (access !== undefined) access.upstream = ready.address;
      for (const bytes of early) link.socket.write(bytes);
      early = [];
      if (clientEnded) link.socket.end();
      client.resume();
    },
    upstreamFailed(fault) {
      if (access !== undefined) access.fault = fault.code;
      logFault(context, fault, settings);
      client.destroy();
    },
    upstreamData(bytes, size) {
      if (closed) return;
      touch();
      spoken = true;
      const end = goodbye === undefined ? size : goodbye.fromUpstream(bytes, size);
      if (access !== undefined) access.sent += end;
      if (end > 0 && !client.write(bytes, end)) link?.socket.pause();
      goodbye?.continue();
    },
    upstreamDrained: () => void client.resume(),
    upstreamEnded() {
      if (closed) return finish();
      touch();
      client.end();
    },
    upstreamClosed(error) {
      link = undefined;
      early = [];
      if (closed) return finish();
      // A reset stays visible: an orderly end would tell the client that it has received everything.
      if (error !== undefined) {
        if (access !== undefined) access.fault = 'upstream-closed';
        if (!wasFoundByWriting(error)) return client.destroy();
      }
      upstreamGone = true;
      if (error === undefined) client.end();
      // A client that is still sending would be reset before it has read what was said last.
      else deadline.at = deadlines.now() + LINGER_MS;
      client.resume();
    },
  };
}

/** The end of a WebSocket at our own wish (RFC 6455 §7.1.1): Close to both ends, and a socket's end after its answer. */
interface Goodbye {
  begin(): void;
  /** How many of these bytes are to be passed on. */
  fromClient(bytes: Buffer, end: number): number;
  fromUpstream(bytes: Buffer, end: number): number;
  /** To be called after they were. */
  continue(): void;
}

/** One way through the tunnel, and whether its receiver was told. */
interface Direction {
  readonly tracker: FrameTracker;
  /** What has been passed on ends with a whole frame. */
  due: boolean;
  /** None of what has been passed on was a Close. */
  owed: boolean;
  told: boolean;
}

function createGoodbye(client: TunnelClient, link: () => UpstreamLink | undefined): Goodbye {
  const fromClient: Direction = { tracker: createFrameTracker(), due: false, owed: false, told: false };
  const fromUpstream: Direction = { tracker: createFrameTracker(), due: false, owed: false, told: false };
  let leaving = false;

  const noteBoundary = (direction: Direction) => {
    const { tracker } = direction;
    if (direction.due || !tracker.atBoundary) return;
    direction.due = true;
    direction.owed = !tracker.closed;
  };
  const take = (direction: Direction, bytes: Buffer, end: number): number => {
    const { tracker } = direction;
    const passed = direction.due ? 0 : trackFrames(tracker, bytes, 0, end, leaving);
    if (leaving) noteBoundary(direction);
    // After our own Close nothing goes on; it is read for the other end's Close alone.
    trackFrames(tracker, bytes, passed, end, false);
    return passed;
  };
  const proceed = () => {
    if (!leaving) return;
    if (fromUpstream.due && !fromUpstream.told) {
      fromUpstream.told = true;
      if (fromUpstream.owed) {
        const frame = goingAwayFrame(false);
        client.write(frame, frame.length);
      }
    }
    if (fromClient.due && !fromClient.told) {
      fromClient.told = true;
      if (fromClient.owed) link()?.socket.write(goingAwayFrame(true));
    }
    if (fromUpstream.told && fromClient.tracker.closed) client.end();
    if (fromClient.told && fromUpstream.tracker.closed) link()?.socket.end();
  };
  return {
    begin() {
      leaving = true;
      noteBoundary(fromClient);
      noteBoundary(fromUpstream);
      proceed();
    },
    fromClient: (bytes, end) => take(fromClient, bytes, end),
    fromUpstream: (bytes, end) => take(fromUpstream, bytes, end),
    continue: proceed,
  };
}

export function logFault(
  context: Pick<TunnelContext, 'log' | 'upstreams'>,
  fault: Fault,
  settings: UpstreamSettings,
): void {
  noteUpstreamFault(context, settings, fault, { protocol: settings.protocol });
}

/** `take`: where the client's bytes go, if not into the tunnel at once. */
export function joinClient(
  socket: TLSSocket,
  tunnel: Tunnel,
  take: (bytes: Buffer) => void = tunnel.clientData,
): void {
  onData(socket, take);
  socket.on('drain', tunnel.clientDrained);
  socket.on('end', tunnel.clientEnded);
  destroyOnError(socket);
  socket.once('close', tunnel.clientClosed);
}
