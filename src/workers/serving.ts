// What workers are to serve: of each kind the newest snapshot, whole, under a generation that only rises.

import type { Bundle } from '../../evidence/bundle.ts';
import type { ServedCertificate } from '../../proxy/listener/listener.ts';
import type { RuleSet } from '../../proxy/rules/model.ts';
import type { Route } from '../../proxy/rules/routes.ts';
import type { ChallengeCertificate } from '../lib/certificate.ts';

/** All that a worker serves, by kind. Each kind changes as a whole. */
export interface Serving {
  readonly certificates: readonly ServedCertificate[];
  readonly routes: ServedRoutes;
  /** By domain. */
  readonly challenges: ReadonlyMap<string, ChallengeCertificate>;
  /** Key authorizations of http-01 challenges, by token. */
  readonly httpChallenges: ReadonlyMap<string, string>;
  readonly evidence: ServedEvidence;
  /** 48 random bytes, the same in every worker, so that a session resumes in any of them. */
  readonly ticketKeys: Uint8Array;
}

export interface ServedEvidence {
  /** Undefined: there is none yet. */
  readonly current: Bundle | undefined;
  /** What follows it in a moment: shown to those who were served a certificate that only this one is about. */
  readonly next?: Bundle | undefined;
}

/** Routes and rules change together: no host is without either in between. */
export interface ServedRoutes {
  readonly list: readonly Route[];
  /** For the hosts that no route serves. */
  readonly rules?: RuleSet | undefined;
  /** What workers hide by whom limits are counted for, the same in all of them. */
  readonly limitSecret?: Uint8Array;
}

export type Kind = keyof Serving;

export const kinds = [
  'certificates',
  'routes',
  'challenges',
  'httpChallenges',
  'evidence',
  'ticketKeys',
] as const satisfies readonly Kind[];

/** How old what is served of each kind is: a larger number is newer. 0: nothing yet. */
export type Generations = Readonly<Record<Kind, number>>;

export type Snapshot = {
  [K in Kind]: { readonly kind: K; readonly generation: number; readonly value: Serving[K] };
}[Kind];

export interface Snapshots {
  readonly serving: Serving;
  readonly generations: Generations;
  /** Makes `value` the newest of its kind. */
  put<K extends Kind>(kind: K, value: Serving[K]): void;
  newest(kind: Kind): Snapshot;
}

export function createSnapshots(first: Serving): Snapshots {
  let serving = first;
  let generations: Generations = nothingServed;
  return {
    get serving() {
      return serving;
    },
    get generations() {
      return generations;
    },
    put(kind, value) {
      serving = { ...serving, [kind]: value };
      generations = { ...generations, [kind]: generations[kind] + 1 };
    },
    newest: (kind) => ({ kind, generation: generations[kind], value: serving[kind] }) as Snapshot,
  };
}

export const nothingServed: Generations = {
  certificates: 0,
  routes: 0,
  challenges: 0,
  httpChallenges: 0,
  evidence: 0,
  ticketKeys: 0,
};

/** An older generation never takes the place of a newer one. */
export function withNewer(known: Generations, kind: Kind, generation: number): Generations {
  return generation > known[kind] ? { ...known, [kind]: generation } : known;
}
