// What can be seen of a domain's CAA from here, and what it means: one judgement, for the log and for the status alike.

import { type CaaQuestion, type CaaVerdict, checkCaa } from '../../dns/caa.ts';
import type { Resolver } from '../../dns/resolver.ts';
import { formatCaa } from '../../dns/wire/presentation.ts';
import { baseOf, isWildcard } from '../lib/domain.ts';

export interface CaaSight {
  /** `hidden`: what is seen through an alias is not what the CA need see, and says nothing for sure. */
  readonly state: 'pinned' | 'open' | 'forbids' | 'hidden';
  readonly verdict: CaaVerdict;
  /** Of anything but `pinned`: why it is so, and what to do about it. */
  readonly cause?: string;
  readonly cure?: string;
}

/** `pins`: whether a record for this account should be there, since we write it or ask for it. Rejects as the resolver does. */
export async function seeCaa(resolver: Resolver, question: CaaQuestion, pins: boolean): Promise<CaaSight> {
  const view = closestView(resolver);
  const verdict = await checkCaa(view, question);
  const { allowed, pinned, decidedBy, findings } = verdict;
  if (pinned) return { state: 'pinned', verdict };
  const { domain } = question;
  const cause = `${decidedBy === undefined ? 'no name up to the top has CAA records' : `CAA at ${decidedBy}`}: ${findings.join(', ')}`;
  if (view.throughAlias() && (pins || !allowed)) {
    const base = baseOf(domain);
    return {
      state: 'hidden',
      verdict,
      cause: `${base} is an alias, and resolvers that follow it see CAA of what it leads to, not the record beside it: ${cause}`,
      cure: `let this machine reach the zone's own name servers at port 53, or look there yourself: dig CAA ${base} @<name server> should show ${allowing(question)}`,
    };
  }
  const at = decidedBy ?? baseOf(domain);
  if (allowed) {
    const cure =
      decidedBy === undefined
        ? `add ${baseOf(domain)} CAA ${allowing(question)}`
        : `remove at ${at} what lets others issue, and keep ${allowing(question)}`;
    return { state: 'open', verdict, cause, cure: pins ? cure : `${cure}, or set SET_CAA=true` };
  }
  const cure = `correct or remove that, or let this account issue with: ${baseOf(domain)} CAA ${allowing(question)}`;
  return { state: 'forbids', verdict, cause, cure };
}

/** The record that lets this account issue, and nobody else. */
function allowing({ domain, identities, accountUrl, method }: CaaQuestion): string {
  return formatCaa({
    flags: 0,
    tag: isWildcard(domain) ? 'issuewild' : 'issue',
    value: `${identities[0]};accounturi=${accountUrl};validationmethods=${method}`,
  });
}

/** The zones' own servers where they answer, or else the resolvers, which may remember an alias and see nothing beside it. */
function closestView(resolver: Resolver): Resolver & { throughAlias(): boolean } {
  let aliased = false;
  return {
    throughAlias: () => aliased,
    async resolve(name, type) {
      const own = await askZone(resolver, name, type);
      if (own !== undefined) return own;
      if ((await resolver.resolve(name, 'CNAME')).length > 0) aliased = true;
      return resolver.resolve(name, type);
    },
  };
}

async function askZone(
  { authority }: Resolver,
  ...[name, type]: Parameters<Resolver['resolve']>
): Promise<string[] | undefined> {
  try {
    const views = (await authority?.viewsOf(name)) ?? [];
    return await Promise.any(views.map((view) => view.resolve(name, type)));
  } catch {
    return undefined;
  }
}
