// What metrics call a host, a route and a method: names from the configuration, and never what a client chose.

import { faultCodes } from '../../proxy/faults.ts';
import type { RouteMatch } from '../../proxy/rules/routes.ts';
import type { Serving } from './serving.ts';

/** Of a request that was refused before a route was found. */
export const NO_ROUTE = 'none';
const LONGEST_LABEL = 200;

export const methods = [
  'GET',
  'POST',
  'HEAD',
  'PUT',
  'DELETE',
  'OPTIONS',
  'PATCH',
  'CONNECT',
  'other',
] as const;

export function routeLabel(match: Pick<RouteMatch, 'route'> | undefined): string {
  return match === undefined ? NO_ROUTE : match.route.slice(0, LONGEST_LABEL);
}

/** Every name that a certificate is served for: nobody can ask for another host. */
export function hostLabels({ certificates }: Pick<Serving, 'certificates'>): string[] {
  return [...new Set(certificates.flatMap(({ names }) => names))];
}

/** Of every route, as the route table names them. */
export function routeLabels({ routes: { list, rules } }: Pick<Serving, 'routes'>): string[] {
  const routes = list.flatMap(({ host, paths }) => paths.map(({ prefix }) => `${host}${prefix}`));
  // Rules have bytes where files have text.
  const sites = (rules?.sites ?? []).map(({ label }) => Buffer.from(label, 'utf8').toString('latin1'));
  return [...routes, ...sites].map((route) => routeLabel({ route }));
}

export interface Vocabulary {
  /** What is served from now on; what was served before is still known. */
  learn(serving: Serving): void;
  knows(name: string, value: string): boolean;
}

/** Workers may have been taken over: they count under the names that we gave them, and under no others. */
export function createVocabulary(localPaths: readonly string[]): Vocabulary {
  const hosts = new Set<string>();
  const routes = new Set<string>([NO_ROUTE, ...localPaths]);
  return {
    learn(serving) {
      for (const host of hostLabels(serving)) hosts.add(host);
      for (const route of routeLabels(serving)) routes.add(route);
    },
    knows(name, value) {
      switch (name) {
        case 'host':
          return hosts.has(value);
        case 'route':
          return routes.has(value);
        case 'method':
          return (methods as readonly string[]).includes(value);
        case 'code':
          return /^\d{1,3}$/.test(value);
        case 'fault':
          return (faultCodes as readonly string[]).includes(value);
        default:
          return /^[\x21-\x7e]{1,600}$/.test(value);
      }
    },
  };
}
