// Whether the ingress is ready for visitors, condition by condition; upstreams are not among them: they are ready by themselves.

import { covers, type Domain } from '../lib/domain.ts';
import type { StoreState } from '../store-figures.ts';
import type { Sources } from './sources.ts';

export interface Condition {
  readonly name: 'certificates' | 'workers' | 'serving' | 'store';
  readonly holds: boolean;
  readonly why: string;
  /** False: it is told, and the ingress is ready without it. */
  readonly needed: boolean;
}

export interface Readiness {
  readonly ready: boolean;
  readonly conditions: readonly Condition[];
}

export function readinessOf(sources: Sources, now = new Date()): Readiness {
  const conditions = [
    certificates(sources, now),
    workers(sources),
    serving(sources),
    ...(sources.store === undefined ? [] : [store(sources.store.state())]),
  ];
  return { ready: conditions.every(({ holds, needed }) => holds || !needed), conditions };
}

function certificates(sources: Sources, now: Date): Condition {
  const domains = sources.domains();
  const missing = domains.filter((domain) => expiryOf(sources, domain) <= now.getTime());
  const have = domains.length - missing.length;
  return {
    name: 'certificates',
    holds: missing.length === 0,
    why: `${have} of ${domains.length} domains have one in force`,
    needed: true,
  };
}

/** When the certificate that is served for it expires; 0: none is. */
export function expiryOf({ certificates: all }: Pick<Sources, 'certificates'>, domain: Domain): number {
  const those = all().filter(({ names }) => names.some((name) => name === domain || covers(name, domain)));
  return Math.max(0, ...those.map(({ notAfter }) => notAfter.getTime()));
}

function workers(sources: Sources): Condition {
  const { living, count } = sources.workers.state();
  const ready = living.filter((worker) => worker.ready).length;
  const waitsFor = sources.waitsFor?.();
  const whyNot = waitsFor === undefined ? '' : `, no connections are taken yet: ${waitsFor}`;
  return { name: 'workers', holds: ready > 0, why: `${ready} of ${count} serve${whyNot}`, needed: true };
}

function serving(sources: Sources): Condition {
  const stopping = sources.stopping();
  const why = stopping ? 'it is stopping' : 'it is not stopping';
  return { name: 'serving', holds: !stopping, why, needed: true };
}

/** What is served is served without it; what is to be renewed waits for it. */
function store({ engine, answers, since, why }: StoreState): Condition {
  if (answers === false)
    return {
      name: 'store',
      holds: false,
      why: `does not answer since ${since}: ${why}; what is served goes on`,
      needed: false,
    };
  return { name: 'store', holds: true, why: answers ? `${engine} answers` : 'not asked yet', needed: false };
}
