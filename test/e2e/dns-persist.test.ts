// dns-persist-01 against a CA that offers it: a shim before Pebble, which reads the record and answers Pebble's dns-01 itself.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { Resolver } from 'node:dns/promises';
import { test } from 'node:test';
import { type AcmeShim, problem, startShim } from '../support/acme-shim.ts';
import { startCloudflareDouble } from '../support/cloudflare-double.ts';
import { createWorld, get, servedSerial, startApp, type World } from '../support/world.ts';

const domain = 'app.example.com';
const digest = (text: string | Buffer) => createHash('sha256').update(text).digest('base64url');

interface OfferedAuthorization {
  readonly identifier: { readonly value: string };
  readonly wildcard?: boolean;
  readonly challenges: { type: string; url: string; token?: string; [field: string]: unknown }[];
}

/** What a CA of the draft does: no token in the challenge, and a look at the record when it is answered. */
function offerPersistence(
  shim: AcmeShim,
  { pebble }: World,
  accountValue: (name: string, url: string) => string,
) {
  const resolver = new Resolver();
  resolver.setServers([pebble.dns.address]);
  const challenges = new Map<string, { token: string; name: string; wildcard: boolean }>();
  const looks: string[][] = [];
  shim.rewrite = (_, body) => {
    if (!body.includes('"challenges"')) return body;
    const authorization = JSON.parse(body) as OfferedAuthorization;
    const own = authorization.challenges.find(({ type }) => type === 'dns-01');
    if (own === undefined) return body;
    const { token = '', ...rest } = own;
    const { identifier, wildcard = false } = authorization;
    challenges.set(new URL(own.url).pathname, { token, name: identifier.value, wildcard });
    const offered = { ...rest, type: 'dns-persist-01', issuerDomainNames: ['ca.example'] };
    return JSON.stringify({ ...authorization, challenges: [offered] });
  };
  shim.intercept = async ({ path, payload }) => {
    // Values of orders before would make Pebble's answer too long for UDP.
    if (path === '/order-plz') await pebble.dns.clearTxt(`_acme-challenge.${domain}`);
    const challenge = challenges.get(path);
    if (challenge === undefined || payload === undefined) return undefined;
    const jwk = shim.requests.findLast((asked) => asked.jwk !== undefined)!.jwk!;
    const thumbprint = digest(JSON.stringify(jwk));
    const seen = (await resolver.resolveTxt(`_validation-persist.${challenge.name}`)).map((each) =>
      each.join(''),
    );
    looks.push(seen);
    const wanted = `ca.example;accounturi=${accountValue(challenge.name, thumbprint)}`;
    const suffix = challenge.wildcard ? ';policy=wildcard' : '';
    if (!seen.some((value) => value === wanted + suffix || value === `${wanted};policy=wildcard`)) {
      return problem(403, 'unauthorized', `no record says ${wanted}${suffix}`);
    }
    await pebble.dns.addTxt(`_acme-challenge.${challenge.name}`, digest(`${challenge.token}.${thumbprint}`));
    return undefined;
  };
  return looks;
}

for (const [revision, hashed] of [
  ['01, the account as it is', false],
  ['02, the account hashed', true],
] as const) {
  test(`one record, made once, is all that certificates and renewals need (draft ${revision})`, async (t) => {
    await using world = await createWorld({ nonceRejectPercent: 0 });
    await using app = await startApp('persistent');
    const shim = await startShim(world.pebble);
    t.after(shim.stop);
    const foreign = 'other.example;accounturi=https://other.example/acct/1';
    const name = `_validation-persist.${domain}`;
    const api = await startCloudflareDouble({
      zones: { 'example.com': [{ type: 'TXT', name, value: foreign }] },
      dns: world.pebble.dns,
    });
    t.after(api.stop);
    const prefix = 'https://ca.example/account-hash/';
    let accountUrl = '';
    shim.directory = (directory) => ({
      ...directory,
      meta: { issuerDomainNames: ['ca.example'], ...(hashed && { accountHashPrefix: prefix }) },
    });
    const looks = offerPersistence(shim, world, (of, thumbprint) =>
      hashed
        ? `${prefix}sha-256/${digest(Buffer.concat([Buffer.of(of.length), Buffer.from(of + thumbprint + accountUrl)]))}`
        : accountUrl,
    );
    const ingress = world.start({
      ACME_DIRECTORY_URL: shim.directoryUrl,
      DOMAINS: `${domain} *.${domain}`,
      TARGET_ENDPOINT: app.url,
      CHALLENGE_TYPE: 'dns-persist-01',
      DNS_SETUP_MODE: 'auto',
      CLOUDFLARE_API_TOKEN: api.token,
      CLOUDFLARE_BASE_URL: api.url,
    });
    accountUrl = String((await ingress.waitFor('account ready')).account);
    await ingress.waitFor('ready');
    const target = { port: world.port, servername: domain, ca: await world.roots() };
    assert.equal((await get(target)).body, 'persistent');
    assert.equal((await get({ ...target, servername: `any.${domain}` })).body, 'persistent');

    const [writes, looked] = [api.writes().length, looks.length];
    const before = await servedSerial(target);
    ingress.kill('SIGUSR2');
    await ingress.waitFor('certificate obtained', (line) => line.serial !== before);
    assert.notEqual(await servedSerial(target), before);
    assert.equal(api.writes().length, writes, 'a renewal writes nothing');
    assert.ok(looked > 0 && looks.length > looked, 'the CA looked for the record both times');
    const held = api.contents().filter((record) => record.includes(name));
    assert.equal(held.length, 2, `the record of another CA stands beside ours: ${held}`);
    assert.ok(!api.contents().some((record) => record.includes('_acme-challenge')));
    assert.ok(ingress.log.some((line) => /dns-persist-01 is a draft/.test(JSON.stringify(line))));
  });
}
