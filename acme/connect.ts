// Builds from options what the manager needs of one ACME directory: the connection, renewal information, recovery.

import type { Certificate } from '../src/lib/certificate.ts';
import { type Clock, systemClock } from '../src/lib/clock.ts';
import { type Log, silentLog } from '../src/lib/log.ts';
import { openAccount } from './account.ts';
import type { Solver } from './issuer.ts';
import type { CaConnection } from './manager.ts';
import { createIssuer, type IssuerOptions } from './obtain.ts';
import { fetchRenewalInfo, type SuggestedWindow } from './renewal.ts';
import type { Store } from './store.ts';
import { createTransport, type ExternalAccount, type Transport } from './transport.ts';

export interface AcmeOptions {
  directoryUrl: string;
  /** PEM, trusted beside the public roots for the ACME server alone. */
  caPem?: string | undefined;
  email?: string | undefined;
  externalAccount?: ExternalAccount | undefined;
  profile?: string | undefined;
  /** PEM, PKCS#8: a derived account key instead of one on disk. A rejection stops what needs the account. */
  accountKey?: (() => Promise<string>) | undefined;
  /** See IssuerOptions. */
  certificateKey?: IssuerOptions['certificateKey'];
  /** The result of adoptEarlierState, or what finds it out: its rejection stops what needs the account. */
  refuseToRegister?: string | (() => Promise<string | undefined>) | undefined;
  store: Store;
  solver: Solver;
  /** For one certificate, propagation included. */
  deadlineMs?: number | undefined;
  userAgent?: string | undefined;
  clock?: Clock | undefined;
  log?: Log | undefined;
}

export interface Acme {
  readonly transport: Transport;
  connect(signal: AbortSignal): Promise<CaConnection>;
  renewalInfo(certificate: Certificate, signal: AbortSignal): Promise<SuggestedWindow | undefined>;
  recover(): Promise<void>;
  /** Ends idle connections to the CA. */
  close(): Promise<void>;
}

/** Contacts nobody yet. Members with names of ManagerOptions are meant for it. */
export function createAcme(options: AcmeOptions): Acme {
  const { directoryUrl, caPem, store, solver, clock = systemClock, log = silentLog } = options;
  const { userAgent, deadlineMs, certificateKey } = options;
  const transport = createTransport({
    directoryUrl,
    caPem,
    clock,
    log,
    ...(userAgent === undefined ? {} : { userAgent }),
  });
  return {
    transport,
    async connect(signal) {
      const { email, externalAccount, profile, refuseToRegister: refusal } = options;
      const refuseToRegister = typeof refusal === 'function' ? await refusal() : refusal;
      const key = await options.accountKey?.();
      const account = await openAccount(
        { transport, store, email, externalAccount, key, refuseToRegister, log },
        signal,
      );
      const timing = deadlineMs === undefined ? {} : { deadlineMs };
      return {
        account,
        issuer: createIssuer({
          transport,
          account,
          solver,
          store,
          profile,
          certificateKey,
          clock,
          log,
          ...timing,
        }),
      };
    },
    renewalInfo: (certificate, signal) => fetchRenewalInfo(transport, certificate, signal),
    recover: async () => solver.recover?.(),
    close: () => transport.close(),
  };
}
