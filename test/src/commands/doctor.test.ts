// The doctor: a sound set-up has nothing wrong with it, and each prepared mistake is found, named and given its cure.

import assert from 'node:assert/strict';
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createPlainExchange } from '../../../dns/wire/exchange.ts';
import type { Surroundings } from '../../../src/commands/doctor.ts';
import type { CheckName, Finding, Level } from '../../../src/commands/doctor-report.ts';
import { describeReport, reportOf } from '../../../src/commands/doctor-report.ts';
import { tellFindings } from '../../../src/commands/doctor-start.ts';
import { readConfig } from '../../../src/config/config.ts';
import { createLog } from '../../../src/lib/log.ts';
import { makeCertificate } from '../../support/certificates.ts';
import { ACCOUNT, createDoctorWorld, type DoctorWorld, domain } from '../../support/doctor-world.ts';

let world: DoctorWorld;
before(async () => {
  world = await createDoctorWorld();
});
after(() => world[Symbol.asyncDispose]());

const wrongs = (findings: readonly Finding[]) => findings.filter(({ level }) => level !== 'ok');

interface Mistake {
  /** What is wrong. */
  readonly of: string;
  /** Makes it so, and says with which settings and surroundings the doctor is to look. */
  readonly made: (world: DoctorWorld) => Promise<Prepared> | Prepared;
  readonly found: readonly [CheckName, Level, fact: RegExp, cure: RegExp];
}

interface Prepared {
  readonly env?: Readonly<Record<string, string>>;
  readonly around?: Partial<Surroundings>;
  readonly write?: boolean;
}

const ahead = (ms: number) => ({
  now: () => new Date(Date.now() + ms),
  monotonicMs: () => performance.now(),
  sleep: async () => {},
});
const machine = (changes: Partial<Surroundings['machine']>) => ({
  around: { machine: { ...world.surroundings.machine, ...changes } },
});
const disk = (changes: Partial<Surroundings['disk']>) => ({
  around: { disk: { ...world.surroundings.disk, ...changes } },
});
/** Of those who are asked nobody answers. */
const hasty = { timeoutMs: 1_000 };
const put = (key: string, ...values: string[]) => void world.dns.table.set(key, values);
const TXT = `TXT _dstack-app-address.${domain}`;
const CAA = `CAA ${domain}`;
/** With dns-01 the records are the ingress's to write. */
const asDns01 = (more: Readonly<Record<string, string>> = {}) => ({ ...world.dns01, ...more });
const ledgerOf = (entry: object) => ({
  [domain]: {
    names: [domain],
    failures: 0,
    crashes: 0,
    notBefore: new Date(0).toISOString(),
    reason: '',
    ...entry,
  },
});

const mistakes: readonly Mistake[] = [
  {
    of: 'a setting that cannot be read',
    made: () => ({ env: { MAXCONN: 'many' } }),
    found: ['configuration', 'fail', /^"many" is not a number/, /whole number/],
  },
  {
    of: 'a secret whose file is not there',
    made: () => ({ env: { ACME_EAB_KID: 'kid', ACME_EAB_HMAC_KEY_FILE: '/absent' } }),
    found: ['configuration', 'fail', /cannot be read: ENOENT/, /is it mounted/],
  },
  {
    of: 'a setting that no longer does anything',
    made: () => ({ env: { EVIDENCE_PORT: '80' } }),
    found: ['configuration', 'warn', /no longer does anything/, /take it away/],
  },
  {
    of: 'a misspelt setting',
    made: () => ({ env: { MAX_HEADER_SIZ: '1k' } }),
    found: ['configuration', 'warn', /was MAX_HEADER_SIZE meant/, /correct it/],
  },
  {
    of: 'an old Node',
    made: () => machine({ nodeVersion: '24.14.1' }),
    found: ['node', 'warn', /older than 24\.18\.1/, /newest image/],
  },
  {
    of: 'fewer file descriptors than MAXCONN wants',
    made: () => machine({ descriptorLimit: () => 1_024 }),
    found: ['descriptors', 'warn', /1024 file descriptors, 4096 are needed/, /nofile/],
  },
  {
    of: 'less memory than so many connections want',
    made: () => ({ ...machine({ memoryLimit: () => 512 * 2 ** 20 }), env: { MAXCONN: '20000' } }),
    found: ['memory', 'warn', /MiB, and there are 512 MiB/, /lower MAXCONN/],
  },
  {
    of: 'less memory than the processes want',
    made: () => ({ ...machine({ memoryLimit: () => 512 * 2 ** 20 }), env: { WORKERS: '64' } }),
    found: ['memory', 'fail', /processes alone want/, /lower WORKERS/],
  },
  {
    of: 'a file in the place of the state folder',
    made: async ({ folder }) => {
      await writeFile(join(folder, 'file'), '');
      return { env: { STATE_DIR: join(folder, 'file') } };
    },
    found: ['folders', 'fail', /is not a folder/, /mount a volume/],
  },
  {
    of: 'a state folder on no volume',
    made: () => disk({ mounts: async () => '1 0 0:1 / / rw - overlay overlay rw\n' }),
    found: ['folders', 'warn', /own layer, not on a volume/, /named volume/],
  },
  {
    of: 'a state folder that others may read',
    made: async ({ folder }) => {
      await mkdir(join(folder, 'open', 'dstack-ingress'), { recursive: true, mode: 0o755 });
      return { env: { STATE_DIR: join(folder, 'open') } };
    },
    found: ['folders', 'fail', /^its mode is 755$/, /chmod 700/],
  },
  {
    of: 'a link in the state folder',
    made: async ({ env }) => {
      await symlink('/etc/hostname', join(env.STATE_DIR!, 'dstack-ingress', 'ledger.json'));
      return {};
    },
    found: ['folders', 'fail', /is a link/, /the file itself/],
  },
  {
    of: 'an evidence folder that is a link',
    made: async ({ folder }) => {
      await symlink(folder, join(folder, 'elsewhere'));
      return { env: { EVIDENCE_DIR: join(folder, 'elsewhere') } };
    },
    found: ['folders', 'fail', /is a link/, /name the folder itself/],
  },
  {
    of: 'evidence in the state folder',
    made: ({ env }) => ({ env: { EVIDENCE_DIR: `${env.STATE_DIR}/evidences` } }),
    found: ['folders', 'fail', /lie in each other/, /volume of its own/],
  },
  {
    of: 'a full disk',
    made: () => disk({ room: async () => ({ bytes: 2 ** 20, files: 1_000_000 }) }),
    found: ['disk', 'fail', /^1 MiB and/, /make room/],
  },
  {
    of: 'a disk with few files left',
    made: () => disk({ room: async () => ({ bytes: 2 ** 40, files: 100 }) }),
    found: ['disk', 'warn', /100 files are left/, /make room/],
  },
  {
    of: 'no guest agent',
    made: () => ({ env: { DSTACK_SIMULATOR_ENDPOINT: '/nowhere/dstack.sock' } }),
    found: ['agent', 'fail', /no guest agent found/, /mount \/var\/run\/dstack\.sock/],
  },
  {
    of: 'an agent that refuses',
    made: (it) => {
      it.info = () => ({ status: 400, body: '{"error":"no TDX device"}' });
      return {};
    },
    found: ['agent', 'fail', /no TDX device/, /log of the guest agent/],
  },
  {
    of: 'an account key from a KMS that there is not',
    made: (it) => {
      it.info = (answer) => ({ ...answer, key_provider_info: '{"name":"local-sgx","id":""}' });
      return { env: { ACME_ACCOUNT_KEY: 'kms' } };
    },
    found: ['agent', 'fail', /key provider of this app is "local-sgx"/, /ACME_ACCOUNT_KEY=file/],
  },
  {
    of: 'no key provider',
    made: (it) => {
      it.info = (answer) => ({ ...answer, key_provider_info: '{"name":"none","id":""}' });
      return {};
    },
    found: ['agent', 'warn', /there is none/, /KMS/],
  },
  {
    of: 'an app without instance ids, with tls-alpn-01',
    made: (it) => {
      it.info = (answer) => ({ ...answer, instance_id: '' });
      return {};
    },
    found: ['agent', 'warn', /no instance id/, /dns-01/],
  },
  {
    of: 'a clock that is an hour slow',
    made: () => ({ around: { clock: ahead(-3_600_000) } }),
    found: [
      'clock',
      'fail',
      /^localhost:\d+ is 3600 s ahead$|^localhost:\d+ is 3599 s ahead$/,
      /set the machine's clock/,
    ],
  },
  {
    of: 'a CA that nobody answers for',
    made: ({ closedPort }) => ({ env: { ACME_DIRECTORY_URL: `https://localhost:${closedPort}/directory` } }),
    found: ['ca', 'fail', /cannot be reached/, /ACME_DIRECTORY_URL/],
  },
  {
    of: 'a CA whose root is not trusted',
    made: () => ({ env: { ACME_CA_FILE: '' } }),
    found: ['ca', 'fail', /certificate|cannot be reached|trust/i, /ACME_CA_FILE/],
  },
  {
    of: 'a CA that wants an external account',
    made: (it) => {
      it.meta.externalAccountRequired = true;
      return {};
    },
    found: ['ca', 'fail', /external account binding/, /ACME_EAB_KID and ACME_EAB_HMAC_KEY/],
  },
  {
    of: 'a profile that the CA does not offer',
    made: (it) => {
      it.meta.profiles = { classic: '', shortlived: '' };
      return { env: { ACME_PROFILE: 'shortlive' } };
    },
    found: ['ca', 'fail', /does not offer it/, /classic, shortlived/],
  },
  {
    of: 'an account file that is damaged',
    made: async ({ store }) => {
      await writeFile(join(store.folder, 'account.json'), '{"url":');
      return {};
    },
    found: ['certificates', 'fail', /account/, /bring account\.json back/],
  },
  {
    of: 'a certificate that has expired',
    made: async ({ store }) => {
      await store.keepCertificate(await makeCertificate(domain));
      return { around: { clock: ahead(400 * 86_400_000) } };
    },
    found: ['certificates', 'fail', /^expired at /, /why it was not renewed/],
  },
  {
    of: 'a renewal that is overdue',
    made: async ({ store }) => {
      await store.keepCertificate(await makeCertificate(domain));
      return { around: { clock: ahead(330 * 86_400_000) } };
    },
    found: ['certificates', 'warn', /was not renewed/, /see budget, caa/],
  },
  {
    of: 'failures that use up what the CA allows',
    made: async ({ store }) => {
      await store.writeLedger(ledgerOf({ failures: 4, reason: 'urn:ietf:params:acme:error:dns' }));
      return {};
    },
    found: ['budget', 'warn', /^of the last attempts 4 failed, .*acme:error:dns/, /SIGUSR2/],
  },
  {
    of: 'a resolver that is silent',
    made: ({ dns, closedPort }) => ({
      env: { DNS_RESOLVERS: `${dns.server},127.0.0.1:${closedPort}` },
      around: hasty,
    }),
    found: ['resolvers', 'warn', /127\.0\.0\.1:\d+/, /DNS_RESOLVERS/],
  },
  {
    of: 'no resolver that answers',
    made: ({ closedPort }) => ({ env: { DNS_RESOLVERS: `127.0.0.1:${closedPort}` }, around: hasty }),
    found: ['resolvers', 'fail', /127\.0\.0\.1:\d+/, /let this machine reach it/],
  },
  {
    of: 'a closed port 53',
    made: ({ closedPort }) => {
      put('NS gateway.example.net', 'ns.example.net');
      put('A ns.example.net', '192.0.2.53');
      const exchangeWith = () => createPlainExchange(`127.0.0.1:${closedPort}`, { timeoutMs: 500 });
      return { around: { authoritative: { exchangeWith } } };
    },
    found: ['resolvers', 'warn', /no name server of gateway\.example\.net answers/, /port 53/],
  },
  {
    of: 'a gateway that does not exist',
    made: () => ({ env: { GATEWAY_DOMAIN: 'gateway.exmple.net' } }),
    found: ['gateway', 'fail', /has no address/, /name of the dstack gateway/],
  },
  {
    of: 'a domain without an address',
    made: ({ dns }) => {
      dns.table.delete(`A ${domain}`);
      return {};
    },
    found: ['gateway', 'fail', /has no address/, /CNAME gateway\.example\.net/],
  },
  {
    of: 'a domain behind a proxying provider',
    made: () => {
      put(`A ${domain}`, '198.51.100.7');
      return {};
    },
    found: ['gateway', 'fail', /198\.51\.100\.7, which is not the gateway/, /orange cloud/],
  },
  {
    of: 'a domain without the text that the gateway reads',
    made: ({ dns }) => {
      dns.table.delete(TXT);
      return {};
    },
    found: ['gateway', 'fail', /has no text/, /TXT "[0-9a-f]{40}:443"/],
  },
  {
    of: 'a text with the port of something else',
    made: ({ agent }) => {
      put(TXT, `${agent.instanceId}:8443`);
      return {};
    },
    found: ['gateway', 'fail', /names port 8443, and PUBLIC_PORT is 443/, /:443"/],
  },
  {
    of: 'a text that names another app',
    made: () => {
      put(TXT, `${'ab'.repeat(20)}:443`);
      return {};
    },
    found: ['gateway', 'fail', /names (ab){20}, and this app is/, /the only text there/],
  },
  {
    of: 'two texts, of which the gateway takes one',
    made: ({ agent }) => {
      put(TXT, `${agent.instanceId}:443`, 'old:443');
      return {};
    },
    found: ['gateway', 'fail', /has 2 texts/, /the only text there/],
  },
  {
    of: 'a text that is no address',
    made: () => {
      put(TXT, 'v=spf1 -all');
      return {};
    },
    found: ['gateway', 'fail', /which is no address/, /the only text there/],
  },
  {
    of: 'an APP_ID of another app',
    made: () => ({ env: { APP_ID: 'ab'.repeat(20) } }),
    found: ['agent', 'warn', /the agent says that this app is/, /take APP_ID away/],
  },
  {
    of: 'CAA for another account',
    made: () => {
      put(CAA, '0 issue "ca.example;accounturi=https://ca.example/account/2"');
      return {};
    },
    found: [
      'caa',
      'fail',
      /its account is not https:\/\/ca\.example\/account\/1/,
      /accounturi=https:\/\/ca\.example\/account\/1/,
    ],
  },
  {
    of: 'CAA that lets every account issue',
    made: () => {
      put(CAA, '0 issue "ca.example"');
      return { env: { SET_CAA: 'false' } };
    },
    found: ['caa', 'warn', /lets every account of the CA issue/, /SET_CAA=true/],
  },
  {
    of: 'a token that the provider refuses',
    made: () => ({ env: asDns01({ CLOUDFLARE_API_TOKEN: 'wrong-token-0123456789-0123456789-012345' }) }),
    found: ['provider', 'fail', /cloudflare/, /CLOUDFLARE_API_TOKEN/],
  },
  {
    of: 'a zone that the token does not reach',
    made: () => ({ env: asDns01({ DOMAIN: 'app.example.org' }) }),
    found: ['provider', 'fail', /example\.org/, /zone/i],
  },
  {
    of: 'a token that may read and not write',
    made: ({ api }) => {
      api.misbehave({
        method: 'POST',
        status: 403,
        body: '{"success":false,"errors":[{"code":10000,"message":"Authentication error"}]}',
      });
      return { env: asDns01(), write: true };
    },
    found: ['provider', 'fail', /Authentication error|403/, /DNS: Edit|token/i],
  },
  {
    of: 'an upstream that does not run',
    made: ({ closedPort }) => ({ env: { TARGET_ENDPOINT: `http://127.0.0.1:${closedPort}` } }),
    found: ['upstreams', 'fail', /127\.0\.0\.1:\d+/, /see whether the app runs/],
  },
  {
    of: 'an upstream whose name nobody knows',
    made: () => ({ env: { TARGET_ENDPOINT: 'http://app.invalid:80' } }),
    found: ['upstreams', 'fail', /resolved/, /name of the service/],
  },
  {
    of: 'TLS behind http://',
    made: ({ tlsPort }) => ({ env: { TARGET_ENDPOINT: `http://127.0.0.1:${tlsPort}` } }),
    found: ['upstreams', 'fail', /speaks TLS/, /write https:\/\//],
  },
  {
    of: 'HTTP/2 behind http://',
    made: ({ http2Port }) => ({ env: { TARGET_ENDPOINT: `http://127.0.0.1:${http2Port}` } }),
    found: ['upstreams', 'fail', /speaks HTTP\/2/, /h2c:\/\//],
  },
  {
    of: 'HTTP/1.1 behind grpc://',
    made: ({ env }) => ({ env: { TARGET_ENDPOINT: env.TARGET_ENDPOINT!.replace('http', 'grpc') } }),
    found: ['upstreams', 'fail', /speaks HTTP\/1\.1, not HTTP\/2/, /write http:\/\//],
  },
  {
    of: 'an upstream whose root is not trusted',
    made: ({ tlsPort }) => ({ env: { TARGET_ENDPOINT: `https://localhost:${tlsPort}` } }),
    found: ['upstreams', 'fail', /certificate/, /UPSTREAM_CA_FILE/],
  },
  {
    of: 'an upstream that is the ingress itself',
    made: () => ({ env: { TARGET_ENDPOINT: 'http://127.0.0.1:8443', PORT: '8443', PUBLIC_PORT: '443' } }),
    found: ['upstreams', 'fail', /leads back to the ingress/, /container of the app/],
  },
];

describe('the doctor', () => {
  test('finds nothing wrong with a sound set-up, whichever challenge is used', async () => {
    await world.restore();
    assert.deepEqual(wrongs(await world.examine({})), []);
    put(TXT, `${world.agent.appId}:443`);
    put(CAA, `0 issue "ca.example;accounturi=${ACCOUNT};validationmethods=dns-01"`);
    const findings = await world.examine(asDns01());
    assert.deepEqual(wrongs(findings), []);
    assert.deepEqual([...new Set(findings.map(({ check }) => check))].sort(), [
      'agent',
      'budget',
      'ca',
      'caa',
      'certificates',
      'clock',
      'configuration',
      'descriptors',
      'disk',
      'folders',
      'gateway',
      'memory',
      'node',
      'provider',
      'resolvers',
      'upstreams',
    ]);
  });

  test('finds nothing wrong before the first start either', async () => {
    await world.restore();
    world.dns.table.delete(TXT);
    world.dns.table.delete(CAA);
    const env = asDns01({
      STATE_DIR: join(world.folder, 'not', 'yet'),
      EVIDENCE_DIR: join(world.folder, 'nor'),
    });
    assert.deepEqual(wrongs(await world.examine(env)), []);
  });

  for (const { of, made, found } of mistakes) {
    test(`finds ${of}`, async () => {
      await world.restore();
      const { env = {}, around = {}, write = false } = await made(world);
      const findings = await world.examine(env, around, write);
      const [check, level, fact, cure] = found;
      const same = findings.filter((one) => one.check === check && one.level === level);
      const match = same.find((one) => fact.test(one.fact) && cure.test(one.cure ?? ''));
      assert.ok(match !== undefined, JSON.stringify(wrongs(findings), null, 2));
      assert.ok(match.subject !== '' && (match.why ?? '') !== '');
    });
  }

  test('changes nothing without --write, and with it leaves nothing behind', async () => {
    await world.restore();
    const before = world.api.contents();
    const start = world.api.writes().length;
    await world.examine(asDns01());
    assert.equal(world.api.writes().length, start);
    const findings = await world.examine(asDns01(), {}, true);
    assert.match(findings.find(({ check }) => check === 'provider')!.fact, /a record was made and removed/);
    assert.equal(world.api.writes().length, start + 2);
    assert.deepEqual(world.api.contents(), before);
  });

  test('a record that it could not remove is named', async () => {
    await world.restore();
    world.api.misbehave({
      method: 'DELETE',
      status: 403,
      body: '{"success":false,"errors":[{"code":10000,"message":"no"}]}',
    });
    const findings = await world.examine(asDns01(), {}, true);
    const found = findings.find(({ check, level }) => check === 'provider' && level === 'fail');
    assert.match(found?.cure ?? '', /^remove it: _dstack-ingress-doctor\.app\.example\.com TXT "doctor-/);
  });

  test('its report counts, and says of each trouble why and what to do', async () => {
    await world.restore();
    const findings = await world.examine({ EVIDENCE_PORT: '1', TARGET_ENDPOINT: 'http://app.invalid:80' });
    const report = reportOf(findings, new Date(0));
    assert.deepEqual([report.totals.warn, report.totals.fail, report.at], [1, 1, '1970-01-01T00:00:00.000Z']);
    const text = describeReport(report);
    assert.match(text, /^fail {2}upstreams {6}http:\/\/app\.invalid:80: .*\n {21}why: .*\n {21}do: {2}.*\n/m);
    assert.match(text, /\n\d+ ok, 1 to look at, 1 wrong\n$/);
  });

  test('shows no secret, whatever is wrong', async () => {
    await world.restore();
    const secret = 'hunter2-hunter2-hunter2-hunter2-hunter2';
    const text = describeReport(
      reportOf(await world.examine(asDns01({ CLOUDFLARE_API_TOKEN: secret })), new Date()),
    );
    assert.ok(!text.includes('hunter2'));
  });

  test('at a start it says what is wrong with this machine, and nothing where nothing is', async () => {
    await world.restore();
    const lines: Record<string, unknown>[] = [];
    const stream = {
      write: (line: string) => void lines.push(JSON.parse(line)),
    } as unknown as NodeJS.WritableStream;
    const log = createLog({ stream, readable: false });
    const config = readConfig(world.env);
    const { machine: sound, disk: enough } = world.surroundings;
    await tellFindings(config, log, sound, enough);
    assert.deepEqual(lines, []);
    const full = { ...enough, room: async () => ({ bytes: 0, files: 0 }) };
    await tellFindings(config, log, { ...sound, nodeVersion: '24.13.0' }, full);
    assert.deepEqual(
      lines.map(({ level, msg, check }) => [level, msg, check]),
      [
        ['warn', 'the doctor found something to look at', 'node'],
        ['error', 'the doctor found something wrong', 'disk'],
        ['error', 'the doctor found something wrong', 'disk'],
      ],
    );
    assert.ok(lines.every(({ cure, why, fact }) => cure && why && fact));
  });
});
