// Tries whether an upstream can be reached: looks its name up, connects, and shakes hands where there is TLS.

import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls, type SecureContext } from 'node:tls';
import { Fault } from '../faults.ts';
import { type Address, speaksHttp2, speaksTls, type UpstreamSettings } from '../rules/routes.ts';
import { destroyOnError } from '../socket/errors.ts';
import { asFault } from './faults.ts';
import type { Names } from './names.ts';
import { trustFor } from './trust.ts';

export interface ProbeOptions {
  readonly names: Names;
  readonly secureContext: () => SecureContext;
  readonly timeoutMs: number;
}

/** What is spoken to it, and how TLS is. */
export type ProbedUpstream = Pick<UpstreamSettings, 'protocol' | 'tls'>;

/** Tries each address of the name in turn. Undefined: it can be reached; otherwise why the last one cannot. */
export async function probeUpstream(
  upstream: ProbedUpstream,
  address: Address,
  options: ProbeOptions,
): Promise<Fault | undefined> {
  let ips: readonly string[] = [address.host];
  if (isIP(address.host) === 0) {
    try {
      ips = (await options.names.resolve(address.host)).addresses;
    } catch (cause) {
      return new Fault('upstream-unresolved', address.host, { cause });
    }
  }
  let fault: Fault | undefined;
  for (const ip of ips) {
    fault = await reach(upstream, address, ip, options);
    if (fault === undefined) return undefined;
  }
  return fault;
}

function reach(
  { protocol, tls }: ProbedUpstream,
  address: Address,
  ip: string,
  { secureContext, timeoutMs }: ProbeOptions,
): Promise<Fault | undefined> {
  return new Promise((resolve) => {
    const secure = speaksTls(protocol);
    let failure: Error | undefined;
    let reached = false;
    const socket: Socket = secure
      ? connectTls({
          host: ip,
          port: address.port,
          ...trustFor(address.host, tls, secureContext),
          ALPNProtocols: [speaksHttp2(protocol) ? 'h2' : 'http/1.1'],
        })
      : connectTcp({ host: ip, port: address.port });
    const timer = setTimeout(
      () => socket.destroy(new Fault('connect-timeout', `${address.host}:${address.port}`)),
      timeoutMs,
    );
    destroyOnError(socket, (error) => {
      failure ??= error;
    });
    socket.once(secure ? 'secureConnect' : 'connect', () => {
      reached = true;
      socket.destroy();
    });
    socket.once('close', () => {
      clearTimeout(timer);
      const fault = reached ? undefined : asFault(failure, address, protocol);
      // There are too few descriptors, which is not the upstream's fault.
      resolve(fault?.side === 'ingress' ? undefined : fault);
    });
  });
}
