// Connections to upstreams: addresses, balance, ejection of what fails, and a pool of idle HTTP/1.1 sockets.

import { lookup as systemLookup } from 'node:dns';
import {
  connect as connectTcp,
  isIP,
  type LookupFunction,
  type Socket,
  type TcpNetConnectOpts,
} from 'node:net';
import * as tls from 'node:tls';
import type { Deadline, Deadlines } from './deadlines.ts';
import { Fault } from './errors.ts';
import type { Address, UpstreamSettings } from './routes.ts';

/** Who is using a link. The calls come from the socket itself: none may throw. */
export interface UpstreamUser {
  /** Connected (and verified): write now. May be called before acquire() returns. */
  upstreamReady(link: UpstreamLink): void;
  /** No connection could be had at any address; nothing was sent. */
  upstreamFailed(fault: Fault): void;
  /** `bytes[0, end)` are lent: they are overwritten after the call. Copy what is kept. */
  upstreamData(bytes: Buffer, end: number): void;
  /** All that was written has left; after socket.write() gave false. */
  upstreamDrained(): void;
  /** The upstream has sent its last byte; its receiving half may still be open. */
  upstreamEnded(): void;
  /** The socket is gone, after an error or not. Not called after release() or destroy(). */
  upstreamClosed(error: Error | undefined): void;
}

/** A connected socket in the hands of one user. */
export interface UpstreamLink {
  /** Half-open allowed. Never add listeners to it: write, end, pause and resume are the user's. */
  readonly socket: Socket;
  /** Whether it has carried an exchange before: then its end may be no more than a keep-alive that ran out. */
  readonly reused: boolean;
  /** For the log. */
  readonly address: Address;
  /** From now on the calls go to `user`: the connection has become a tunnel. */
  handTo(user: UpstreamUser): void;
  /** The exchange is complete on both sides and the upstream keeps the connection: back to the pool. */
  release(): void;
  /** The connection is over, whatever is under way; nothing is called any more. */
  destroy(): void;
  /** As destroy(), and counted against the address. */
  fail(): void;
}

export interface Acquisition {
  /** Gives up the attempt; once upstreamReady() was called, use the link's destroy(). */
  abandon(): void;
}

export interface AcquireOptions {
  /** Do not take an idle connection: for a retry, and for tunnels. */
  readonly fresh?: boolean;
}

export interface Upstreams {
  /** HTTP/1.1 or raw bytes; TLS for https (ALPN http/1.1) and grpcs. The outcome arrives at `user`, perhaps at once. */
  acquire(settings: UpstreamSettings, user: UpstreamUser, options?: AcquireOptions): Acquisition;
  /** The least loaded address that is not ejected: for protocols that keep their own connections. */
  pick(settings: UpstreamSettings): Address;
  /** An attempt at `address` went well or not: feeds the ejection. */
  report(settings: UpstreamSettings, address: Address, wentWell: boolean): void;
  /** Trust for TLS to upstreams: the system's roots, or the CA given. */
  secureContext(): tls.SecureContext;
  /** Names to addresses, kept for a few seconds and asked anew after a failed connection. */
  readonly lookup: LookupFunction;
  /** Ends idle connections, now and as they come back. */
  close(): void;
}

export interface UpstreamsOptions {
  readonly deadlines: Deadlines;
  /** PEM; replaces the system's roots. */
  readonly upstreamCa?: string | undefined;
  /** An idle connection is closed after this; the shortest keep-alive among common servers is 5 s. */
  readonly idleTimeoutMs?: number;
}

const IDLE_TIMEOUT_MS = 4_000;
const MAX_IDLE_PER_ADDRESS = 512;
const RESOLUTION_MS = 5_000;
const FAILURES_TO_EJECT = 3;
const EJECTION_MS = 10_000;
const TCP_KEEPALIVE_MS = 60_000;

/** Bytes from upstreams land here, every socket's: reads are synchronous, and users copy what they keep. */
const arrivals = Buffer.allocUnsafeSlow(65_536);

interface Target {
  readonly address: Address;
  /** The last in is the first out, so that the rest may grow old. */
  readonly idle: Link[];
  active: number;
  failures: number;
  ejectedUntil: number;
  session: Buffer | undefined;
}

interface Link extends UpstreamLink {
  reused: boolean;
  user: UpstreamUser | undefined;
  idleSince: number;
}

export function createUpstreams(options: UpstreamsOptions): Upstreams {
  const { deadlines, upstreamCa, idleTimeoutMs = IDLE_TIMEOUT_MS } = options;
  const pools = new Map<string, Target[]>();
  // Settings are new objects after each reload; what they say is what a pool belongs to.
  const poolBySettings = new WeakMap<UpstreamSettings, Target[]>();
  const { lookup, forget } = createLookup(deadlines.now);
  let context: tls.SecureContext | undefined;
  let closed = false;
  const reaper: Deadline = { at: Number.POSITIVE_INFINITY, expired: reap };

  return {
    acquire,
    pick: (settings) => chooseTarget(targetsOf(settings), deadlines.now()).address,
    report(settings, address, wentWell) {
      const targets = targetsOf(settings);
      const target = targets.find((t) => t.address.host === address.host && t.address.port === address.port);
      if (target === undefined) return;
      if (wentWell) target.failures = 0;
      else noteFailure(target);
    },
    secureContext,
    lookup,
    close() {
      closed = true;
      deadlines.forget(reaper);
      for (const target of allTargets()) for (const link of target.idle.splice(0)) link.socket.destroy();
    },
  };

  function acquire(settings: UpstreamSettings, user: UpstreamUser, how?: AcquireOptions): Acquisition {
    const targets = targetsOf(settings);
    const target = targets.length === 1 ? targets[0]! : chooseTarget(targets, deadlines.now());
    if (how?.fresh !== true) {
      const link = takeIdle(target);
      if (link !== undefined) {
        link.user = user;
        target.active++;
        user.upstreamReady(link);
        return NOTHING_TO_ABANDON;
      }
    }
    return connectToOneOf(settings, targets, target, user);
  }

  function targetsOf(settings: UpstreamSettings): Target[] {
    const known = poolBySettings.get(settings);
    if (known !== undefined) return known;
    const key = JSON.stringify([settings.protocol, settings.addresses.map((a) => [a.host, a.port])]);
    let targets = pools.get(key);
    if (targets === undefined) {
      targets = settings.addresses.map((address) => createTarget(address));
      pools.set(key, targets);
    }
    poolBySettings.set(settings, targets);
    return targets;
  }

  function takeIdle(target: Target): Link | undefined {
    const oldest = deadlines.now() - idleTimeoutMs;
    for (let link = target.idle.pop(); link !== undefined; link = target.idle.pop()) {
      if (link.idleSince > oldest && !link.socket.destroyed && link.socket.writable) return link;
      link.socket.destroy();
    }
    return undefined;
  }

  /** A failed connection did no harm: the other addresses are tried in turn, and a name is resolved anew once. */
  function connectToOneOf(
    settings: UpstreamSettings,
    targets: readonly Target[],
    first: Target,
    user: UpstreamUser,
  ): Acquisition {
    let abandoned = false;
    let socket: Socket | undefined;
    const untried = targets.filter((target) => target !== first);
    const attempt = (target: Target) => {
      socket = open(settings, target, user, (fault) => {
        if (abandoned) return;
        const wasCached = forget(target.address.host);
        noteFailure(target);
        if (wasCached && fault.code !== 'connect-timeout') return attempt(target);
        const next = untried.length === 0 ? undefined : chooseTarget(untried, deadlines.now());
        if (next === undefined) return user.upstreamFailed(fault);
        untried.splice(untried.indexOf(next), 1);
        attempt(next);
      });
    };
    attempt(first);
    return {
      abandon() {
        abandoned = true;
        socket?.destroy();
      },
    };
  }

  /** Opens one connection; `failed` is called if it never was one, otherwise everything goes to the user. */
  function open(
    settings: UpstreamSettings,
    target: Target,
    user: UpstreamUser,
    failed: (fault: Fault) => void,
  ): Socket {
    const { address } = target;
    const secure = settings.protocol === 'https' || settings.protocol === 'grpcs';
    let error: Error | undefined;
    let ready = false;
    const onread = {
      buffer: arrivals,
      callback(size: number, bytes: Uint8Array): boolean {
        // A byte that nobody asked for would be taken for the next reply: the connection is not to be used again.
        if (link.user === undefined) link.socket.destroy();
        else link.user.upstreamData(bytes as Buffer, size);
        return true;
      },
    };
    const common = {
      host: address.host,
      port: address.port,
      lookup,
      noDelay: true,
      allowHalfOpen: true,
      onread,
    };
    const socket = secure ? connectTls(common, target) : connectTcp(common);
    const deadline: Deadline = {
      at: deadlines.now() + settings.connectTimeoutMs,
      expired: () => socket.destroy(new Fault('connect-timeout', `${address.host}:${address.port}`)),
    };
    const link = createLink(socket, target, user);
    deadlines.watch(deadline);
    target.active++;
    socket.once(secure ? 'secureConnect' : 'connect', () => {
      ready = true;
      deadlines.forget(deadline);
      socket.setKeepAlive(true, TCP_KEEPALIVE_MS);
      user.upstreamReady(link);
    });
    socket.on('drain', () => link.user?.upstreamDrained());
    socket.on('end', () => (link.user === undefined ? socket.destroy() : link.user.upstreamEnded()));
    socket.on('error', (cause) => {
      error = cause;
    });
    socket.once('close', () => {
      deadlines.forget(deadline);
      const at = target.idle.indexOf(link);
      if (at !== -1) target.idle.splice(at, 1);
      const { user: last } = link;
      if (last === undefined) return;
      link.user = undefined;
      target.active--;
      if (ready) last.upstreamClosed(error);
      else failed(asFault(error, address));
    });
    return socket;
  }

  function connectTls(common: TcpNetConnectOpts, target: Target): tls.TLSSocket {
    const { host } = target.address;
    const options: tls.ConnectionOptions & TcpNetConnectOpts = {
      ...common,
      secureContext: secureContext(),
      ALPNProtocols: ['http/1.1'],
      // RFC 6066 §3: an IP literal is not sent as a server name.
      servername: isIP(host) === 0 ? host : '',
      ...(target.session === undefined ? {} : { session: target.session }),
    };
    const socket = tls.connect(options);
    socket.on('session', (session) => {
      target.session = session;
    });
    return socket;
  }

  function createLink(socket: Socket, target: Target, user: UpstreamUser): Link {
    const link: Link = {
      socket,
      address: target.address,
      reused: false,
      user,
      idleSince: 0,
      handTo(next) {
        link.user = next;
      },
      release() {
        if (link.user === undefined) return;
        leave();
        target.failures = 0;
        if (
          closed ||
          socket.destroyed ||
          socket.readableEnded ||
          !socket.writable ||
          socket.writableLength > 0
        ) {
          socket.destroy();
        } else if (target.idle.length >= MAX_IDLE_PER_ADDRESS) socket.destroy();
        else {
          link.reused = true;
          link.idleSince = deadlines.now();
          target.idle.push(link);
          // Idle sockets must be read, or their end would go unseen.
          socket.resume();
          if (reaper.at === Number.POSITIVE_INFINITY) watchIdle();
        }
      },
      destroy() {
        if (link.user === undefined) return;
        leave();
        socket.destroy();
      },
      fail() {
        if (link.user === undefined) return;
        noteFailure(target);
        link.destroy();
      },
    };
    const leave = () => {
      link.user = undefined;
      target.active--;
    };
    return link;
  }

  function noteFailure(target: Target) {
    target.session = undefined;
    if (++target.failures < FAILURES_TO_EJECT) return;
    target.failures = 0;
    target.ejectedUntil = deadlines.now() + EJECTION_MS;
  }

  function watchIdle() {
    reaper.at = deadlines.now() + Math.min(1_000, idleTimeoutMs);
    deadlines.watch(reaper);
  }

  function reap() {
    reaper.at = Number.POSITIVE_INFINITY;
    const oldest = deadlines.now() - idleTimeoutMs;
    let left = 0;
    for (const { idle } of allTargets()) {
      while (idle.length > 0 && idle[0]!.idleSince <= oldest) idle.shift()!.socket.destroy();
      left += idle.length;
    }
    if (left > 0 && !closed) watchIdle();
  }

  function secureContext(): tls.SecureContext {
    context ??= tls.createSecureContext({
      minVersion: 'TLSv1.2',
      ca: upstreamCa ?? [...tls.getCACertificates('default'), ...tls.getCACertificates('system')],
    });
    return context;
  }

  function* allTargets(): Iterable<Target> {
    for (const targets of pools.values()) yield* targets;
  }
}

const NOTHING_TO_ABANDON: Acquisition = { abandon() {} };

function createTarget(address: Address): Target {
  return { address, idle: [], active: 0, failures: 0, ejectedUntil: 0, session: undefined };
}

/** Least connections. If all are ejected, the one that comes back first: a guess beats a refusal. */
function chooseTarget(targets: readonly Target[], now: number): Target {
  let best = targets[0]!;
  for (const target of targets) {
    const ejected = target.ejectedUntil > now;
    const bestEjected = best.ejectedUntil > now;
    if (
      ejected !== bestEjected
        ? bestEjected
        : ejected
          ? target.ejectedUntil < best.ejectedUntil
          : isLessLoaded(target, best)
    ) {
      best = target;
    }
  }
  return best;
}

function isLessLoaded(a: Target, b: Target): boolean {
  return a.active < b.active || (a.active === b.active && a.idle.length > b.idle.length);
}

/** What stopped a connection before it was one; the address goes to the log only. */
export function asFault(error: Error | undefined, address: Address): Fault {
  if (error instanceof Fault) return error;
  const code = (error as NodeJS.ErrnoException | undefined)?.code ?? '';
  const at = `${address.host}:${address.port}`;
  const options = error === undefined ? undefined : { cause: error };
  if (/^(ENOTFOUND|EAI_)/.test(code)) return new Fault('upstream-unresolved', at, options);
  if (/CERT|UNABLE_TO_|SELF_SIGNED/.test(code)) return new Fault('upstream-untrusted', at, options);
  if (code === 'EMFILE' || code === 'ENFILE' || code === 'EADDRNOTAVAIL')
    return new Fault('overloaded', at, options);
  if (code === 'ETIMEDOUT') return new Fault('connect-timeout', at, options);
  return new Fault('upstream-refused', at, options);
}

function createLookup(now: () => number): { lookup: LookupFunction; forget(host: string): boolean } {
  const kept = new Map<string, { until: number; addresses: { address: string; family: number }[] }>();
  const lookup: LookupFunction = (host, options, done) => {
    const give = (addresses: { address: string; family: number }[]) => {
      if (options.all) done(null, addresses);
      else done(null, addresses[0]!.address, addresses[0]!.family);
    };
    const found = kept.get(host);
    if (found !== undefined && found.until > now()) return process.nextTick(give, found.addresses);
    systemLookup(host, { all: true }, (error, addresses) => {
      if (error !== null) return done(error, []);
      kept.set(host, { until: now() + RESOLUTION_MS, addresses });
      give(addresses);
    });
  };
  const forget = (host: string) => {
    const found = kept.get(host);
    kept.delete(host);
    // An answer that the failed attempt itself had just got would be no different the second time.
    return found !== undefined && found.until - now() < RESOLUTION_MS - 1_000;
  };
  return { lookup, forget };
}
