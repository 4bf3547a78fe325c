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
  /** `bytes[0, end)` are lent. False: enough is waiting; clientDrained() is called when it has left. */
  write(bytes: Buffer, end: number): boolean;
  end(): void;
  /** What was written before is sent first, as far as that is possible without waiting. */
  destroy(): void;
  pause(): void;
  resume(): void;
  /** Of a socket: what a failed write has shown. */
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

/** Two sockets joined. The owner of the client's listeners passes their events in. */
export interface Tunnel extends UpstreamUser {
  clientData(bytes: Buffer): void;
  clientDrained(): void;
  clientEnded(): void;
  /** The client is gone: so is the upstream. */
  clientClosed(): void;
  /** When either side was last heard, or when the tunnel began, in the time of the deadlines. */
  quietSince(): number;
  /** Whether either side has sent a byte. */
  hasSpoken(): boolean;
}

/** What a drain can ask of a tunnel. */
export interface OpenTunnel {
  /** Of a WebSocket: sends Close to both ends, each where a frame ends. Other protocols have nothing of the kind. */
  goAway(): void;
  /** Ends both directions after what has been passed on. */
  end(): void;
}

/** What a tunnel uses of the proxy around it. */
export interface TunnelContext {
  readonly deadlines: Deadlines;
  readonly limits: Pick<ListenerLimits, 'clientIdleTimeoutMs'>;
  readonly log: Log;
  /** A tunnel is in here from its beginning until its client is gone. */
  readonly tunnels: Set<OpenTunnel>;
  readonly upstreams: Pick<Upstreams, 'balance'>;
}

/** What the access log is told of a tunnel. */
export interface TunnelRecord {
  /** Bytes from the client, and to it. */
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

/** How long either end has to read what was said last, before the reset that its own sending would cause. */
const LINGER_MS = 1_000;

/** Joins `client` to `link`, or to the link that upstreamReady() will bring. Ends when both directions have ended. */
export function createTunnel(options: TunnelOptions, existing?: UpstreamLink): Tunnel {
  return new Joined(options, existing);
}

class Joined implements Tunnel, OpenTunnel, Deadline {
  place = -1;
  at: number;
  private readonly options: TunnelOptions;
  private readonly client: TunnelClient;
  private readonly access: TunnelRecord | undefined;
  private readonly deadlines: Deadlines;
  private readonly idleMs: number;
  private readonly goodbye: Goodbye | undefined;
  private link: UpstreamLink | undefined;
  /** What the client said before there was an upstream. */
  private early: Buffer[] = [];
  private spoken = false;
  private clientHasEnded = false;
  /** The client cannot be reached: what it said is still passed on, but what is said to it keeps nothing alive. */
  private clientGone = false;
  private upstreamGone = false;
  /** The client's side is closed, and what it said last is on its way. */
  private closed = false;

  constructor(options: TunnelOptions, existing: UpstreamLink | undefined) {
    const { client, settings, context, access } = options;
    this.options = options;
    this.client = client;
    this.access = access;
    this.deadlines = context.deadlines;
    // Each side may be silent as long as its own limit says, so both may be for the longer of the two.
    this.idleMs = Math.max(settings.readTimeoutMs, context.limits.clientIdleTimeoutMs);
    this.goodbye = options.websocket === true ? createGoodbye(client, () => this.link) : undefined;
    this.link = existing;
    this.at = this.deadlines.after(this.idleMs);
    this.deadlines.watch(this);
    context.tunnels.add(this);
  }

  goAway(): void {
    this.goodbye?.begin();
  }

  end(): void {
    this.client.end();
    this.link?.socket.end();
  }

  /** Nothing was heard for too long. */
  expired(): void {
    const { access } = this;
    this.dropUpstream();
    if (this.closed) return;
    if (access !== undefined) access.fault ??= 'upstream-timeout';
    this.client.destroy();
  }

  quietSince(): number {
    return this.at - this.idleMs;
  }

  hasSpoken(): boolean {
    return this.spoken;
  }

  clientData(bytes: Buffer): void {
    const { access, goodbye } = this;
    this.touch();
    this.spoken = true;
    if (this.upstreamGone) return;
    if (access !== undefined) access.received += bytes.length;
    const end = goodbye === undefined ? bytes.length : goodbye.fromClient(bytes, bytes.length);
    if (end > 0) this.passUp(end === bytes.length ? bytes : bytes.subarray(0, end));
    goodbye?.continue();
  }

  clientDrained(): void {
    this.link?.socket.resume();
  }

  clientEnded(): void {
    const { client } = this;
    this.clientHasEnded = true;
    if (client.lastWords?.error !== undefined) {
      if (endedByReset(client.lastWords)) {
        client.destroy();
        return;
      }
      this.clientGone = true;
    }
    this.link?.socket.end();
  }

  clientClosed(): void {
    const { link } = this;
    this.options.context.tunnels.delete(this);
    if (!this.clientHasEnded || link === undefined || this.closed) {
      this.finish();
      return;
    }
    // The upstream may still be sending, and a reset now would overtake what the client said last: it is given time.
    this.closed = true;
    this.clientGone = true;
    this.at = this.deadlines.now() + LINGER_MS;
    link.socket.pause();
  }

  upstreamReady(link: UpstreamLink): void {
    this.touch();
    this.link = link;
    if (this.access !== undefined) this.access.upstream = link.endpoint.address;
    for (const bytes of this.early) link.socket.write(bytes);
    this.early = [];
    if (this.clientHasEnded) link.socket.end();
    this.client.resume();
  }

  upstreamFailed(fault: Fault): void {
    const { context, settings } = this.options;
    if (this.access !== undefined) this.access.fault = fault.code;
    logFault(context, fault, settings);
    this.client.destroy();
  }

  upstreamData(bytes: Buffer, size: number): void {
    if (this.closed) return;
    const { access, goodbye } = this;
    this.touch();
    this.spoken = true;
    const end = goodbye === undefined ? size : goodbye.fromUpstream(bytes, size);
    if (access !== undefined) access.sent += end;
    if (end > 0 && !this.client.write(bytes, end)) this.link?.socket.pause();
    goodbye?.continue();
  }

  upstreamDrained(): void {
    this.client.resume();
  }

  upstreamEnded(): void {
    if (this.closed) {
      this.finish();
      return;
    }
    this.touch();
    this.client.end();
  }

  upstreamClosed(error: Error | undefined): void {
    this.link = undefined;
    this.early = [];
    if (this.closed) {
      this.finish();
      return;
    }
    if (error !== undefined) {
      if (this.access !== undefined) this.access.fault = 'upstream-closed';
      // A reset is passed on as one: an orderly end would tell the client that it has received everything.
      if (!wasFoundByWriting(error)) {
        this.client.destroy();
        return;
      }
    }
    this.upstreamGone = true;
    if (error === undefined) this.client.end();
    // A client that is still sending would get a reset before it has read what the upstream said last.
    else this.at = this.deadlines.now() + LINGER_MS;
    this.client.resume();
  }

  private touch(): void {
    if (!this.clientGone && !this.upstreamGone) this.at = this.deadlines.after(this.idleMs);
  }

  private passUp(bytes: Buffer): void {
    const { link } = this;
    if (link === undefined) {
      this.early.push(bytes);
      this.client.pause();
      return;
    }
    gather(link.socket);
    link.socket.write(bytes);
    if (isFull(link.socket)) this.client.pause();
  }

  /** What the client said before it was lost still goes to the upstream. */
  private dropUpstream(): void {
    const { link } = this;
    if (link === undefined) return;
    flush(link.socket);
    link.destroy();
  }

  private finish(): void {
    this.deadlines.forget(this);
    this.dropUpstream();
  }
}

/** Ends a WebSocket because of a drain (RFC 6455 §7.1.1): Close to both ends, and each socket is ended after its answer. */
interface Goodbye {
  begin(): void;
  /** How many of these bytes are to be passed on. */
  fromClient(bytes: Buffer, end: number): number;
  fromUpstream(bytes: Buffer, end: number): number;
  /** To be called after they were. */
  continue(): void;
}

/** One direction, and whether its receiver was sent a Close. */
interface Direction {
  readonly tracker: FrameTracker;
  /** What has been passed on ends with a whole frame. */
  due: boolean;
  /** No Close has been passed on, so one is to be sent. */
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
    // After our own Close nothing is passed on. The rest is read only to see the other end's Close.
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

/** `take`: where the client's bytes go instead of straight into the tunnel. */
export function joinClient(
  socket: TLSSocket,
  tunnel: Tunnel,
  take: (bytes: Buffer) => void = (bytes) => tunnel.clientData(bytes),
): void {
  onData(socket, take);
  socket.on('drain', () => tunnel.clientDrained());
  socket.on('end', () => tunnel.clientEnded());
  destroyOnError(socket);
  socket.once('close', () => tunnel.clientClosed());
}
