// Active health checks: asks each address of an upstream again and again, and says when the answer changes.

import { type ClientRequest, request as requestHttp } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import { connect as connectTcp, isIP, isIPv6 } from 'node:net';
import { connect as connectTls, type SecureContext } from 'node:tls';
import type { Log } from '../../src/lib/log.ts';
import { type HealthProbe, type HealthSettings, speaksTls } from '../rules/routes.ts';
import type { Endpoint } from './balance.ts';

export interface HealthChecks {
  /**
   * Checks `endpoint`, which counts as healthy until shown otherwise, until the result is called. `changed` gets each
   * change once, and so does the log.
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

/** Checks of many upstreams by many workers must not come all at once: each interval is up to a tenth off. */
const JITTER = 0.1;
/** An answer that contradicts what is believed is checked sooner than the interval says, but no sooner than this. */
const DOUBT_MS = 1_000;

export function createHealthChecks(options: HealthChecksOptions): HealthChecks {
  const { log, random = Math.random } = options;
  return { begin };

  function begin(
    endpoint: Endpoint,
    health: HealthSettings,
    changed: (healthy: boolean) => void,
  ): () => void {
    const stop = new AbortController();
    let healthy = true;
    let contradictions = 0;
    let timer = later(random() * Math.min(health.intervalMs, DOUBT_MS));

    function later(ms: number) {
      return setTimeout(look, ms).unref();
    }

    async function look() {
      const problem = await problemOf(endpoint, health, stop.signal);
      if (stop.signal.aborted) return;
      contradictions = (problem === undefined) === healthy ? 0 : contradictions + 1;
      if (contradictions >= (healthy ? health.unhealthyAfter : health.healthyAfter)) turn(problem);
      const usual = health.intervalMs * (1 - JITTER + 2 * JITTER * random());
      timer = later(contradictions === 0 ? usual : Math.min(usual, DOUBT_MS));
    }

    function turn(problem: Error | undefined) {
      healthy = problem === undefined;
      contradictions = 0;
      const { address, ip } = endpoint;
      const fields = { upstream: `${address.host}:${address.port}`, ip, check: health.probe.type };
      if (problem === undefined) log.info(fields, 'upstream is healthy again');
      else log.warn({ ...fields, err: problem }, 'upstream is unhealthy');
      changed(healthy);
    }

    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }

  async function problemOf(
    endpoint: Endpoint,
    { probe, timeoutMs }: HealthSettings,
    stopped: AbortSignal,
  ): Promise<Error | undefined> {
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
    try {
      await ask(probe, endpoint, AbortSignal.any([stopped, late.signal]), timeoutMs);
      return undefined;
    } catch (error) {
      return late.signal.aborted ? (late.signal.reason as Error) : (error as Error);
    } finally {
      clearTimeout(timer);
    }
  }

  async function ask(
    probe: HealthProbe,
    endpoint: Endpoint,
    signal: AbortSignal,
    timeoutMs: number,
  ): Promise<void> {
    const secure = speaksTls(endpoint.protocol);
    switch (probe.type) {
      case 'tcp':
        return askTcp(endpoint, signal);
      case 'http':
        if (endpoint.protocol === 'h2c')
          return askHttp2(probe.path, hostOf(probe.host, endpoint), endpoint, signal);
        return askHttp(probe.path, hostOf(probe.host, endpoint), endpoint, signal);
      case 'grpc': {
        // Few need it, and it is large: a worker that does not starts without it.
        const { askGrpc } = await import('./health-grpc.ts');
        const trust = secure ? options.secureContext() : undefined;
        return askGrpc(endpoint, probe.service, { signal, timeoutMs, secureContext: trust });
      }
    }
  }

  function askTcp({ ip, address }: Endpoint, signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const socket = connectTcp({ host: ip, port: address.port }, resolve);
    socket.on('error', reject);
    return untilAborted(promise, signal).finally(() => socket.destroy());
  }

  function askHttp(path: string, host: string, endpoint: Endpoint, signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const { ip, address, protocol } = endpoint;
    const socket =
      protocol === 'https'
        ? connectTls({
            host: ip,
            port: address.port,
            secureContext: options.secureContext(),
            ALPNProtocols: ['http/1.1'],
            servername: isIP(address.host) === 0 ? address.host : '',
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

/** Whoever aborts need not wait for a socket to notice. */
async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason as Error);
  if (signal.aborted) abort();
  signal.addEventListener('abort', abort);
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', abort);
    // What loses the race may still fail.
    promise.catch(() => {});
  }
}
