// The status command: how each domain stands, from the state folder and, unless told otherwise, a look at the DNS.

import { entryFor } from '../../acme/ledger.ts';
import { planFor } from '../../acme/plan.ts';
import { pick } from '../../acme/selection.ts';
import type { Store } from '../../acme/store.ts';
import type { StoredVerdict } from '../../acme/stored.ts';
import { createAgent } from '../../evidence/agent.ts';
import { lookAtUpstreams, upstreamAddresses } from '../../proxy/upstream/watch.ts';
import { type Config, ConfigError, readConfig } from '../config/config.ts';
import type { ExitCodes } from '../exit-codes.ts';
import type { Certificate } from '../lib/certificate.ts';
import type { Domain } from '../lib/domain.ts';
import { silentLog } from '../lib/log.ts';
import { openStore } from '../open-store.ts';
import { createDnsLook, type DnsLook } from './status-dns.ts';
import type { CaaStatus, DomainStatus, RecordsStatus, Status, UpstreamStatus } from './status-report.ts';
import { describeStatus } from './status-text.ts';

interface Streams {
  readonly out: NodeJS.WritableStream;
  readonly err: NodeJS.WritableStream;
}

/** `json`: for programs. `offline`: the DNS is not asked. */
export interface StatusQuestion {
  readonly json: boolean;
  readonly offline: boolean;
}

/** Resolves with the exit code: `failed` if a domain has no certificate in force. Changes nothing anywhere. */
export async function status(
  asked: StatusQuestion,
  env: NodeJS.ProcessEnv,
  { out, err }: Streams,
  exits: ExitCodes,
): Promise<number> {
  let config: Config;
  try {
    config = readConfig(env);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    err.write(`status: ${error.message}\n`);
    return exits.configuration;
  }
  const found = await readStatus(config, asked.offline ? undefined : createDnsLook(config));
  out.write(asked.json ? `${JSON.stringify(found, null, 2)}\n` : describeStatus(found));
  return found.domains.every(({ valid }) => valid) ? exits.ok : exits.failed;
}

/** Without `look` nothing but the disk is asked. */
export async function readStatus(
  config: Config,
  look: DnsLook | undefined,
  now = new Date(),
): Promise<Status> {
  const { acme, certificates } = config;
  const damaged = new Map<string, string>();
  const { agentEndpoint } = config.evidence;
  const { store, close } = await openStore(config, {
    agent: createAgent({ ...(agentEndpoint !== undefined && { endpoint: agentEndpoint }) }),
    log: silentLog,
    readOnly: { damaged: (path, why) => void damaged.set(path, why) },
  });
  const problems: string[] = [];
  const account = await store.readAccount().catch((error: Error) => void problems.push(error.message));
  const stored = await store.readCertificates().catch((error: Error) => {
    problems.push(error.message);
    return [];
  });
  const shared = { config, store, stored, now, look, account: account?.url };
  const domains = await Promise.all(certificates.map((names) => statusOf(names, shared)));
  await close();
  return {
    directory: acme.directoryUrl,
    account: account?.url,
    at: now.toISOString(),
    problems: [...problems, ...[...damaged].map(([path, why]) => `${path} is damaged: ${why}`)],
    domains: domains.flat(),
    upstreams: await upstreamsOf(config, look !== undefined),
  };
}

/** From here, as the workers reach them. */
async function upstreamsOf({ routes, upstreamCa }: Config, asks: boolean): Promise<UpstreamStatus[]> {
  const found = asks ? await lookAtUpstreams(routes, upstreamCa) : undefined;
  return upstreamAddresses(routes).map(({ name: upstream }) => {
    if (found === undefined) return { upstream, state: 'unknown', why: 'it was not asked' };
    const why = found.get(upstream);
    return why === undefined ? { upstream, state: 'reachable' } : { upstream, state: 'unreachable', why };
  });
}

interface Shared {
  readonly config: Config;
  readonly store: Store;
  readonly stored: readonly Certificate[];
  readonly now: Date;
  readonly look: DnsLook | undefined;
  readonly account: string | undefined;
}

async function statusOf(names: readonly Domain[], shared: Shared): Promise<DomainStatus[]> {
  const { store, now, config } = shared;
  const certificate = pick(shared.stored, names);
  const known = (await store.readWindows())[names[0]!];
  const window = known?.certificate === certificate?.sha256 ? known : undefined;
  const held = entryFor(await store.readLedger(), names);
  const { renewDaysBefore: daysBefore } = config.acme;
  const next = planFor({ names, certificate, window, held }, now, {
    ...(daysBefore !== undefined && { daysBefore }),
  });
  const records = await recordsOf(names, shared);
  // Once there is another in its place, what was set aside is history.
  const aside = certificate === undefined ? await store.damagedCertificates(names[0]!) : [];
  const order = await store.readOrder(names[0]!);
  const common = {
    certificate: certificate && factsOf(certificate),
    next: { at: next.at.toISOString(), reason: next.reason },
    window: window && { start: window.start, end: window.end },
    orderSince: order?.createdAt,
    failure:
      held?.failedAt === undefined
        ? undefined
        : { at: held.failedAt, reason: held.reason, failures: held.failures },
    damaged: aside.map(({ path, why }) => `${path}: ${why}`),
  };
  return Promise.all(
    names.map(async (domain) => ({
      domain,
      valid: certificate !== undefined && isInForce(certificate, domain, now),
      ...common,
      caa: await caaOf(domain, shared),
      records,
    })),
  );
}

function factsOf({ names, serial, issuer, notBefore, notAfter, sha256 }: Certificate) {
  return {
    names,
    serial,
    issuer,
    notBefore: notBefore.toISOString(),
    notAfter: notAfter.toISOString(),
    sha256,
  };
}

function isInForce({ names, notBefore, notAfter }: Certificate, domain: Domain, now: Date): boolean {
  return names.includes(domain) && notBefore <= now && now < notAfter;
}

async function caaOf(domain: Domain, { store, look, account, now }: Shared): Promise<CaaStatus> {
  const stored = (await store.readVerdicts())[domain];
  if (stored === undefined) return { state: 'unknown', why: 'not looked at before an order yet' };
  if (look === undefined || account === undefined) return asStored(stored);
  try {
    const { state, verdict, cause = '', cure } = await look.caa(domain, stored.identities, account);
    const { decidedBy, findings } = verdict;
    if (state === 'hidden') return { state: 'unknown', why: cause, cure };
    return { state, decidedBy, findings, cure, at: now.toISOString() };
  } catch (error) {
    return { state: 'unknown', why: (error as Error).message };
  }
}

/** As it was judged when it was looked at last. */
function asStored(stored: StoredVerdict): CaaStatus {
  const { allowed, pinned, decidedBy, findings, unsure, cure, checkedAt: at } = stored;
  if (unsure !== undefined) return { state: 'unknown', why: unsure, cure };
  return { state: allowed ? (pinned ? 'pinned' : 'open') : 'forbids', decidedBy, findings, cure, at };
}

async function recordsOf(names: readonly Domain[], { store, look, account }: Shared): Promise<RecordsStatus> {
  if (look === undefined) return { state: 'unknown', why: 'the DNS was not asked' };
  if (account === undefined) return { state: 'unknown', why: 'there is no account yet' };
  try {
    const missing = await look.missing(names, account, (await store.readVerdicts())[names[0]!]?.identities);
    return missing === undefined ? { state: 'in place' } : { state: 'missing', what: missing };
  } catch (error) {
    return { state: 'unknown', why: (error as Error).message };
  }
}
