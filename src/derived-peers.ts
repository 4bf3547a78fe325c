// FLEET=derived: the certificate that another replica serves, read from its public evidence under the public name.

import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { request } from 'node:http';
import { connect, type TLSSocket } from 'node:tls';
import type { Resolver } from '../dns/resolver.ts';
import { certificateFileName } from '../evidence/bundle.ts';
import { EVIDENCE_PATH } from '../evidence/endpoint.ts';
import type { DerivedKeys } from './derived-keys.ts';
import { type Certificate, readCertificate } from './lib/certificate.ts';
import { type Clock, monotonicMs, systemClock } from './lib/clock.ts';
import { baseOf, type Domain, isWildcard } from './lib/domain.ts';
import type { Log } from './lib/log.ts';

export interface PeersOptions {
  readonly keys: DerivedKeys;
  readonly resolver: Pick<Resolver, 'resolve'>;
  /** Where visitors reach the domains. */
  readonly port: number;
  readonly timeoutMs?: number;
  readonly clock?: Clock;
  readonly log: Log;
}

export interface Peers {
  /**
   * What is served under these names by one of us, which may be ourselves. Undefined: nobody answers, or nobody of us; it is
   * no error. No more often than every `atMostEveryMs`, in between it is undefined as well.
   */
  served(names: readonly Domain[], atMostEveryMs?: number): Promise<Certificate | undefined>;
}

const LONGEST_CHAIN_BYTES = 256 * 1024;

/**
 * Who answers is known by his key: it can only be derived by this app, and the handshake proves that he has it. So what he
 * says needs no other proof, and the CA may be one that no public root knows.
 */
export function createPeers(options: PeersOptions): Peers {
  const { clock = systemClock, timeoutMs = 5_000, log } = options;
  const asked = new Map<string, number>();

  async function look(names: readonly Domain[]): Promise<Certificate | undefined> {
    const host = hostOf(names);
    const within = AbortSignal.timeout(timeoutMs);
    const [address] = await options.resolver.resolve(host, 'A');
    if (address === undefined) return undefined;
    const socket = connect({
      host: address,
      port: options.port,
      servername: host,
      minVersion: 'TLSv1.3',
      ALPNProtocols: ['http/1.1'],
      // See above: not the chain but the key says who it is.
      rejectUnauthorized: false,
    });
    try {
      await once(socket, 'secureConnect', { signal: within });
      const leaf = socket.getPeerX509Certificate();
      if (leaf === undefined || (await options.keys.keyOf(names, leaf)) === undefined) return undefined;
      const path = `${EVIDENCE_PATH}/${encodeURIComponent(certificateFileName(names[0]!))}`;
      const chain = await fetchText(socket, host, path, within);
      return chain === undefined ? undefined : await ours(names, chain, options.keys);
    } finally {
      socket.destroy();
    }
  }

  return {
    async served(names, atMostEveryMs = 0) {
      const subject = names.join();
      const now = monotonicMs(clock);
      if (now - (asked.get(subject) ?? Number.NEGATIVE_INFINITY) < atMostEveryMs) return undefined;
      asked.set(subject, now);
      try {
        return await look(names);
      } catch (err) {
        log.debug({ domain: names[0], err }, 'no other replica answers');
        return undefined;
      }
    },
  };
}

/** A name that a visitor would ask for. */
function hostOf(names: readonly Domain[]): string {
  const plain = names.find((name) => !isWildcard(name));
  return plain ?? `ingress.${baseOf(names[0]!)}`;
}

/** Undefined where the answer is not the file, as while the evidence is still being made. */
async function fetchText(
  socket: TLSSocket,
  host: string,
  path: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  const asked = request({
    createConnection: () => socket,
    path,
    signal,
    headers: { host, connection: 'close' },
  });
  asked.end();
  const [reply] = (await once(asked, 'response', { signal })) as [import('node:http').IncomingMessage];
  if (reply.statusCode !== 200) return undefined;
  let text = '';
  for await (const bytes of reply.setEncoding('latin1')) {
    text += bytes;
    if (text.length > LONGEST_CHAIN_BYTES) return undefined;
  }
  return text;
}

async function ours(
  names: readonly Domain[],
  chain: string,
  keys: DerivedKeys,
): Promise<Certificate | undefined> {
  const key = await keys.keyOf(names, new X509Certificate(chain));
  if (key === undefined) return undefined;
  const certificate = readCertificate(chain, key);
  const isForThese =
    certificate.names.length === names.length && names.every((name) => certificate.names.includes(name));
  return isForThese ? { ...certificate, names: [...names] } : undefined;
}
