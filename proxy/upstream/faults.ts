// Faults of upstreams: why a connection could not be made, and how often faults are logged.

import type { Log } from '../../src/lib/log.ts';
import { Fault } from '../faults.ts';
import type { Address, UpstreamProtocol, UpstreamSettings } from '../rules/routes.ts';
import type { Balance } from './balance.ts';
import { isPlainBehindTls, plainBehindTls } from './foreign-bytes.ts';

/** The address goes to the log only. */
export function asFault(error: Error | undefined, address: Address, protocol: UpstreamProtocol): Fault {
  if (error instanceof Fault) return error;
  const code = (error as NodeJS.ErrnoException | undefined)?.code ?? '';
  const at = `${address.host}:${address.port}`;
  const options = error === undefined ? undefined : { cause: error };
  if (/^(ENOTFOUND|EAI_)/.test(code)) return new Fault('upstream-unresolved', at, options);
  if (/CERT|UNABLE_TO_|SELF_SIGNED/.test(code)) return new Fault('upstream-untrusted', at, options);
  if (code === 'EMFILE' || code === 'ENFILE' || code === 'EADDRNOTAVAIL')
    return new Fault('overloaded', at, options);
  if (code === 'ETIMEDOUT') return new Fault('connect-timeout', at, options);
  const advice = isPlainBehindTls(code) ? `: ${plainBehindTls(protocol)}` : '';
  return new Fault('upstream-refused', `${at}${advice}`, options);
}

/**
 * A request or a tunnel has failed. If the upstream is the cause, it is counted there: the log says when an upstream begins
 * to fail and when that ends, and single requests only at `debug`. Our own failures are logged each time.
 */
export function noteUpstreamFault(
  {
    log,
    upstreams,
  }: { readonly log: Log; readonly upstreams: { readonly balance: Pick<Balance, 'failed'> } },
  settings: UpstreamSettings | undefined,
  fault: Fault,
  about: object,
): void {
  if (fault.code === 'failed' || settings === undefined) {
    log.error({ ...about, err: fault }, 'exchange failed');
    return;
  }
  upstreams.balance.failed(settings, fault);
  log.debug({ ...about, err: fault }, 'upstream failed');
}
