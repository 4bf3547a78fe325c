// Every kind of DNS provider, and the choice of one by its name or by the credentials that are set.

import { nearest } from '../../src/lib/spelling.ts';
import type { CredentialVariable, ProviderKind } from '../provider.ts';
import { acmeDnsKind } from './acme-dns.ts';
import { cloudflareKind } from './cloudflare.ts';
import { desecKind } from './desec.ts';
import { digitaloceanKind } from './digitalocean.ts';
import { gandiKind } from './gandi.ts';
import { hetznerKind } from './hetzner.ts';
import { httpreqKind } from './httpreq.ts';
import { linodeKind } from './linode.ts';
import { namecheapKind } from './namecheap.ts';
import { porkbunKind } from './porkbun.ts';
import { powerdnsKind } from './powerdns.ts';
import { rfc2136Kind } from './rfc2136.ts';
import { route53Kind } from './route53.ts';

export const providerKinds: readonly ProviderKind[] = [
  cloudflareKind,
  linodeKind,
  route53Kind,
  namecheapKind,
  digitaloceanKind,
  hetznerKind,
  gandiKind,
  porkbunKind,
  desecKind,
  powerdnsKind,
  rfc2136Kind,
  acmeDnsKind,
  httpreqKind,
];

export interface ProviderProblem {
  readonly variable: string;
  readonly subject: string;
  readonly cure: string;
}

export type ProviderChoice =
  | { readonly kind: ProviderKind; readonly credentials: Record<string, string> }
  | { readonly problems: ProviderProblem[] };

/**
 * Chooses by DNS_PROVIDER, or the only kind whose required credentials are all set. Undefined if there is neither. A kind
 * with only some of its credentials is a problem. All problems are returned, none is thrown.
 */
export function chooseProvider(
  env: Readonly<Record<string, string | undefined>>,
): ProviderChoice | undefined {
  const named = env.DNS_PROVIDER?.trim().toLowerCase();
  if (named) return choiceByName(named, env);
  const complete = providerKinds.filter((kind) => missingOf(kind, env).length === 0);
  const [kind] = complete;
  if (kind === undefined) return incompleteChoice(env);
  if (complete.length > 1) {
    const names = complete.map((candidate) => candidate.name).join(', ');
    return {
      problems: [
        {
          variable: 'DNS_PROVIDER',
          subject: 'credentials of several providers are set',
          cure: `say which one: ${names}`,
        },
      ],
    };
  }
  return { kind, credentials: credentialsOf(kind, env) };
}

/** If a secret of a provider is set, that provider is meant, and something is missing. */
function incompleteChoice(env: Readonly<Record<string, string | undefined>>): ProviderChoice | undefined {
  const begun = providerKinds.filter((kind) =>
    kind.variables.some(
      (variable) => variable.secret && variable.required && valueIn(env, variable) !== undefined,
    ),
  );
  const [kind, ...others] = begun;
  return kind === undefined || others.length > 0 ? undefined : choiceByName(kind.name, env);
}

function choiceByName(named: string, env: Readonly<Record<string, string | undefined>>): ProviderChoice {
  const kind = providerKinds.find(
    (candidate) => candidate.name === named || candidate.aliases?.includes(named),
  );
  if (kind === undefined) {
    const names = providerKinds.map((candidate) => candidate.name);
    const like = nearest(
      named,
      providerKinds.flatMap(({ name, aliases = [] }) => [name, ...aliases]),
    );
    const subject = `${JSON.stringify(named)} is not one of ${names.join(', ')}`;
    const cure = like === undefined ? 'wants one of them' : `was ${like} meant?`;
    return { problems: [{ variable: 'DNS_PROVIDER', subject, cure }] };
  }
  const problems = missingOf(kind, env).map((variable) => ({
    variable: variable.name,
    subject: `DNS_PROVIDER=${named} needs it`,
    cure: `wants ${variable.meaning}${alsoKnownAs(variable)}`,
  }));
  return problems.length > 0 ? { problems } : { kind, credentials: credentialsOf(kind, env) };
}

function alsoKnownAs(variable: CredentialVariable): string {
  return variable.aliases === undefined ? '' : ` (also read from ${variable.aliases.join(', ')})`;
}

function missingOf(
  kind: ProviderKind,
  env: Readonly<Record<string, string | undefined>>,
): CredentialVariable[] {
  return kind.variables.filter((variable) => variable.required && valueIn(env, variable) === undefined);
}

function credentialsOf(
  kind: ProviderKind,
  env: Readonly<Record<string, string | undefined>>,
): Record<string, string> {
  const found = kind.variables.map((variable) => [variable.name, valueIn(env, variable)] as const);
  return Object.fromEntries(found.filter((entry): entry is [string, string] => entry[1] !== undefined));
}

function valueIn(
  env: Readonly<Record<string, string | undefined>>,
  variable: CredentialVariable,
): string | undefined {
  const names = [variable.name, ...(variable.aliases ?? [])];
  return names.map((name) => env[name]?.trim()).find((value) => value !== undefined && value !== '');
}
