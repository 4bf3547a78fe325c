// An order in parts: the sites of many come some at a time, so that a worker which serves can do so in between.

import type { Site } from '../../proxy/rules/model.ts';
import type { ToWorker } from './messages.ts';

/** Sites that the order after it is about. */
export interface SitesPart {
  readonly sites: readonly Site[];
}

/** About a millisecond of a worker's time. */
const SITES_AT_ONCE = 25;

/** In this order; the last is the order itself, without the sites that came before it. */
export function* partsOf(order: ToWorker): Generator<SitesPart | ToWorker> {
  if (order.type !== 'serve' || order.snapshot.kind !== 'routes') return yield order;
  const { snapshot } = order;
  const { rules } = snapshot.value;
  if (rules === undefined) return yield order;
  const { sites } = rules;
  const last = Math.max(0, sites.length - SITES_AT_ONCE);
  for (let at = 0; at < last; at += SITES_AT_ONCE)
    yield { sites: sites.slice(at, Math.min(at + SITES_AT_ONCE, last)) };
  yield withSites(order, sites.slice(last));
}

/** The order once its last part has come; undefined: there is more to come. */
export function createAssembly(): (part: SitesPart | ToWorker) => ToWorker | undefined {
  let before: Site[] = [];
  return (part) => {
    if (!('type' in part)) {
      before.push(...part.sites);
      return undefined;
    }
    if (before.length === 0) return part;
    const sites = before;
    before = [];
    return withSites(part, sites, true);
  };
}

/** `first`: those that the order has come behind these. */
function withSites(order: ToWorker, sites: readonly Site[], first = false): ToWorker {
  if (order.type !== 'serve' || order.snapshot.kind !== 'routes') return order;
  const { snapshot } = order;
  const { rules } = snapshot.value;
  if (rules === undefined) return order;
  const all = first ? [...sites, ...rules.sites] : sites;
  return {
    ...order,
    snapshot: { ...snapshot, value: { ...snapshot.value, rules: { ...rules, sites: all } } },
  };
}
