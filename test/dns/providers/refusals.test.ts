// What vendors say when they refuse, as they document it: each becomes a code, the setting, and what an operator can do.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { DnsError, needsOperator } from '../../../dns/error.ts';
import type { DnsProvider } from '../../../dns/provider.ts';
import { providerKinds } from '../../../dns/providers/choice.ts';
import { cloudflareKind } from '../../../dns/providers/cloudflare.ts';
import { cureOf } from '../../../dns/providers/cures.ts';
import { desecKind } from '../../../dns/providers/desec.ts';
import { digitaloceanKind } from '../../../dns/providers/digitalocean.ts';
import { gandiKind } from '../../../dns/providers/gandi.ts';
import { hetznerKind } from '../../../dns/providers/hetzner.ts';
import { linodeKind } from '../../../dns/providers/linode.ts';
import { namecheapKind } from '../../../dns/providers/namecheap.ts';
import { porkbunKind } from '../../../dns/providers/porkbun.ts';
import { route53Kind } from '../../../dns/providers/route53.ts';
import type { ApiDouble, DoubleOptions } from '../../support/api-double.ts';
import { startCloudflareDouble } from '../../support/cloudflare-double.ts';
import { startDesecDouble } from '../../support/desec-double.ts';
import { startDigitaloceanDouble } from '../../support/digitalocean-double.ts';
import { startGandiDouble } from '../../support/gandi-double.ts';
import { startHetznerDouble } from '../../support/hetzner-double.ts';
import { startLinodeDouble } from '../../support/linode-double.ts';
import { startNamecheapDouble } from '../../support/namecheap-double.ts';
import { startPorkbunDouble } from '../../support/porkbun-double.ts';
import { ACCESS_KEY_ID, startRoute53Double } from '../../support/route53-double.ts';

const SECRET = 'token-that-nobody-may-read-0123456789';

interface Vendor {
  readonly start: (options: DoubleOptions) => Promise<ApiDouble>;
  readonly open: (url: string) => DnsProvider;
}

const vendors: Readonly<Record<string, Vendor>> = {
  cloudflare: {
    start: startCloudflareDouble,
    open: (url) => cloudflareKind.create({ CLOUDFLARE_API_TOKEN: SECRET, CLOUDFLARE_BASE_URL: url }),
  },
  linode: {
    start: startLinodeDouble,
    open: (url) => linodeKind.create({ LINODE_API_TOKEN: SECRET, LINODE_API_URL: url }),
  },
  route53: {
    start: startRoute53Double,
    open: (url) =>
      route53Kind.create({
        AWS_ACCESS_KEY_ID: ACCESS_KEY_ID,
        AWS_SECRET_ACCESS_KEY: SECRET,
        AWS_ENDPOINT_URL_ROUTE_53: url,
      }),
  },
  namecheap: {
    start: startNamecheapDouble,
    open: (url) =>
      namecheapKind.create({
        NAMECHEAP_USERNAME: 'us',
        NAMECHEAP_API_KEY: SECRET,
        NAMECHEAP_CLIENT_IP: '192.0.2.1',
        NAMECHEAP_API_URL: url,
      }),
  },
  digitalocean: {
    start: startDigitaloceanDouble,
    open: (url) => digitaloceanKind.create({ DO_AUTH_TOKEN: SECRET, DO_API_URL: url }),
  },
  hetzner: {
    start: startHetznerDouble,
    open: (url) => hetznerKind.create({ HETZNER_API_TOKEN: SECRET, HETZNER_API_URL: url }),
  },
  gandi: {
    start: startGandiDouble,
    open: (url) => gandiKind.create({ GANDI_PERSONAL_ACCESS_TOKEN: SECRET, GANDI_API_URL: url }),
  },
  porkbun: {
    start: startPorkbunDouble,
    open: (url) =>
      porkbunKind.create({ PORKBUN_API_KEY: 'pk1', PORKBUN_SECRET_API_KEY: SECRET, PORKBUN_API_URL: url }),
  },
  desec: {
    start: startDesecDouble,
    open: (url) => desecKind.create({ DESEC_TOKEN: SECRET, DESEC_API_URL: url }),
  },
};

const cloudflare = (code: number, message: string) =>
  JSON.stringify({ success: false, errors: [{ code, message }], messages: [], result: null });
const namecheap = (number: number, text: string) =>
  `<?xml version="1.0"?><ApiResponse Status="ERROR" xmlns="http://api.namecheap.com/xml.response"><Errors><Error Number="${number}">${text}</Error></Errors></ApiResponse>`;
const aws = (code: string) =>
  `<?xml version="1.0"?><ErrorResponse><Error><Type>Sender</Type><Code>${code}</Code><Message>no</Message></Error></ErrorResponse>`;

/** Provider, status, body; then the code and the setting. */
const refusals: readonly (readonly [string, number, string, string, string])[] = [
  [
    'cloudflare',
    400,
    cloudflare(6003, 'Invalid request headers'),
    'credentials-refused',
    'CLOUDFLARE_API_TOKEN',
  ],
  [
    'cloudflare',
    401,
    cloudflare(10000, 'Authentication error'),
    'credentials-refused',
    'CLOUDFLARE_API_TOKEN',
  ],
  [
    'cloudflare',
    403,
    cloudflare(9109, 'Invalid access token'),
    'credentials-refused',
    'CLOUDFLARE_API_TOKEN',
  ],
  [
    'cloudflare',
    403,
    cloudflare(10000, 'Authentication error'),
    'permission-missing',
    'CLOUDFLARE_API_TOKEN',
  ],
  [
    'cloudflare',
    403,
    cloudflare(9109, 'Cannot use the access token from location: 192.0.2.1'),
    'permission-missing',
    'CLOUDFLARE_API_TOKEN',
  ],
  ['linode', 401, '{"errors":[{"reason":"Invalid Token"}]}', 'credentials-refused', 'LINODE_API_TOKEN'],
  [
    'linode',
    401,
    '{"errors":[{"reason":"Your OAuth token is not authorized to use this endpoint."}]}',
    'permission-missing',
    'LINODE_API_TOKEN',
  ],
  ['linode', 403, '{"errors":[{"reason":"Unauthorized"}]}', 'permission-missing', 'LINODE_API_TOKEN'],
  ['route53', 403, aws('InvalidClientTokenId'), 'credentials-refused', 'AWS_ACCESS_KEY_ID'],
  ['route53', 403, aws('SignatureDoesNotMatch'), 'credentials-refused', 'AWS_ACCESS_KEY_ID'],
  ['route53', 403, aws('AccessDenied'), 'permission-missing', 'AWS_ACCESS_KEY_ID'],
  ['namecheap', 200, namecheap(1011102, 'API Key is invalid'), 'credentials-refused', 'NAMECHEAP_API_KEY'],
  ['namecheap', 200, namecheap(1011150, 'Invalid request IP'), 'permission-missing', 'NAMECHEAP_CLIENT_IP'],
  [
    'digitalocean',
    401,
    '{"id":"unauthorized","message":"Unable to authenticate you"}',
    'credentials-refused',
    'DO_AUTH_TOKEN',
  ],
  [
    'digitalocean',
    403,
    '{"id":"forbidden","message":"You are not authorized to perform this operation"}',
    'permission-missing',
    'DO_AUTH_TOKEN',
  ],
  [
    'hetzner',
    401,
    '{"error":{"code":"unauthorized","message":"unable to authenticate"}}',
    'credentials-refused',
    'HETZNER_API_TOKEN',
  ],
  [
    'hetzner',
    403,
    '{"error":{"code":"token_readonly","message":"token is only allowed to perform GET requests"}}',
    'permission-missing',
    'HETZNER_API_TOKEN',
  ],
  ['gandi', 401, '{"message":"no"}', 'credentials-refused', 'GANDI_PERSONAL_ACCESS_TOKEN'],
  ['gandi', 403, '{"message":"Access was denied"}', 'permission-missing', 'GANDI_PERSONAL_ACCESS_TOKEN'],
  [
    'porkbun',
    400,
    '{"status":"ERROR","message":"Invalid API key. (002)"}',
    'credentials-refused',
    'PORKBUN_API_KEY',
  ],
  [
    'porkbun',
    400,
    '{"status":"ERROR","message":"Domain is not opted in to API access."}',
    'permission-missing',
    'PORKBUN_API_KEY',
  ],
  ['desec', 401, '{"detail":"Invalid token."}', 'credentials-refused', 'DESEC_TOKEN'],
  [
    'desec',
    403,
    '{"detail":"You do not have permission to perform this action."}',
    'permission-missing',
    'DESEC_TOKEN',
  ],
];

for (const [name, status, body, code, variable] of refusals) {
  test(`${name} answers ${status} ${body.slice(0, 90)}: ${code}, with the setting and the cure`, async () => {
    const { start, open } = vendors[name]!;
    const double = await start({ zones: { 'example.com': [] } });
    try {
      double.misbehave({ status, body, times: 9 });
      const error = await open(double.url)
        .list('app.example.com', 'TXT')
        .then(
          () => assert.fail('it was not refused'),
          (reason: unknown) => reason as DnsError,
        );
      assert.ok(error instanceof DnsError, String(error));
      assert.deepEqual([error.code, error.provider, error.variable], [code, name, variable], error.message);
      assert.ok(error.cure !== undefined && error.message.endsWith(error.cure));
      assert.match(error.message, new RegExp(variable));
      assert.match(error.message, /https:\/\/\S+/);
      assert.ok(!error.message.includes(SECRET), error.message);
      assert.ok(needsOperator(error));
      assert.equal(double.journal.length, 1, 'asking again changes nothing');
    } finally {
      await double.stop();
    }
  });
}

test('what a vendor repeats of the token stays out of what is said', async () => {
  const double = await startCloudflareDouble({ zones: {} });
  try {
    double.misbehave({ status: 403, body: cloudflare(9109, `Invalid access token ${SECRET}`) });
    await assert.rejects(
      vendors.cloudflare!.open(double.url).list('app.example.com', 'TXT'),
      (error: Error) => {
        assert.match(error.message, /Invalid access token \*\*\*/);
        assert.ok(!inspect(error, { depth: 9 }).includes(SECRET));
        return true;
      },
    );
  } finally {
    await double.stop();
  }
});

test('all thirteen providers have a cure for each refusal, which names a setting of theirs', () => {
  assert.equal(providerKinds.length, 13);
  for (const { name, variables } of providerKinds) {
    for (const code of ['credentials-refused', 'permission-missing', 'zone-not-found'] as const) {
      const found = cureOf(name, code);
      assert.ok(found !== undefined, name);
      assert.ok(
        variables.some((one) => one.name === found.variable),
        `${name} has no ${found.variable}`,
      );
      assert.ok(found.cure.includes(found.variable), name);
      for (const [setting] of found.cure.matchAll(/\b[A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+\b/g)) {
        assert.ok(
          variables.some((one) => one.name === setting),
          `${name}: ${setting}`,
        );
      }
    }
    assert.equal(cureOf(name, 'unreachable'), undefined);
  }
});

test('a refusal is known by its cause, however it is wrapped', () => {
  const refusal = new DnsError('permission-missing', 'no');
  assert.ok(needsOperator(new Error('records', { cause: new Error('zone', { cause: refusal }) })));
  assert.ok(!needsOperator(new Error('records', { cause: new DnsError('unreachable', 'later') })));
  assert.ok(!needsOperator(undefined));
});
