// The one owner of what is served: routes, certificates and their evidence. Requests queue, and the newest wins.

import { servable } from '../acme/selection.ts';
import type { Publisher } from './evidence-publisher.ts';
import { type Certificate, CertificateError, loadFault } from './lib/certificate.ts';
import type { Log } from './lib/log.ts';
import { newestWins } from './lib/newest-wins.ts';
import type { RoutingPlan } from './routes/plan.ts';

export interface DeploymentParts {
  /** Each resolves once every worker serves by it. */
  setRoutes(routes: RoutingPlan['routes'], rules: RoutingPlan['rules']): Promise<void>;
  setCertificates(certificates: readonly Certificate[]): Promise<void>;
  /** Swaps certificates together with the evidence for them. */
  readonly publisher: Pick<Publisher, 'deploy'>;
  readonly log: Log;
}

/** Each call resolves once what it asks for, or what was asked later, is served. */
export interface Deployment {
  /** The one that was asked for last. */
  plan(): RoutingPlan;
  /** What is served now. */
  certificates(): readonly Certificate[];
  /** `stored` is what lies on disk for it: it serves the names that nothing serves yet. */
  follow(plan: RoutingPlan, stored: readonly Certificate[]): Promise<void>;
  /**
   * `fresh` takes the place of the certificate for the same names. The others of `certificates` serve only names that
   * nothing serves: the caller may have read them before a newer request. Rejects if `fresh` is not served; what was served
   * goes on.
   */
  offer(certificates: readonly Certificate[], fresh: Certificate): Promise<void>;
  /** Resolves when every certificate of the plan is served for the first time. */
  readonly covered: Promise<void>;
}

export function createDeployment(first: RoutingPlan, parts: DeploymentParts): Deployment {
  const { publisher, log } = parts;
  const covered = Promise.withResolvers<void>();
  let plan = first;
  /** What is served, and what was offered as fresh since. */
  let known: readonly Certificate[] = [];
  let served: readonly Certificate[] = [];
  /** What serves the names for which nothing is known. */
  let spare: readonly Certificate[] = [];

  const applyRoutes = newestWins(() => parts.setRoutes(plan.routes, plan.rules));

  const applyCertificates = newestWins(async () => {
    const taken = known;
    const wanted = plan.certificates;
    const target = servable([...taken, ...without(spare, taken)].filter(isSound), wanted);
    try {
      if (!sameCertificates(target, served))
        await publisher.deploy(target, () => parts.setCertificates(target));
      served = target;
      if (target.length === wanted.length) covered.resolve();
    } finally {
      // A certificate that the workers refuse must not be offered again with the next.
      const arrived = known.filter((each) => !taken.includes(each));
      known = [...without(served, arrived), ...arrived];
    }
  });

  const judged = new WeakMap<Certificate, boolean>();
  /** A certificate that does not load is left out; the others are served. */
  function isSound(certificate: Certificate): boolean {
    const before = judged.get(certificate);
    if (before !== undefined) return before;
    const why = loadFault(certificate);
    const { names, serial } = certificate;
    if (why !== undefined)
      log.error({ domain: names[0], serial, why }, 'certificate left out, it cannot be served');
    judged.set(certificate, why === undefined);
    return why === undefined;
  }

  return {
    plan: () => plan,
    certificates: () => served,
    covered: covered.promise,
    async follow(next, stored) {
      plan = next;
      spare = servable(stored, next.certificates);
      // A name that is no longer routed is no longer served either.
      await Promise.all([applyRoutes(), applyCertificates()]);
    },
    async offer(certificates, fresh) {
      spare = [...spare, ...without(certificates, [...spare, fresh])];
      const sound = isSound(fresh);
      if (sound) known = [...without(known, [fresh]), fresh];
      await applyCertificates();
      if (!sound) throw new CertificateError('does-not-load', `certificate ${fresh.serial} cannot be served`);
    },
  };
}

/** Those that `others` do not replace. */
function without(all: readonly Certificate[], others: readonly Certificate[]): Certificate[] {
  return all.filter((each) => !others.some((other) => sameSubject(each, other)));
}

/** Whether one replaces the other: it is stored under the same name and is for the same names. */
function sameSubject(a: Certificate, b: Certificate): boolean {
  return a.names[0] === b.names[0] && [...a.names].sort().join() === [...b.names].sort().join();
}

function sameCertificates(a: readonly Certificate[], b: readonly Certificate[]): boolean {
  return a.length === b.length && a.every(({ sha256 }, i) => sha256 === b[i]!.sha256);
}
