// Which DNS records are wanted, who makes them, and who is asked whether they are there.

import { DnsError, type DnsProvider, type ProviderKind } from '../../dns/provider.ts';
import { chooseProvider, providerKinds } from '../../dns/providers/choice.ts';
import type { RecordsMode } from '../records/setup.ts';
import type { AcmeSettings } from './acme.ts';
import type { Environment } from './environment.ts';
import {
  parseAddress,
  parseChoice,
  parseHttpsUrl,
  parseNginxTime,
  parsePort,
  parseSeconds,
  parseSwitch,
  quote,
  splitWords,
  ValueError,
} from './values.ts';
import { namesOf, variables } from './variables.ts';

export interface DnsSettings {
  readonly recordsMode: RecordsMode;
  /** Always there for dns-01, for mode "auto" and with a delegation zone. */
  readonly provider:
    | { readonly kind: ProviderKind; readonly credentials: Readonly<Record<string, string>> }
    | undefined;
  /** Always there for mode "webhook". The token is a secret. */
  readonly webhook: { readonly url: string; readonly token: string | undefined } | undefined;
  /** The zone that is written in place of the domains' own. */
  readonly delegationZone: string | undefined;
  /** The target of the CNAMEs; always there unless the mode is "print" without a delegation zone. */
  readonly gatewayDomain: string | undefined;
  /** The port in the TXT record: where the gateway reaches us. */
  readonly publicPort: number;
  /** The app id in the TXT record, where the guest agent's is not wanted. */
  readonly appId: string | undefined;
  readonly txtPrefix: string;
  readonly setCaa: boolean;
  /** `host` or `host:port` of plain DNS servers; empty: DNS over HTTPS is asked. */
  readonly resolvers: readonly string[];
  /** URLs; empty: the resolver's own choice. */
  readonly dohResolvers: readonly string[];
  readonly propagationTimeoutMs: number;
  readonly propagationIntervalMs: number;
  /** After the records show, until the gateway's own cache has lapsed too. */
  readonly settleMs: number;
}

export function readDns(
  environment: Environment,
  challenge: AcmeSettings['challenge'],
  port: number,
): DnsSettings {
  const delegationZone = environment.read(['DELEGATION_ZONE', 'ACME_CHALLENGE_ALIAS'], parseZone);
  const delegated = environment.has('DELEGATION_ZONE') || environment.has('ACME_CHALLENGE_ALIAS');
  const recordsMode = readRecordsMode(environment, challenge, delegated);
  const writes = recordsMode === 'auto' || delegated;
  if (challenge === 'dns-persist-01') warnOfDraft(environment, delegated);
  const gatewayDomain = environment.read('GATEWAY_DOMAIN', parseGatewayDomain);
  if (
    (recordsMode !== 'print' || delegated || challenge === 'dns-persist-01') &&
    !environment.has('GATEWAY_DOMAIN')
  ) {
    environment.refuse(
      'GATEWAY_DOMAIN',
      'is not set',
      'wants the dstack gateway, as in gateway.dstack-prod5.phala.network',
    );
  }
  if (gatewayDomain?.startsWith('_.')) {
    environment.warn(
      'GATEWAY_DOMAIN',
      `${quote(gatewayDomain)}: Android and some DNS providers refuse an alias to a name with an underscore, use ${quote(gatewayDomain.replace('_', 'gateway'))}`,
    );
  }
  const setCaa = environment.read('SET_CAA', parseSwitch) ?? delegated;
  if (delegated && !setCaa) {
    environment.warn('SET_CAA', 'is off: whoever can write the delegation zone gets certificates');
  }
  return {
    recordsMode,
    provider: readProvider(environment, { challenge, writes, setCaa }),
    webhook: readWebhook(environment, recordsMode),
    delegationZone,
    gatewayDomain,
    publicPort: environment.read('PUBLIC_PORT', parsePort) ?? port,
    appId: environment.read('APP_ID', parseAppId),
    txtPrefix: environment.read('TXT_PREFIX', parseTxtPrefix) ?? '_dstack-app-address',
    setCaa,
    resolvers: environment.read('DNS_RESOLVERS', parseResolvers) ?? [],
    dohResolvers: environment.read('DOH_RESOLVERS', (text) => splitWords(text).map(parseHttpsUrl)) ?? [],
    propagationTimeoutMs: environment.read('DNS_SETUP_TIMEOUT', parseNginxTime) ?? 1_800_000,
    propagationIntervalMs: environment.read('DNS_SETUP_INTERVAL', parseNginxTime) ?? 15_000,
    settleMs: environment.read('DNS_SETTLE_SECONDS', parseSeconds) ?? 30_000,
  };
}

function warnOfDraft(environment: Environment, delegated: boolean): void {
  environment.warn(
    'CHALLENGE_TYPE',
    'dns-persist-01 is a draft: few CAs offer it, and its record may have to be made anew when the draft changes',
  );
  if (!delegated) return;
  environment.refuse(
    'DELEGATION_ZONE',
    'does not go with dns-persist-01',
    "take it away: the one record never changes, and is made once in the domains' own zones",
  );
}

function readRecordsMode(
  environment: Environment,
  challenge: AcmeSettings['challenge'],
  delegated: boolean,
): RecordsMode {
  const mode = environment.read('DNS_SETUP_MODE', (text) =>
    parseChoice(text, ['auto', 'wait', 'print', 'webhook']),
  );
  if (delegated && mode === 'auto') {
    environment.refuse(
      'DNS_SETUP_MODE',
      'auto does not go with DELEGATION_ZONE',
      "the aliases in the domains' own zones are yours to make, wants wait, print or webhook",
    );
  }
  if (challenge === 'dns-01' && !delegated && mode !== undefined && mode !== 'auto') {
    environment.warn(
      'DNS_SETUP_MODE',
      `${mode}: only challenge records are written, the others are left to you`,
    );
  }
  return mode ?? (challenge === 'dns-01' && !delegated ? 'auto' : 'wait');
}

function readWebhook(environment: Environment, mode: RecordsMode): DnsSettings['webhook'] {
  const url = environment.read('DNS_WEBHOOK_URL', parseWebhookUrl);
  const token = environment.read('DNS_WEBHOOK_TOKEN', parseWebhookToken);
  if (mode !== 'webhook') {
    for (const name of ['DNS_WEBHOOK_URL', 'DNS_WEBHOOK_TOKEN']) {
      if (environment.has(name)) environment.warn(name, 'does nothing: DNS_SETUP_MODE is not webhook');
    }
    return undefined;
  }
  if (!environment.has('DNS_WEBHOOK_URL')) {
    environment.refuse(
      'DNS_WEBHOOK_URL',
      'is not set, but DNS_SETUP_MODE=webhook needs it',
      'wants the address of your service, as in https://dns.example.com/hook',
    );
  }
  return url === undefined ? undefined : { url, token };
}

/**
 * Plain HTTP to a container nearby is fair: what is sent is signed and not secret. The URL may hold a key, and is never
 * quoted.
 */
function parseWebhookUrl(text: string): string {
  const url = URL.parse(text);
  if (url === null || !['https:', 'http:'].includes(url.protocol)) {
    throw new ValueError('is not a URL', 'wants https://… or http://…');
  }
  if (url.username !== '' || url.password !== '')
    throw new ValueError('holds a user name or password', 'wants a URL without');
  return url.href;
}

function parseWebhookToken(text: string): string {
  if (!/[\x00-\x1f\x7f]/.test(text)) return text;
  throw new ValueError('has a line break or another control character inside', 'wants one line of text');
}

/** A variable that is wrong under an older name is not missing. */
function allNamesOf(variable: string): readonly string[] {
  const known = variables.find(({ name }) => name === variable);
  return known === undefined ? [variable] : namesOf(known);
}

interface ProviderNeeds {
  readonly challenge: AcmeSettings['challenge'];
  /** Whether records other than challenges are written through it. */
  readonly writes: boolean;
  readonly setCaa: boolean;
}

function readProvider(environment: Environment, needs: ProviderNeeds): DnsSettings['provider'] {
  const { challenge, writes } = needs;
  const choice = chooseProvider(environment.values);
  if (challenge !== 'dns-01' && !writes) {
    if (choice !== undefined) {
      environment.warn(
        'DNS_PROVIDER',
        'credentials are set but not used: DNS_SETUP_MODE=auto would use them',
      );
    }
    return undefined;
  }
  if (choice === undefined) {
    const required = providerKinds.flatMap((kind) => kind.variables.filter((one) => one.required));
    if (environment.isWrong('DNS_PROVIDER', ...required.flatMap(namesOf))) return undefined;
    const names = providerKinds.map(({ name }) => name).join(', ');
    const who = environment.has('DNS_SETUP_MODE') ? 'DNS_SETUP_MODE=auto' : 'DELEGATION_ZONE';
    environment.refuse(
      'DNS_PROVIDER',
      `${challenge === 'dns-01' ? 'dns-01' : who} needs a DNS provider`,
      `wants one of ${names}, and its credentials; CHALLENGE_TYPE=tls-alpn-01 needs none`,
    );
    return undefined;
  }
  if ('problems' in choice) {
    for (const { variable, subject, cure } of choice.problems) {
      if (!environment.isWrong(...allNamesOf(variable))) environment.refuse(variable, subject, cure);
    }
    return undefined;
  }
  return isUsable(environment, choice, needs) ? choice : undefined;
}

/** Creating a provider contacts nothing, and shows whether its credentials can be right. */
function isUsable(
  environment: Environment,
  choice: NonNullable<DnsSettings['provider']>,
  needs: ProviderNeeds,
): boolean {
  const broken = Object.entries(choice.credentials).filter(([, value]) => /[\x00-\x1f\x7f]/.test(value));
  for (const [name] of broken)
    environment.refuse(name, 'has a line break or another control character inside', 'paste it as one line');
  if (broken.length > 0) return false;
  try {
    refuseIncapable(environment, choice.kind.create(choice.credentials), needs);
    return true;
  } catch (error) {
    if (!(error instanceof DnsError)) throw error;
    environment.refuse(
      error.variable ?? 'DNS_PROVIDER',
      error.subject,
      error.cure ?? 'see the table of settings',
    );
    return false;
  }
}

/** A start that needs more than the provider can do is refused at once, and not when the first order is due. */
function refuseIncapable(environment: Environment, provider: DnsProvider, needs: ProviderNeeds): void {
  if (!needs.writes) return;
  if (provider.challengesOnly) {
    environment.refuse(
      environment.has('DELEGATION_ZONE') ? 'DELEGATION_ZONE' : 'DNS_SETUP_MODE',
      `${provider.name} can write challenges only`,
      'create the other records yourself, with DNS_SETUP_MODE=wait, print or webhook',
    );
  } else if (needs.setCaa && provider.sharesAliases) {
    environment.refuse(
      'SET_CAA',
      `${provider.name} takes no CAA beside an alias, and only an alias is shared by weight`,
      'wants SET_CAA=false, or no ROUTE53_INITIAL_WEIGHT',
    );
  } else if (needs.setCaa && provider.plainCaaOnly) {
    environment.refuse(
      'SET_CAA',
      `${provider.name} cannot hold a CAA record that names an account`,
      'wants another provider, or SET_CAA=false',
    );
  }
}

/** A name that records can point at; unlike those in certificates it may have underscores. */
function parseGatewayDomain(text: string): string {
  const name = text.toLowerCase().replace(/\.$/, '');
  const labels = name.split('.');
  const sound = labels.every((label) => /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/.test(label));
  if (sound && labels.length > 1 && name.length <= 253 && !/^[\d.]+$/.test(name)) return name;
  const unfilled = text === '_.' ? ' (was DSTACK_GATEWAY_DOMAIN empty?)' : '';
  throw new ValueError(
    `${quote(text)} is not a DNS name${unfilled}`,
    'wants one as in gateway.dstack-prod5.phala.network',
  );
}

function parseZone(text: string): string {
  const zone = text.toLowerCase().replace(/\.$/, '');
  const sound = zone.split('.').every((label) => /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/.test(label));
  if (sound && zone.includes('.') && zone.length <= 253 && !/^[\d.]+$/.test(zone)) return zone;
  throw new ValueError(`${quote(text)} is not a DNS zone`, 'wants one as in delegated.example.net');
}

/** With "-wildcard" behind it, it must still be one label of at most 63 (RFC 1035 §2.3.4). */
function parseTxtPrefix(text: string): string {
  if (/^[a-z0-9_-]{1,54}$/i.test(text)) return text.toLowerCase();
  throw new ValueError(
    `${quote(text)} is not one label of at most 54 letters, digits, hyphens and underscores`,
    'wants one as in _dstack-app-address',
  );
}

function parseAppId(text: string): string {
  if (/^[0-9a-f]{40}$/i.test(text)) return text.toLowerCase();
  throw new ValueError(`${quote(text)} is not an app id`, 'wants 40 hexadecimal digits');
}

function parseResolvers(text: string): string[] {
  return splitWords(text).map((word) => {
    const { host, port } = parseAddress(word, 53);
    return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
  });
}
