// Active health checks: asks each address of an upstream again and again, and says when the answer changes.

import { type ClientRequest, request as requestHttp } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import { connect as connectTcp, isIPv6 } from 'node:net';
import { connect as connectTls, type SecureContext } from 'node:tls';
import type { Log } from '../../src/lib/log.ts';
import { type HealthProbe, type HealthSettings, speaksTls } from '../rules/routes.ts';
import type { Endpoint } from './balance.ts';
import { trustFor } from './trust.ts';

export interface HealthChecks {
  /**
   * Checks `endpoint` until the returned function is called. The endpoint counts as healthy at first. Each change is
   * told once to `changed` and once to the log.
   */
  begin(endpoint: Endpoint, health: HealthSettings, changed: (healthy: boolean) => void): () => void;
}

export interface HealthChecksOptions {
  /** Trust for https and grpcs upstreams. */
  readonly secureContext: () => SecureContext;
  readonly log: Log;
  /** 0 to 1. */
  readonly random?: () => number;
}

/** Each interval is up to a tenth longer or shorter, so that the checks of all workers do not come at once. */
const JITTER = 0.1;
/** After an answer that contradicts the present state, the next check comes sooner than the interval, but not sooner than this. */
const DOUBT_MS = 1_000;

export function createHealthChecks(options: HealthChecksOptions): HealthChecks {
  return {
    begin(endpoint, health, changed) {
      const check = new Check(options, endpoint, health, changed);
      return () => check.stop();
    },
  };
}

/** The checks of one endpoint, from the first to the last. */
class Check {
  private readonly options: HealthChecksOptions;
  private readonly random: () => number;
  private readonly endpoint: Endpoint;
  private readonly health: HealthSettings;
  private readonly changed: (healthy: boolean) => void;
  private readonly stopped = new AbortController();
  private healthy = true;
  private contradictions = 0;
  private timer: NodeJS.Timeout;

  constructor(
    options: HealthChecksOptions,
    endpoint: Endpoint,
    health: HealthSettings,
    changed: (healthy: boolean) => void,
  ) {
    this.options = options;
    this.random = options.random ?? Math.random;
    this.endpoint = endpoint;
    this.health = health;
    this.changed = changed;
    this.timer = this.later(this.random() * Math.min(health.intervalMs, DOUBT_MS));
  }

  stop(): void {
    this.stopped.abort();
    clearTimeout(this.timer);
  }

  private later(ms: number): NodeJS.Timeout {
    return setTimeout(() => this.look(), ms).unref();
  }

  private async look(): Promise<void> {
    const { health, healthy } = this;
    const problem = await this.problem();
    if (this.stopped.signal.aborted) return;
    this.contradictions = (problem === undefined) === healthy ? 0 : this.contradictions + 1;
    if (this.contradictions >= (healthy ? health.unhealthyAfter : health.healthyAfter)) this.turn(problem);
    const usual = health.intervalMs * (1 - JITTER + 2 * JITTER * this.random());
    this.timer = this.later(this.contradictions === 0 ? usual : Math.min(usual, DOUBT_MS));
  }

  private turn(problem: Error | undefined): void {
    const { log } = this.options;
    this.healthy = problem === undefined;
    this.contradictions = 0;
    const { address, ip } = this.endpoint;
    const fields = { upstream: `${address.host}:${address.port}`, ip, check: this.health.probe.type };
    if (problem === undefined) log.info(fields, 'upstream is healthy again');
    else log.warn({ ...fields, err: problem }, 'upstream is unhealthy');
    this.changed(this.healthy);
  }

  private async problem(): Promise<Error | undefined> {
    const { probe, timeoutMs } = this.health;
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
    const signal = AbortSignal.any([this.stopped.signal, late.signal]);
    try {
      await ask(probe, this.endpoint, { signal, timeoutMs, secureContext: this.options.secureContext });
      return undefined;
    } catch (error) {
      return late.signal.aborted ? (late.signal.reason as Error) : (error as Error);
    } finally {
      clearTimeout(timer);
    }
  }
}

interface Asking {
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
  readonly secureContext: () => SecureContext;
}

async function ask(probe: HealthProbe, endpoint: Endpoint, asking: Asking): Promise<void> {
  const { signal, timeoutMs, secureContext } = asking;
  switch (probe.type) {
    case 'tcp':
      return askTcp(endpoint, signal);
    case 'http': {
      const host = hostOf(probe.host, endpoint);
      if (endpoint.protocol === 'h2c') return askHttp2(probe.path, host, endpoint, signal);
      return askHttp(probe.path, host, endpoint, asking);
    }
    case 'grpc': {
      // It is large and few upstreams need it: a worker that needs no gRPC check never loads it.
      const { askGrpc } = await import('./health-grpc.ts');
      const { protocol, address, tls } = endpoint;
      const trust = speaksTls(protocol) ? trustFor(address.host, tls, secureContext) : undefined;
      return askGrpc(endpoint, probe.service, { signal, timeoutMs, trust });
    }
  }
}

function askTcp({ ip, address }: Endpoint, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const socket = connectTcp({ host: ip, port: address.port }, resolve);
  socket.on('error', reject);
  return untilAborted(promise, signal).finally(() => socket.destroy());
}

function askHttp(
  path: string,
  host: string,
  endpoint: Endpoint,
  { signal, secureContext }: Asking,
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const { ip, address, protocol } = endpoint;
  const socket =
    protocol === 'https'
      ? connectTls({
          host: ip,
          port: address.port,
          ...trustFor(address.host, endpoint.tls, secureContext),
          ALPNProtocols: ['http/1.1'],
        })
      : connectTcp({ host: ip, port: address.port });
  const sent: ClientRequest = requestHttp({
    createConnection: () => socket,
    path,
    headers: { host, 'user-agent': USER_AGENT, connection: 'close' },
  });
  sent.on('error', reject);
  sent.on('response', (reply) => settle(reply.statusCode ?? 0, resolve, reject));
  sent.end();
  return untilAborted(promise, signal).finally(() => {
    sent.destroy();
    socket.destroy();
  });
}

const USER_AGENT = 'dstack-ingress health check';

function hostOf(wanted: string | undefined, { address: { host, port } }: Endpoint): string {
  return wanted ?? `${isIPv6(host) ? `[${host}]` : host}:${port}`;
}

function askHttp2(path: string, host: string, { ip, address }: Endpoint, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const session = connectHttp2(`http://${host}`, {
    createConnection: () => connectTcp({ host: ip, port: address.port }),
  });
  session.on('error', reject);
  session.on('close', () => reject(new Error('the connection was closed before a reply')));
  const stream = session.request({ ':path': path, 'user-agent': USER_AGENT });
  stream.on('error', reject);
  stream.on('response', (fields) => settle(fields[':status'] ?? 0, resolve, reject));
  return untilAborted(promise, signal).finally(() => session.destroy());
}

function settle(status: number, resolve: () => void, reject: (error: Error) => void) {
  if (status >= 200 && status < 400) resolve();
  else reject(new Error(`it answered with status ${status}`));
}

/** An abort takes effect at once: a socket may take long to notice. */
async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason as Error);
  if (signal.aborted) abort();
  signal.addEventListener('abort', abort);
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', abort);
    // The promise may still fail after the abort has won, and nobody would handle it.
    promise.catch(() => {});
  }
}
