// What an operator can do when a provider refuses: which setting, which permission, and where both are made.

import type { DnsErrorCode } from '../error.ts';

interface Access {
  /** The setting that holds the credential. */
  readonly variable: string;
  /** What the credential must be allowed to do, in the vendor's words. */
  readonly permission: string;
  /** Where it is made and changed: the vendor's page and menu. */
  readonly place: string;
  /** What else has to be right there. */
  readonly also?: string;
}

/** By the provider's name. */
const accesses: Readonly<Record<string, Access>> = {
  cloudflare: {
    variable: 'CLOUDFLARE_API_TOKEN',
    permission: 'Zone: Zone: Read and Zone: DNS: Edit on the zone',
    place: 'https://dash.cloudflare.com/profile/api-tokens (My Profile, API Tokens)',
    also: 'a filter on client IP addresses there must let this machine pass; a Global API Key is no token',
  },
  linode: {
    variable: 'LINODE_API_TOKEN',
    permission: 'Domains: Read/Write',
    place: 'https://cloud.linode.com/profile/tokens (My Profile, API Tokens, Personal Access Tokens)',
    also: 'a restricted user needs access to the domain as well',
  },
  route53: {
    variable: 'AWS_ACCESS_KEY_ID',
    permission:
      'route53:ListHostedZonesByName, route53:GetChange, and on the hosted zone route53:ListResourceRecordSets and route53:ChangeResourceRecordSets',
    place: 'https://console.aws.amazon.com/iam (Users, Security credentials, and Policies)',
    also: 'AWS_SECRET_ACCESS_KEY belongs to it, and AWS_SESSION_TOKEN where there is one; with AWS_ROLE_ARN the role needs the permissions, and must trust this key for sts:AssumeRole',
  },
  namecheap: {
    variable: 'NAMECHEAP_API_KEY',
    permission: 'API access switched on for the account, and NAMECHEAP_CLIENT_IP in its whitelist',
    place: 'https://ap.www.namecheap.com/settings/tools/apiaccess (Profile, Tools, API Access)',
    also: 'NAMECHEAP_USERNAME must be that of the account',
  },
  digitalocean: {
    variable: 'DO_AUTH_TOKEN',
    permission: 'the scopes domain:read, domain:create, domain:update and domain:delete',
    place: 'https://cloud.digitalocean.com/account/api/tokens (API, Tokens)',
  },
  hetzner: {
    variable: 'HETZNER_API_TOKEN',
    permission: 'Read & Write',
    place: 'https://console.hetzner.com (the project that has the zone, Security, API tokens)',
    also: 'tokens of the older dns.hetzner.com do not work here',
  },
  gandi: {
    variable: 'GANDI_PERSONAL_ACCESS_TOKEN',
    permission: 'Manage domain name technical configurations, for the domain',
    place: 'https://admin.gandi.net (the organization, Sharing, Personal Access Tokens)',
  },
  porkbun: {
    variable: 'PORKBUN_API_KEY',
    permission: 'API ACCESS switched on for the domain (Domain Management, Details)',
    place: 'https://porkbun.com/account/api',
    also: 'PORKBUN_SECRET_API_KEY belongs to it',
  },
  desec: {
    variable: 'DESEC_TOKEN',
    permission: 'a policy that lets it write the record sets of the domain, or none that restricts it',
    place: 'https://desec.io/tokens (Token Management)',
    also: 'the subnets that it may be used from must include this machine',
  },
  powerdns: {
    variable: 'PDNS_API_KEY',
    permission: 'this machine in webserver-allow-from, and an API that may write',
    place: "the server's pdns.conf (api-key, api, webserver-allow-from)",
  },
  rfc2136: {
    variable: 'RFC2136_TSIG_SECRET',
    permission: 'a rule that lets the key update and read the zone (BIND: update-policy, allow-transfer)',
    place: "the name server's configuration (BIND: tsig-keygen, key)",
    also: 'RFC2136_TSIG_KEY and RFC2136_TSIG_ALGORITHM must be those of the server, and the clocks agree',
  },
  'acme-dns': {
    variable: 'ACME_DNS_PASSWORD',
    permission: 'this machine in the allowfrom that was registered',
    place: 'the answer to POST /register of the server',
    also: 'ACME_DNS_USERNAME and ACME_DNS_SUBDOMAIN come from the same answer',
  },
  httpreq: {
    variable: 'HTTPREQ_PASSWORD',
    permission: 'what your server lets this user do',
    place: 'your server at HTTPREQ_ENDPOINT',
    also: 'HTTPREQ_USERNAME goes with it',
  },
};

export interface Cure {
  readonly variable: string;
  readonly cure: string;
}

/** Undefined if an operator can change nothing, or if nobody knows what. */
export function cureOf(provider: string, code: DnsErrorCode): Cure | undefined {
  const access = accesses[provider];
  if (access === undefined) return undefined;
  const { variable, permission, place, also } = access;
  const rest = also === undefined ? '' : `; ${also}`;
  switch (code) {
    case 'credentials-refused':
      return {
        variable,
        cure: `${variable} is wrong, expired or revoked: make it anew at ${place}, with ${permission}${rest}`,
      };
    case 'permission-missing':
      return {
        variable,
        cure: `${variable} lacks ${permission}, or is for another account: see to it at ${place}${rest}`,
      };
    case 'zone-not-found':
      return {
        variable,
        cure: `${variable} is for another zone or account, or lacks ${permission}: see ${place}`,
      };
    default:
      return undefined;
  }
}
