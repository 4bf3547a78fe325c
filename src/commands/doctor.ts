// The doctor command: looks at everything that the ingress needs, changes nothing unless told to, and says what to do.

import { createCaHttp, orProblem } from '../../acme/ca-http.ts';
import { type Directory, readDirectory } from '../../acme/directory.ts';
import type { Store } from '../../acme/store.ts';
import {
  createResolver,
  DEFAULT_DOH_RESOLVERS,
  type Resolver,
  type ResolverOptions,
} from '../../dns/resolver.ts';
import { type AgentInfo, createAgent } from '../../evidence/agent.ts';
import { type Config, ConfigError, readConfig } from '../config/config.ts';
import { describePlace } from '../config/mistake.ts';
import type { ExitCodes } from '../exit-codes.ts';
import { type Clock, systemClock } from '../lib/clock.ts';
import { silentLog } from '../lib/log.ts';
import { openStore } from '../open-store.ts';
import { agentFindings } from './doctor-agent.ts';
import { budgetFindings, caFindings, certificateFindings } from './doctor-ca.ts';
import { clockFindings, clockOfDoh, type OtherClock } from './doctor-clock.ts';
import { caaFindings, gatewayFindings, isPublic, resolverFindings } from './doctor-dns.ts';
import { type Disk, diskFindings, folderFindings, thisDisk } from './doctor-folders.ts';
import {
  descriptorFindings,
  type Machine,
  memoryFindings,
  nodeFindings,
  thisMachine,
} from './doctor-machine.ts';
import { providerFindings } from './doctor-provider.ts';
import { describeReport, type Finding, findingsOf, guarded, reportOf } from './doctor-report.ts';
import { upstreamFindings } from './doctor-upstreams.ts';

interface Streams {
  readonly out: NodeJS.WritableStream;
}

/** `write`: the provider's permission to write is tried by writing. */
export interface DoctorQuestion {
  readonly json: boolean;
  readonly write: boolean;
}

/** Where the doctor looks; tests have others. */
export interface Surroundings {
  readonly machine: Machine;
  readonly disk: Disk;
  readonly clock: Clock;
  /** For each question to somebody else. */
  readonly timeoutMs: number;
  /** How the zones' own servers are asked, if not at port 53. */
  readonly authoritative?: ResolverOptions['authoritative'];
}

const here: Surroundings = { machine: thisMachine, disk: thisDisk, clock: systemClock, timeoutMs: 10_000 };

/** Resolves with the exit code: `failed` if something is wrong. */
export async function doctor(
  asked: DoctorQuestion,
  env: NodeJS.ProcessEnv,
  { out }: Streams,
  exits: ExitCodes,
): Promise<number> {
  const findings = await examineEnvironment(env, asked.write);
  const report = reportOf(findings, new Date());
  out.write(asked.json ? `${JSON.stringify(report, null, 2)}\n` : describeReport(report));
  return report.totals.fail > 0 ? exits.failed : exits.ok;
}

/** A configuration with mistakes says nothing about the rest: only the machine is looked at then. */
async function examineEnvironment(env: NodeJS.ProcessEnv, write: boolean): Promise<Finding[]> {
  try {
    return await examine(readConfig(env), write);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return [...mistakeFindings(error), ...nodeFindings(here.machine)];
  }
}

const { ok, warn, fail } = findingsOf('configuration');

export function mistakeFindings({
  mistakes,
  warnings,
}: Pick<ConfigError, 'mistakes' | 'warnings'>): Finding[] {
  return [
    ...mistakes.map(({ place, subject, cure }) =>
      fail(describePlace(place), subject, 'with a wrong configuration nothing is started', cure),
    ),
    ...warningFindings(warnings),
  ];
}

function warningFindings(warnings: Config['warnings']): Finding[] {
  return warnings.map(({ variable, warning }) =>
    warn(
      variable,
      warning,
      'the ingress does not do what this setting seems to say',
      'correct it, or take it away; docs/settings.md has every setting',
    ),
  );
}

/** All checks at once, in the order in which they are told. None rejects. */
export async function examine(
  config: Config,
  write: boolean,
  surroundings: Surroundings = here,
): Promise<Finding[]> {
  const { machine, disk, clock } = surroundings;
  const asking = createQuestions(config, surroundings);
  const { resolver, info, store, directory } = asking;
  const asksDns = config.dns.gatewayDomain !== undefined || config.domains.some(isPublic);
  const known = config.dns.gatewayDomain ?? config.domains.find(isPublic) ?? '';
  const checks: (Finding[] | Promise<Finding[]>)[] = [
    config.warnings.length > 0 ? warningFindings(config.warnings) : [ok('settings', 'can be read')],
    nodeFindings(machine),
    descriptorFindings(config, machine),
    memoryFindings(config, machine),
    folderFindings(config, disk),
    diskFindings(config, disk),
    agentFindings(config, info),
    clocks(config, asking, surroundings).then(clockFindings),
    caFindings(config, directory),
    certificateFindings(config, await store, clock.now()),
    budgetFindings(config, await store, clock.now()),
    asksDns ? resolverFindings(resolver, known) : [],
    gatewayFindings(config, resolver, info),
    caaOf(config, asking),
    providerFindings(config, write),
    upstreamFindings(config),
  ];
  try {
    return (await Promise.all(checks.map(guarded))).flat();
  } finally {
    await asking.close();
  }
}

/** Those who are asked by several checks, each once. */
interface Questions {
  readonly resolver: Resolver;
  readonly store: Promise<Store>;
  info(): Promise<AgentInfo>;
  directory(): Promise<Directory>;
  /** How far the CA's clock is ahead of ours, once it has answered. */
  caAheadMs(): number | undefined;
  close(): Promise<void>;
}

function createQuestions(config: Config, { timeoutMs, authoritative, clock }: Surroundings): Questions {
  const { acme, dns, evidence } = config;
  const { agentEndpoint: endpoint } = evidence;
  const agent = createAgent({ timeoutMs, ...(endpoint !== undefined && { endpoint }) });
  const { directoryUrl } = acme;
  const ca = createCaHttp({ directoryUrl, caPem: acme.ca, timeoutMs, clock });
  const opened = openStore(config, { agent, log: silentLog, readOnly: { damaged: () => {} } });
  const store = opened.then((one) => one.store);
  // Whoever looks into it is told.
  store.catch(() => {});
  let directory: Promise<Directory> | undefined;
  const ask = async () => {
    // Asked once: whoever looks for troubles has no use for patience.
    const answer = await ca.send('GET', directoryUrl, undefined, AbortSignal.timeout(2 * timeoutMs));
    return readDirectory(orProblem('GET', directoryUrl, answer).data, directoryUrl);
  };
  return {
    resolver: createResolver({
      ...(dns.resolvers.length > 0 && { servers: dns.resolvers }),
      ...(dns.dohResolvers.length > 0 && { doh: dns.dohResolvers }),
      ...(authoritative !== undefined && { authoritative }),
      timeoutMs: timeoutMs / 2,
    }),
    store,
    info: () => agent.info(),
    directory() {
      directory ??= ask();
      return directory;
    },
    caAheadMs: ca.clockSkewMs,
    async close() {
      await ca.close();
      await opened.then((one) => one.close()).catch(() => {});
    },
  };
}

async function clocks(
  config: Config,
  { directory, caAheadMs }: Questions,
  { clock, timeoutMs }: Surroundings,
): Promise<OtherClock[]> {
  const { resolvers, dohResolvers } = config.dns;
  const urls = dohResolvers.length > 0 ? dohResolvers : resolvers.length > 0 ? [] : DEFAULT_DOH_RESOLVERS;
  const [, ...told] = await Promise.all([
    directory().catch(() => undefined),
    ...urls.map((url) => clockOfDoh(url, clock, timeoutMs)),
  ]);
  const aheadMs = caAheadMs();
  const ofCa = aheadMs === undefined ? [] : [{ of: new URL(config.acme.directoryUrl).host, aheadMs }];
  return [...ofCa, ...told.filter((one) => one !== undefined)];
}

async function caaOf(config: Config, { resolver, store, directory }: Questions): Promise<Finding[]> {
  const identities = await directory().then(
    ({ meta }) => meta.caaIdentities ?? [],
    () => [],
  );
  const account = await (await store).readAccount().catch(() => undefined);
  return caaFindings(config, resolver, { identities, account: account?.url });
}
