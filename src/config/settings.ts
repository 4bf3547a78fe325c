// The table of all settings: what each is for, its default and what it means for security; docs/settings.md shows it.

import type { Setting } from './setting.ts';
import { fleetSettings } from './settings-fleet.ts';
import { telemetrySettings } from './settings-telemetry.ts';

export type { Setting } from './setting.ts';

export const settings: readonly Setting[] = [
  {
    name: 'DOMAIN',
    meaning: 'The domain to serve. A wildcard stands for one label.',
    byDefault: '',
    example: 'app.example.com',
  },
  {
    name: 'DOMAINS',
    meaning: 'More domains, one a line (spaces and commas separate too).',
    byDefault: '',
    example: 'app.example.com,api.example.com',
  },
  {
    name: 'ALIAS_DOMAIN',
    meaning:
      'One more name for DOMAIN: in the same certificate, with the same route, and with records of its own that lead here. Where it leads to several deployments in turn its records are yours to make: `DNS_SETUP_MODE=print`.',
    byDefault: '',
    example: 'www.example.com',
    security: 'The certificate shows each of the two names to visitors of the other.',
  },
  {
    name: 'TARGET_ENDPOINT',
    meaning:
      'The upstream of every domain that has no route of its own: `http://`, `https://`, `h2c://`, `grpc://`, `grpcs://`, `tcp://`, or a bare `host:port`, which takes HTTP as HTTP/1.1 and anything else as raw bytes (with `ALPN=h2`: HTTP/2 without TLS).',
    byDefault: '',
    example: 'http://app:80',
    security: 'To the upstream it is in the clear unless that is `https://` or `grpcs://`.',
  },
  {
    name: 'ROUTING_MAP',
    meaning: 'An upstream for each domain: `domain=upstream`, one a line (commas separate too).',
    byDefault: '',
    example: 'app.example.com=app:80,api.example.com=grpc://api:50051',
  },
  {
    name: 'ROUTES_FILE',
    meaning:
      'A YAML file of routes by host and path; read again when it changes or on SIGHUP. Its hosts are served in addition to DOMAIN and DOMAINS.',
    byDefault: '',
    example: '/config/routes.yaml',
    security: 'Who can write it decides where traffic goes.',
  },
  {
    name: 'NGINX_CONF_DIR',
    meaning:
      'Where the nginx files of a 1.x image are mounted: its `*.conf` are served as nginx would, see [nginx.md](nginx.md). `none` leaves them unread.',
    byDefault: '/etc/nginx/conf.d',
    example: 'none',
  },
  {
    name: 'GATEWAY_DOMAIN',
    meaning: 'The dstack gateway that the CNAME records point at.',
    byDefault: '',
    example: 'gateway.dstack-prod5.phala.network',
  },
  {
    name: 'PORT',
    meaning: 'The port to listen on, and the port in the TXT record unless PUBLIC_PORT says otherwise.',
    byDefault: '443',
    example: '8443',
  },
  {
    name: 'PUBLIC_PORT',
    meaning:
      'The port at which the gateway reaches the ingress, where a port mapping makes it differ from PORT.',
    byDefault: 'PORT',
    example: '443',
  },
  {
    name: 'HTTP_PORT',
    meaning:
      "A port for plain HTTP, where http-01 challenges are answered and everything else is sent to `https://` at PUBLIC_PORT (308). Behind the dstack gateway there is nothing to gain: port 80 of its name is the gateway's own.",
    byDefault: 'plain HTTP is not listened for',
    example: '80',
    security:
      'Nothing is proxied in the clear. Anyone on the way can read what a visitor sends before being redirected.',
  },
  {
    name: 'LISTEN_ADDRESS',
    meaning: 'The one address to listen on.',
    byDefault: 'all addresses, IPv6 and IPv4',
    example: '127.0.0.1',
  },
  {
    name: 'ALPN',
    meaning:
      'What is offered to clients: `h2`, `http/1.1` or both. With `h2` alone a client that knows only HTTP/1.1 is still served.',
    byDefault: 'h2,http/1.1',
    example: 'http/1.1',
  },
  {
    name: 'PROXY_PROTOCOL',
    aliases: ['ACCEPT_PROXY_PROTOCOL'],
    meaning: 'Whether connections begin with a PROXY protocol header (v1 or v2) naming the client.',
    byDefault: 'false',
    example: 'true',
    security:
      'Whoever may send the header may claim any client address; see TRUSTED_PROXIES. It vouches for the address alone, not for fields of requests.',
  },
  {
    name: 'TRUSTED_PROXIES',
    meaning: 'Whose PROXY header is believed: `private`, `any`, addresses and CIDR blocks.',
    byDefault: 'private',
    example: '10.0.0.0/8',
    security: '`any` lets every peer claim any address.',
  },
  {
    name: 'SEND_PROXY_PROTOCOL',
    meaning:
      'Whether the upstreams of TARGET_ENDPOINT and ROUTING_MAP are sent a PROXY protocol header (v2) that names the client, in front of each connection. A connection then carries the requests of one client connection alone. Not for upstreams that speak TLS.',
    byDefault: 'false',
    example: 'true',
    security:
      'The address is that of whoever connects: behind a gateway it is the gateway unless PROXY_PROTOCOL names the client. An upstream that does not wait for the header takes it for a malformed request.',
  },
  {
    name: 'TRUSTED_FORWARDERS',
    meaning:
      'Proxies that end TLS in front of the ingress and speak HTTP to it: addresses and CIDR blocks. Their X-Forwarded-For, -Proto, -Host and -Port, X-Real-IP and Forwarded are kept and added to; of everyone else they are replaced. With PROXY_PROTOCOL it is the address that the PROXY header names which counts.',
    byDefault: 'nobody is believed',
    example: '192.0.2.10',
    security:
      'Whoever comes from there can claim to be any client. Never name what only passes TLS through, as the dstack gateway does: its address stands for every visitor.',
  },
  {
    name: 'UPSTREAM_CA_FILE',
    meaning: "PEM file of roots to trust beside the system's, for `https://` and `grpcs://` upstreams.",
    byDefault: '',
    example: '/config/upstream-root.pem',
    security: 'Who holds one of these roots can stand in for an upstream.',
  },
  {
    name: 'DNS_PROVIDER',
    meaning: 'The DNS provider that holds the zones; without it, the one whose credentials are set.',
    byDefault: '',
    example: 'cloudflare',
  },
  {
    name: 'DNS_SETUP_MODE',
    meaning:
      'Who creates the records: `auto` (the ingress, through the provider), `wait` (you; the ingress prints them and waits until they show), `print` (you; the ingress prints them and goes on) or `webhook` (a service of yours, which the ingress asks; then it waits).',
    byDefault: '`auto` for dns-01, `wait` for the others and with DELEGATION_ZONE',
    example: 'print',
  },
  {
    name: 'DNS_WEBHOOK_URL',
    meaning:
      'With `DNS_SETUP_MODE=webhook`, where the records that are missing are posted as JSON, one request for each domain, with a quote over the payload; as in `https://dns.example.com/hook`.',
    byDefault: '',
    example: 'https://dns.example.com/hook',
    secret: true,
    security:
      'Its receiver must check quote or signature before it believes a request. It may hold a key, and is shown nowhere.',
  },
  {
    name: 'DNS_WEBHOOK_TOKEN',
    meaning: 'A secret shared with the receiver: the payload is signed with it (HMAC-SHA256).',
    byDefault: '',
    example: 'a-long-random-text',
    secret: true,
    security: 'Secret; who has it can ask the receiver for records. It is not sent.',
  },
  {
    name: 'DELEGATION_ZONE',
    aliases: ['ACME_CHALLENGE_ALIAS'],
    meaning:
      "A zone that the DNS provider holds and that is written in place of the domains' own: those need only aliases (CNAME) into it, made once: for the name, the gateway's TXT and `_acme-challenge`; a wildcard needs one for its base too.",
    byDefault: '',
    example: 'delegated.example.net',
    security:
      "No token for the domains' own zones is inside. Who can write the delegation zone can redirect the domains.",
  },
  {
    name: 'DNS_SETUP_TIMEOUT',
    meaning: 'Seconds to wait until records show, before the pass is given up and tried again later.',
    byDefault: '1800',
    example: '600',
  },
  {
    name: 'DNS_SETUP_INTERVAL',
    meaning: 'Seconds between two looks at the DNS.',
    byDefault: '15',
    example: '5',
  },
  {
    name: 'DNS_SETTLE_SECONDS',
    meaning:
      "With tls-alpn-01 and http-01, seconds to wait after the records show, until the gateway's own cache has lapsed too.",
    byDefault: '30',
    example: '0',
  },
  {
    name: 'DOH_RESOLVERS',
    meaning: 'DNS over HTTPS servers to look with, separated by commas.',
    byDefault: 'Google and Cloudflare',
    example: 'https://dns.quad9.net/dns-query',
    security: 'They decide what the ingress believes about its own records; the CA looks for itself.',
  },
  {
    name: 'DNS_RESOLVERS',
    meaning: 'Plain DNS servers (`host` or `host:port`) to look with instead of DNS over HTTPS.',
    byDefault: '',
    example: '10.0.0.53,[fd00::53]:53',
    security: 'Plain DNS can be forged on its way.',
  },
  {
    name: 'TXT_PREFIX',
    meaning: 'The first label of the TXT record in which the gateway looks for the app.',
    byDefault: '_dstack-app-address',
    example: '_tapp-address',
  },
  {
    name: 'APP_ID',
    meaning: 'The app id to put into the TXT record.',
    byDefault: 'what the guest agent says',
    example: 'b1ea785543bbbb19ce9de33744321360992bf63b',
    security:
      "A wrong one hands the domain to another app, which can refuse its visitors, and pass a CA's validation unless CAA names your account.",
  },
  {
    name: 'SET_CAA',
    meaning:
      "Whether to write CAA records that bind issuance to this ingress's ACME account and challenge type.",
    byDefault: 'no, but with DELEGATION_ZONE yes',
    example: 'true',
    security:
      'Without them, whoever passes a validation of the domain at any CA gets a certificate for it. Turn it on.',
  },
  {
    name: 'CHALLENGE_TYPE',
    meaning:
      '`dns-01` (needs a DNS token), `tls-alpn-01` (needs none and cannot do wildcards; the TXT record names one instance, unless several share STATE_DIR and APP_ID is set: then any of them answers) or `http-01` (needs none and cannot do wildcards, serves one instance, and needs HTTP_PORT with port 80 of the domains leading there, as it does not through the dstack gateway). `dns-persist-01` is a draft that few CAs offer: a TXT record that is made once, as DNS_SETUP_MODE says, lets the account have certificates from then on, wildcards included.',
    byDefault: 'dns-01',
    example: 'tls-alpn-01',
    security:
      'With tls-alpn-01 and http-01 no secret that can change the zone is inside; the network in front can answer for the domain, unless CAA names the account. With dns-persist-01 whoever has the account key gets certificates for as long as the record stands; records of earlier accounts are yours to remove.',
  },
  {
    name: 'ACME_EMAIL',
    aliases: ['CERTBOT_EMAIL'],
    meaning:
      'A contact for the ACME account. Optional; one that the CA refuses is left out, and the log says so.',
    byDefault: '',
    example: 'you@your-domain.com',
    security: 'The CA keeps it; the evidence does not show it.',
  },
  {
    name: 'ACME_STAGING',
    aliases: ['CERTBOT_STAGING'],
    meaning: "Whether to use Let's Encrypt's staging environment.",
    byDefault: 'false',
    example: 'true',
    security: 'Browsers do not trust staging certificates.',
  },
  {
    name: 'ACME_DIRECTORY_URL',
    meaning: 'The directory of another ACME CA.',
    byDefault: "Let's Encrypt",
    example: 'https://acme.example.net/directory',
    security:
      'The CA can issue certificates for what it validates: it has to be trusted by visitors and by you.',
  },
  {
    name: 'ACME_CA_FILE',
    meaning: "PEM file of roots to trust, in addition to the system's, for the ACME server itself.",
    byDefault: '',
    example: '/config/acme-root.pem',
  },
  {
    name: 'ACME_PROFILE',
    meaning: 'The certificate profile to ask for, where the CA offers profiles.',
    byDefault: "the CA's own choice",
    example: 'shortlived',
  },
  {
    name: 'ACME_EAB_KID',
    meaning: 'External account binding: the key id that the CA gave you.',
    byDefault: '',
    example: 'kid-1',
  },
  {
    name: 'ACME_EAB_HMAC_KEY',
    meaning: 'External account binding: the HMAC key that the CA gave you, base64url.',
    byDefault: '',
    example: 'zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W',
    secret: true,
    security: 'Secret. Needed for the first registration only.',
  },
  {
    name: 'ACME_ACCOUNT_KEY',
    meaning:
      "Where the account key comes from: `file`, made once and kept in STATE_DIR, or `kms`, derived from the app's key at the dstack KMS and never written down, so that replicas and redeployments of the app have the same account without sharing a volume.",
    byDefault: 'file',
    example: 'kms',
    security:
      "Who has the key can order certificates under the account that CAA names. With `kms` that is every container of the app that has the agent's socket, and every version of the app that the KMS still admits.",
  },
  {
    name: 'RENEW_INTERVAL',
    meaning: 'Seconds between two passes over all certificates.',
    byDefault: '43200',
    example: '3600',
  },
  {
    name: 'RENEW_DAYS_BEFORE',
    meaning:
      'Renew when fewer than this many days are left. Not used where it would be more than half of the life.',
    byDefault: 'a third of the life is left, half if it is under ten days',
    example: '30',
  },
  {
    name: 'STATE_DIR',
    meaning: 'Where account key, certificates and their keys are kept. A volume.',
    byDefault: '/etc/letsencrypt',
    example: '/var/lib/ingress',
    security: 'Holds private keys: mount it into no other container.',
  },
  ...fleetSettings,
  {
    name: 'EVIDENCE_SERVER',
    meaning: 'Whether `/evidences/` is answered on every domain. The files are written either way.',
    byDefault: 'true',
    example: 'false',
    security: 'Without evidence visitors cannot verify the domain, unless the app serves the files.',
  },
  {
    name: 'EVIDENCE_DIR',
    meaning: 'Where the evidence files are written, for an app that wants to read them.',
    byDefault: '/evidences',
    example: '/srv/evidences',
    security: 'Nothing in it is secret. Mount it read-only into the app.',
  },
  {
    name: 'PCCS_URL',
    meaning: 'PCCS to ask daily for what Intel says of the processor, to be published; or `off`.',
    byDefault: 'Intel and a public cache of it',
    example: 'https://pccs.example.com',
    security: 'Intel signs it: a PCCS can withhold it, and learns the model of the processor.',
  },
  {
    name: 'DSTACK_SIMULATOR_ENDPOINT',
    meaning: 'The guest agent to ask, a socket path or an http:// URL, instead of the sockets in /var/run.',
    byDefault: '',
    example: '/tmp/dstack.sock',
    security: 'Its quotes prove nothing unless it is the real agent.',
  },
  {
    name: 'MAXCONN',
    meaning:
      'Client connections at once. For one more the longest idle is ended; with `PROXY_PROTOCOL` first those of the client that holds most. Raw connections count as idle when they are silent: docs/operation.md says how long.',
    byDefault: '4096',
    example: '20000',
  },
  {
    name: 'WORKERS',
    meaning: 'Processes that serve.',
    byDefault: 'one a core',
    example: '2',
  },
  {
    name: 'TIMEOUT_CONNECT',
    aliases: ['PROXY_CONNECT_TIMEOUT'],
    meaning: 'Longest wait for a connection to an upstream.',
    byDefault: '10s',
    example: '3s',
  },
  {
    name: 'TIMEOUT_SERVER',
    meaning:
      'Longest silence of an upstream. In its place, PROXY_READ_TIMEOUT (while it should answer) and PROXY_SEND_TIMEOUT (while it should take what is sent), as in 1.x; TIMEOUT_SERVER wins over both.',
    byDefault: '86400s',
    example: '10m',
  },
  {
    name: 'PROXY_READ_TIMEOUT',
    meaning: 'See TIMEOUT_SERVER. A number without a unit is seconds, in all PROXY_…_TIMEOUT settings.',
    byDefault: 'TIMEOUT_SERVER',
    example: '900s',
  },
  {
    name: 'PROXY_SEND_TIMEOUT',
    meaning: 'See TIMEOUT_SERVER.',
    byDefault: 'TIMEOUT_SERVER',
    example: '60s',
  },
  {
    name: 'TIMEOUT_CLIENT',
    meaning: 'Longest silence of a client in the middle of a request, a reply or a tunnel.',
    byDefault: '86400s',
    example: '10m',
  },
  {
    name: 'HANDSHAKE_TIMEOUT',
    meaning: 'Longest time for the PROXY header and the TLS handshake.',
    byDefault: '10s',
    example: '5s',
  },
  {
    name: 'HEADER_TIMEOUT',
    meaning: 'Longest time for the head of a request.',
    byDefault: '30s',
    example: '10s',
  },
  {
    name: 'KEEPALIVE_TIMEOUT',
    meaning: 'Longest pause of a client between two requests.',
    byDefault: '75s',
    example: '1h',
  },
  {
    name: 'CLIENT_MAX_BODY_SIZE',
    meaning: 'Largest request body, in bytes or with k, m or g; 0 is no limit.',
    byDefault: '0',
    example: '100m',
  },
  {
    name: 'MAX_HEADER_SIZE',
    aliases: ['PROXY_BUFFER_SIZE'],
    meaning:
      'Largest head of a request or a reply, in bytes or with k or m. Under the old name it only ever raises the default.',
    byDefault: '64k',
    example: '128k',
  },
  {
    name: 'MAX_HEADER_COUNT',
    meaning: 'Most header lines in a request.',
    byDefault: '128',
    example: '500',
  },
  {
    name: 'MAX_CONCURRENT_STREAMS',
    meaning: 'HTTP/2 requests at once on one client connection.',
    byDefault: '100',
    example: '256',
  },
  ...telemetrySettings,
];
