// All that talks to the CA and writes to DNS; loaded once the listener serves, so that what is on disk waits for none of it.

import { type Acme, type AcmeOptions, createAcme } from '../acme/connect.ts';
import { createDnsPersist01Solver } from '../acme/dns-persist01.ts';
import { createDns01Solver } from '../acme/dns01.ts';
import { createHttp01Solver } from '../acme/http01.ts';
import type { Issuer, Solver } from '../acme/issuer.ts';
import { type CaConnection, createManager, type Manager, type ManagerOptions } from '../acme/manager.ts';
import type { Storage } from '../acme/storage.ts';
import type { Store } from '../acme/store.ts';
import { createTlsAlpn01Solver } from '../acme/tls-alpn01.ts';
import { servesOn } from '../acme/urgency.ts';
import { needsOperator } from '../dns/error.ts';
import type { DnsProvider } from '../dns/provider.ts';
import { createResolver, type Resolver, waitForRecords } from '../dns/resolver.ts';
import type { Agent } from '../evidence/agent.ts';
import type { StatedAccount } from '../evidence/statements.ts';
import { deriveAccountKey } from './account-key.ts';
import type { Config } from './config/config.ts';
import { createDerivedKeys } from './derived-keys.ts';
import { createPeers, type Peers } from './derived-peers.ts';
import { createIssuerInTurn } from './derived-turns.ts';
import type { ChallengeCertificate } from './lib/certificate.ts';
import { systemClock } from './lib/clock.ts';
import { type Domain, parseDomain } from './lib/domain.ts';
import type { Log } from './lib/log.ts';
import { createCaaPreflight } from './records/caa-preflight.ts';
import { createRecordsKeeper, type RecordsKeeper } from './records/keeper.ts';
import { type PersistentValidation, thumbprintOf } from './records/persistent-validation.ts';
import { type CaaSettings, caaRecords, challengeName } from './records/records.ts';
import { createRecordsSetup, type RecordsMode } from './records/setup.ts';
import { createWebhook } from './records/webhook.ts';
import { createWrittenPins } from './records/written-pins.ts';
import type { RoutingPlan } from './routes/plan.ts';
import { noTracer, type Tracer } from './tracing/own-spans.ts';
import type { Attributes } from './tracing/span.ts';

export interface IssuanceOptions {
  readonly config: Config;
  readonly store: Store;
  /** What the store stands on. */
  readonly storage: Storage;
  /** Why no account may be made where we have none. */
  readonly refuseToRegister: AcmeOptions['refuseToRegister'];
  readonly agent: Pick<Agent, 'info' | 'quote' | 'deriveKey'>;
  /** Resolves once every worker answers the challenge so. */
  setChallenge(domain: string, certificate: ChallengeCertificate | undefined): Promise<void>;
  setHttpChallenge(token: string, keyAuthorization: string | undefined): Promise<void>;
  /** Records each pass as a span. Default: none is. */
  readonly tracer?: Tracer | undefined;
  readonly log: Log;
}

export interface Issuance {
  /** Starts to keep the certificates and records of this plan, until aborted. Reads the disk first, rejects if it cannot. */
  keep(
    plan: RoutingPlan,
    hooks: Pick<ManagerOptions, 'deploy' | 'onAccount' | 'onOutcome'>,
    signal: AbortSignal,
  ): Promise<Pick<Manager, 'renewNow' | 'asked'>>;
  /** What a statement says of the account of this URL. Without `caa` if the CA does not tell how its records name it. */
  describeAccount(uri: string, domains: readonly string[]): Promise<StatedAccount>;
  close(): Promise<void>;
}

interface Parts extends IssuanceOptions {
  readonly resolver: Resolver;
  readonly provider: DnsProvider | undefined;
}

export function createIssuance(options: IssuanceOptions): Issuance {
  const { config, store, tracer = noTracer, log } = options;
  const { resolvers, dohResolvers, provider } = config.dns;
  const parts: Parts = {
    ...options,
    resolver: createResolver({
      ...(resolvers.length > 0 && { servers: resolvers }),
      ...(dohResolvers.length > 0 && { doh: dohResolvers }),
    }),
    provider: provider?.kind.create(provider.credentials),
  };
  const derived = createDerived(parts);
  const acme = createAcme({
    directoryUrl: config.acme.directoryUrl,
    caPem: config.acme.ca,
    email: config.acme.email,
    externalAccount: config.acme.eab,
    profile: config.acme.profile,
    refuseToRegister: options.refuseToRegister,
    ...(config.acme.accountKey === 'kms' && {
      accountKey: () => deriveAccountKey(options.agent, config.acme.directoryUrl),
    }),
    certificateKey: derived?.certificateKey,
    store,
    solver: createSolver(parts),
    log,
  });
  const records = createRecords(parts, acme);
  const caa = createCaa(parts, acme);
  const { renewIntervalMs, renewDaysBefore } = config.acme;
  return {
    async keep(plan, hooks, signal) {
      const manager = createManager({
        wanted: plan.certificates,
        store,
        connect: async (abort) => {
          const { account, issuer } = await acme.connect(abort);
          const ours = derived?.inTurn(issuer) ?? issuer;
          return withTracedOrders({ account, issuer: ours }, tracer);
        },
        ...(derived && { peers: derived.peers.served }),
        renewalInfo: (certificate, abort) => acme.renewalInfo(certificate, abort),
        recover: () => acme.recover(),
        prepare: (account, names, abort) =>
          tracer.inSpan('prepare domains', aboutDomains(names), async () => {
            try {
              await records.ensure(names, account.url, abort);
            } catch (err) {
              // The records can be mended at any time, a lapsed certificate cannot. Whether it is renewed the CA decides.
              if (abort.aborted || !(await haveCertificates(names, store))) throw err;
              log[needsOperator(err) ? 'warn' : 'error'](
                { err, domains: names },
                'DNS records are not in place, renewing all the same',
              );
            }
            await caa.check(names, account.url, abort);
          }),
        ...hooks,
        intervalMs: renewIntervalMs,
        renewal: { ...(renewDaysBefore !== undefined && { daysBefore: renewDaysBefore }) },
        log,
      });
      await manager.load();
      void manager.run(signal);
      const account = async () => (await store.readAccount())?.url;
      void records.keep(plan.domains, signal).then(() => caa.watch(plan.domains, account, signal));
      return manager;
    },
    describeAccount: (uri, domains) => describeAccount(uri, domains, parts, acme),
    close: () => acme.close(),
  };
}

function withTracedOrders(connection: CaConnection, { inSpan }: Tracer): CaConnection {
  const { issuer, ...rest } = connection;
  const obtain: Issuer['obtain'] = (names, ...others) =>
    inSpan('obtain certificate', aboutDomains(names), () => issuer.obtain(names, ...others));
  return { ...rest, issuer: { obtain } };
}

function aboutDomains(names: readonly Domain[]): Attributes {
  return [['dstack_ingress.domains', names.join(' ')]];
}

function createCaa({ config, resolver, store, log }: Parts, acme: Acme) {
  return createCaaPreflight({
    resolver,
    challenge: config.acme.challenge,
    pins: config.dns.setCaa,
    identities: async (signal) => {
      const { meta } = await acme.transport.directory(signal);
      // Where the CA does not tell its names, the one in the records that we write is taken.
      return meta.caaIdentities ?? (config.dns.setCaa ? ownIdentities(config) : []);
    },
    store,
    log,
  });
}

async function describeAccount(
  uri: string,
  domains: readonly string[],
  parts: Parts,
  acme: Acme,
): Promise<StatedAccount> {
  const account = await parts.store.readAccount();
  if (account?.url !== uri) throw new Error(`the key of the account ${uri} is not known yet`);
  const caa = await pinsOf(uri, domains, parts, acme).catch((err: unknown) => {
    parts.log.warn({ err }, 'a statement does not say which CAA records are ours');
    return {};
  });
  return { account: { uri, thumbprint: thumbprintOf(account) }, caa };
}

/** The records that let this account alone issue, whether or not it is we who write them. */
async function pinsOf(accountUri: string, domains: readonly string[], { config }: Parts, acme: Acme) {
  const { meta } = await acme.transport.directory(AbortSignal.timeout(DIRECTORY_MS));
  const caa: CaaSettings = {
    identities: meta.caaIdentities ?? ownIdentities(config),
    accountUri,
    methods: [config.acme.challenge],
  };
  const values = (domain: string) => caaRecords(parseDomain(domain), caa).map(({ value }) => value);
  return Object.fromEntries(domains.map((domain) => [domain, values(domain)]));
}

async function haveCertificates(
  names: readonly Domain[],
  store: Store,
  serves: typeof servesOn = (certificate, now) => certificate !== undefined && certificate.notAfter > now,
): Promise<boolean> {
  const now = systemClock.now();
  const valid = (await store.readCertificates()).filter((certificate) => serves(certificate, now));
  return names.every((name) => valid.some((certificate) => certificate.names.includes(name)));
}

interface Derived {
  readonly peers: Peers;
  certificateKey(names: readonly Domain[]): Promise<string>;
  inTurn(issuer: Issuer): Issuer;
}

/** What replicas without a store have instead; see config/fleet.ts. */
function createDerived({ config, agent, resolver, provider, store, log }: Parts): Derived | undefined {
  const { fleet, acme, dns } = config;
  if (fleet === undefined || provider === undefined) return undefined;
  const keys = createDerivedKeys(agent, acme.directoryUrl);
  const peers = createPeers({ keys, resolver, port: fleet.port, log });
  const recordName = (domain: Domain) => challengeName(domain, dns.delegationZone);
  return {
    peers,
    certificateKey: (names) => keys.keyAt(names, systemClock.now()),
    inTurn: (issuer) => createIssuerInTurn({ issuer, peers, provider, store, recordName, log }),
  };
}

/** A statement waits for the CA's directory no longer: evidence is made when the CA cannot be reached, too. */
const DIRECTORY_MS = 5_000;

/** A CA asks the zone's own servers. Where we cannot ask them, the slowest gets this long. */
const BLIND_WAIT_MS = 30_000;

function createSolver(parts: Parts): Solver {
  const { config, store, resolver, provider, setChallenge, setHttpChallenge, log } = parts;
  if (config.acme.challenge === 'tls-alpn-01') {
    return createTlsAlpn01Solver({ serve: setChallenge, store });
  }
  if (config.acme.challenge === 'http-01') return createHttp01Solver({ serve: setHttpChallenge, store });
  if (config.acme.challenge === 'dns-persist-01') return createDnsPersist01Solver();
  if (provider === undefined) throw new Error('dns-01 needs a DNS provider');
  const { propagationTimeoutMs: timeoutMs, propagationIntervalMs: intervalMs, delegationZone } = config.dns;
  return createDns01Solver({
    recordName: (domain) => challengeName(domain, delegationZone),
    provider,
    store,
    wait: (records, signal) =>
      waitForRecords(records, {
        resolver,
        timeoutMs,
        intervalMs,
        blindWaitMs: BLIND_WAIT_MS,
        clock: systemClock,
        log,
        signal,
      }),
    log,
  });
}

function createRecords(parts: Parts, acme: Acme): RecordsKeeper {
  const { config, store, agent, log } = parts;
  const { recordsMode: mode, delegationZone } = config.dns;
  const delegated = delegationZone !== undefined;
  const writes = delegated || mode === 'auto';
  return createRecordsKeeper({
    dns: config.dns,
    challenge: config.acme.challenge,
    identity: () => agent.info(),
    accountUri: async () => (await store.readAccount())?.url,
    caaIdentities: async (signal) => {
      const { meta } = await acme.transport.directory(signal);
      return meta.caaIdentities ?? ownIdentities(config);
    },
    ...(config.acme.challenge === 'dns-persist-01' && {
      persistence: (signal: AbortSignal) => persistentValidation(parts, acme, signal),
    }),
    serves: (domains) => haveCertificates(domains, store, servesOn),
    setup: createSetup(parts, delegated ? 'auto' : mode),
    ...(delegated && { aliases: createSetup(parts, mode) }),
    ...(writes && {
      pins: createWrittenPins(parts.storage, log),
    }),
    log,
  });
}

async function persistentValidation(
  { config, store }: Parts,
  acme: Acme,
  signal: AbortSignal,
): Promise<PersistentValidation> {
  const { meta } = await acme.transport.directory(signal);
  const account = await store.readAccount();
  if (account?.url === undefined) throw new Error('there is no ACME account yet');
  const issuer = meta.issuerDomainNames?.[0] ?? meta.caaIdentities?.[0] ?? ownIdentities(config)[0]!;
  const prefix = meta.accountHashPrefix;
  return {
    issuer,
    accountUri: account.url,
    ...(prefix !== undefined && { hash: { prefix, thumbprint: thumbprintOf(account) } }),
  };
}

/** For a CA that does not tell its names (RFC 8555 §9.7.6). */
function ownIdentities({ acme }: Config): string[] {
  return [new URL(acme.directoryUrl).hostname];
}

function createSetup({ config, agent, resolver, provider, log }: Parts, mode: RecordsMode) {
  const { propagationTimeoutMs: timeoutMs, propagationIntervalMs: intervalMs, webhook } = config.dns;
  return createRecordsSetup({
    mode,
    ...(provider !== undefined && { provider }),
    ...(mode === 'webhook' &&
      webhook !== undefined && {
        webhook: createWebhook({
          url: webhook.url,
          ...(webhook.token !== undefined && { token: webhook.token }),
          challenge: config.acme.challenge,
          identity: async () => {
            const { appId, instanceId } = await agent.info();
            return { appId: config.dns.appId ?? appId, instanceId };
          },
          attest: async (payloadSha256) => ({ ...(await agent.quote(payloadSha256)) }),
          log,
        }),
      }),
    resolver,
    timeoutMs,
    intervalMs,
    log,
  });
}
