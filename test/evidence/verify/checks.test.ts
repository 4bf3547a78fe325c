// Every check, by hosts that lie in one place: that check fails and no other, and an honest host passes all of them.

import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { historyLine } from '../../../evidence/history.ts';
import type { Statement } from '../../../evidence/statement.ts';
import {
  adviceOn,
  type CheckId,
  checkIds,
  type Expected,
  reportOf,
  type Verdicts,
  type Verification,
  type VerifyOptions,
  verify,
} from '../../../evidence/verify/index.ts';
import { createSimulatedProcessor, type SimulatedPlatform } from '../../../src/demo/simulated-quote.ts';
import {
  ACCOUNT,
  createEvidenceWorld,
  type EvidenceHost,
  everywhere,
  HOST,
  type Lie,
  machine,
  PIN,
  sha256,
  startEvidenceHost,
  type World,
} from '../../support/evidence-host.ts';

const DAY_MS = 86_400_000;

interface Case {
  readonly title: string;
  /** The only check that fails; undefined: none does. */
  readonly fails?: CheckId;
  /** Among those that could not be run. */
  readonly open?: readonly CheckId[];
  readonly lie?: (world: World) => Lie | Promise<Lie>;
  readonly expected?: (honest: Expected) => Expected;
  readonly options?: (host: EvidenceHost) => Partial<VerifyOptions>;
}

const platform = (simulated: SimulatedPlatform) => async (): Promise<Lie> => ({
  processor: await createSimulatedProcessor(simulated),
});
const file = (
  name: string,
  change: (honest: string) => ReturnType<NonNullable<NonNullable<Lie['files']>[string]>>,
): Lie => ({
  files: { [name]: change },
});
const json = (name: string, change: (honest: Record<string, unknown>) => unknown): Lie =>
  file(name, (honest) => JSON.stringify(change(JSON.parse(honest) as Record<string, unknown>)));
const caa = (...values: string[]): Lie => {
  const table = { [`CAA ${HOST}`]: values, [`TXT ${HOST}`]: ['there'] };
  return { dns: { first: table, second: table, authority: table } };
};
/** A second value under a name that is there already. */
const twice = (name: string, honest: string, value: string) => honest.replace('{', `{"${name}":${value},`);
const spotted = (change: object) => (honest: object[]) => [...honest, { ...honest[0], id: '2', ...change }];

const cases: readonly Case[] = [
  { title: 'an honest host' },

  {
    title: 'a certificate of a CA that is not trusted',
    fails: 'tls.chain',
    lie: async () => {
      const other = await createEvidenceWorld();
      return { served: [other.served], published: other.served };
    },
  },
  {
    title: 'a certificate that has expired',
    fails: 'tls.chain',
    lie: async ({ ca }) => {
      const old = await ca.issue([HOST], { until: new Date(Date.now() - DAY_MS) });
      return { served: [old], published: old };
    },
  },
  {
    title: 'a certificate for another name',
    fails: 'tls.chain',
    lie: async ({ ca }) => {
      const other = await ca.issue(['other.example']);
      return { served: [other], published: other };
    },
  },
  {
    title: 'a certificate that another certificate has signed, which is no authority',
    fails: 'tls.chain',
    lie: async ({ ca, served }) => {
      const below = await ca.issue([HOST], { by: served });
      return { served: [below], published: below };
    },
  },
  {
    title: 'another key on the second connection',
    fails: 'tls.pinned',
    lie: async ({ ca, served }) => ({ served: [served, await ca.issue([HOST])] }),
  },

  {
    title: 'no quote.json',
    fails: 'bundle.fetch',
    open: ['bundle.format', 'quote.signature', 'quote.binding', 'log.replay', 'app.id'],
    lie: () => ({ files: { 'quote.json': undefined } }),
  },
  {
    title: 'no sums',
    fails: 'bundle.fetch',
    open: ['bundle.format', 'bundle.sums', 'bundle.leaf'],
    lie: () => ({ files: { 'sha256sum.txt': undefined } }),
  },
  {
    title: 'sums that are somewhere else',
    fails: 'bundle.fetch',
    lie: () => file('sha256sum.txt', () => ({ status: 302, headers: { location: '/elsewhere' } })),
  },
  {
    title: 'an account of more than a mebibyte',
    fails: 'bundle.fetch',
    lie: () => file('acme-account.json', () => Buffer.alloc(1024 * 1024 + 1, ' ')),
  },
  {
    title: 'a head without end',
    fails: 'bundle.fetch',
    lie: () => file('acme-account.json', (body) => ({ body, headers: { x: 'a'.repeat(100_000) } })),
  },
  {
    title: 'a host that asks for patience',
    open: ['bundle.fetch', 'bundle.format', 'bundle.sums', 'bundle.leaf', 'quote.signature'],
    lie: () => file('sha256sum.txt', () => ({ status: 503 })),
  },
  {
    title: 'a file that breaks off',
    open: ['bundle.fetch', 'bundle.sums'],
    lie: () => file('acme-account.json', (honest) => ({ body: honest, how: 'cut' })),
  },
  {
    title: 'sums of another grammar',
    fails: 'bundle.format',
    lie: () => ({ sums: (honest) => honest.replaceAll('  ', ' : ') }),
  },
  {
    title: 'sums that list a name twice',
    fails: 'bundle.format',
    lie: () => ({ sums: (honest) => `${honest}${honest.split('\n')[0]}\n` }),
  },
  {
    title: 'sums that name a file elsewhere',
    fails: 'bundle.format',
    lie: () => ({ sums: (honest) => `${honest}${'0'.repeat(64)}  ../secret\n` }),
  },
  {
    title: 'a quote.json that is none',
    fails: 'bundle.format',
    open: ['quote.collateral', 'quote.binding', 'log.replay'],
    lie: () => file('quote.json', () => '{"quote":'),
  },
  {
    title: 'JSON of a hundred thousand levels',
    fails: 'bundle.format',
    lie: () => file('quote.json', () => `{"quote":${'['.repeat(100_000)}${']'.repeat(100_000)}}`),
  },
  {
    title: 'a report_data beside the quote that is not that of the quote',
    fails: 'bundle.format',
    lie: () => json('quote.json', (honest) => ({ ...honest, report_data: 'ab'.repeat(64) })),
  },
  {
    title: 'a quote of an SGX enclave',
    fails: 'bundle.format',
    lie: () =>
      json('quote.json', (honest) => ({
        ...honest,
        quote: `0300020000000000${String(honest.quote).slice(16)}`,
      })),
  },
  {
    title: 'a quote of a TEE that is not known',
    fails: 'bundle.format',
    lie: () =>
      json('quote.json', (honest) => ({
        ...honest,
        quote: `0400020082000000${String(honest.quote).slice(16)}`,
      })),
  },
  {
    title: 'a quote.json with two quotes',
    fails: 'bundle.format',
    lie: () => file('quote.json', (honest) => twice('quote', honest, '"00"')),
  },
  {
    title: 'a quote.json that came compressed, unasked',
    fails: 'bundle.format',
    lie: () =>
      file('quote.json', (body) => ({ body: gzipSync(body), headers: { 'content-encoding': 'gzip' } })),
  },
  {
    title: 'an account that is none',
    fails: 'bundle.format',
    lie: () => {
      const account = '{"uri":"nobody"}';
      const sums = (honest: string) => honest.replace(/^\w+(?= {2}acme-account)/, sha256(account));
      return { sums, files: { 'acme-account.json': () => account } };
    },
  },
  {
    title: 'an account that is not the one in the sums',
    fails: 'bundle.sums',
    open: ['caa.account', 'statement.content'],
    lie: () => json('acme-account.json', () => ({ body: {}, uri: `${ACCOUNT}2` })),
  },
  {
    title: 'sums without the account',
    fails: 'bundle.sums',
    lie: () => ({ sums: (honest) => honest.split('\n').slice(1).join('\n') }),
  },
  {
    title: 'sums without the certificate',
    fails: 'bundle.sums',
    open: ['bundle.leaf'],
    lie: () => ({ sums: (honest) => `${honest.split('\n')[0]}\n` }),
  },
  {
    title: 'another certificate of the same key in the evidence',
    fails: 'bundle.leaf',
    lie: async ({ ca, served }) => ({ published: await ca.issue([HOST], { like: served }) }),
  },

  {
    title: 'collateral that has run out',
    fails: 'quote.collateral',
    open: ['statement.quote', 'attest.quote'],
    lie: platform({ dates: { tcbInfo: { until: new Date(Date.now() - DAY_MS) } } }),
  },
  {
    title: 'a quote that nobody has signed',
    fails: 'quote.signature',
    open: ['statement.quote', 'attest.quote'],
    lie: platform({ forged: ['quote'] }),
  },
  {
    title: 'a processor that is revoked',
    fails: 'quote.revocation',
    lie: platform({ revoked: ['pck'] }),
  },
  {
    title: 'a platform that is out of date',
    fails: 'quote.tcb',
    lie: platform({ tcb: { platform: { status: 'OutOfDate' } } }),
  },
  {
    title: 'a platform that is out of date, by a reader who allows it',
    lie: platform({ tcb: { platform: { status: 'OutOfDate' } } }),
    expected: (honest) => ({ ...honest, tcb: ['UpToDate', 'OutOfDate'] }),
  },
  {
    title: 'a machine that may be debugged',
    fails: 'quote.attributes',
    lie: platform({ td: { tdAttributes: '0100001000000000' } }),
  },
  {
    title: 'no collateral to be had',
    open: [
      'quote.collateral',
      'quote.signature',
      'quote.revocation',
      'quote.tcb',
      'statement.quote',
      'attest.quote',
    ],
    options: () => ({ collateral: () => Promise.reject(new Error('none')) }),
  },
  {
    title: 'sums that say the same in other letters than the quote is for',
    fails: 'quote.binding',
    lie: () => file('sha256sum.txt', (honest) => honest.replace(/^\w+/gm, (hex) => hex.toUpperCase())),
  },

  {
    title: 'a log with another app in it',
    fails: 'log.replay',
    open: ['log.system', 'app.id', 'app.compose', 'app.config', 'key.provider', 'attest.identity'],
    lie: () =>
      json('quote.json', (honest) => ({
        ...honest,
        event_log: String(honest.event_log).replace(machine.appId, 'b2'.repeat(20)),
      })),
  },
  {
    title: 'a log that is no list',
    fails: 'log.replay',
    lie: () => json('quote.json', (honest) => ({ ...honest, event_log: '{}' })),
  },
  {
    title: 'a machine that measured two app ids',
    fails: 'log.system',
    open: ['app.id'],
    lie: () => ({ machine: { more: [['app-id', 'b2'.repeat(20)]] } }),
  },
  { title: 'another app', fails: 'app.id', lie: () => everywhere({ appId: 'b2'.repeat(20) }) },
  {
    title: 'another compose file',
    fails: 'app.compose',
    lie: () => everywhere({ composeHash: 'b2'.repeat(32) }),
  },
  {
    title: 'a machine that was started for another compose file',
    fails: 'app.config',
    lie: () => everywhere({ mrConfigId: `01${'b2'.repeat(32)}${'00'.repeat(15)}` }),
  },
  {
    title: 'an MRCONFIGID of a version to come',
    open: ['app.config'],
    lie: () => everywhere({ mrConfigId: `09${'b2'.repeat(32)}${'00'.repeat(15)}` }),
  },
  { title: 'an MRCONFIGID of zeros', lie: () => everywhere({ mrConfigId: '00'.repeat(48) }) },
  { title: 'another firmware', fails: 'os.image', lie: () => everywhere({ mrTd: 'b2'.repeat(48) }) },
  {
    title: 'another source of keys',
    fails: 'key.provider',
    lie: () => everywhere({ keyProvider: '{"name":"kms","id":"f00d"}' }),
  },
  {
    title: 'a reader who expects nothing',
    open: ['app.id', 'app.compose', 'os.image', 'key.provider'],
    expected: ({ ca, quoteRoot }) => ({ ca, quoteRoot }),
  },

  {
    title: 'a statement that was changed after its quote',
    fails: 'statement.quote',
    open: ['statement.content', 'statement.history', 'caa.method', 'ct.history'],
    lie: () =>
      json('attestation.json', (honest) => ({
        ...honest,
        statement: { ...(honest.statement as object), revision: 'another' },
      })),
  },
  {
    title: 'a statement whose quote nobody has signed',
    fails: 'statement.quote',
    lie: async () => ({ statedBy: await createSimulatedProcessor({ forged: ['quote'] }) }),
  },
  {
    title: 'a statement of other fields',
    fails: 'statement.quote',
    lie: () => file('attestation.json', () => '{}'),
  },
  {
    title: 'no statement and no history',
    open: ['statement.quote', 'statement.content', 'statement.history', 'caa.method', 'ct.history'],
    lie: () => ({ files: { 'attestation.json': undefined, 'history.jsonl': undefined } }),
  },
  {
    title: 'a statement that another app has had quoted',
    fails: 'statement.quote',
    lie: () => ({ stated: { appId: 'b2'.repeat(20) } }),
  },
  {
    title: 'a statement beside the log of another machine',
    fails: 'statement.quote',
    lie: () => json('attestation.json', (honest) => ({ ...honest, event_log: '[]' })),
  },
  {
    title: 'an attestation.json with two statements',
    fails: 'statement.quote',
    lie: () => file('attestation.json', (honest) => twice('statement', honest, '{}')),
  },
  {
    title: 'a statement for a host that only looks the same',
    fails: 'statement.content',
    lie: () => ({ statement: (honest) => ({ ...honest, domains: [HOST.replace('o', '\u043e')] }) }),
  },
  {
    title: 'a statement for another host',
    fails: 'statement.content',
    lie: () => ({ statement: (honest) => ({ ...honest, domains: ['other.example'] }) }),
  },
  {
    title: 'a statement with another account',
    fails: 'statement.content',
    lie: () => ({
      statement: (honest) => ({ ...honest, account: { ...honest.account, uri: `${ACCOUNT}2` } }),
    }),
  },
  {
    title: 'a history without its first statement',
    fails: 'statement.history',
    open: ['ct.history'],
    lie: () => file('history.jsonl', (honest) => honest.slice(honest.indexOf('\n') + 1)),
  },
  {
    title: 'a history that ends before the statement',
    fails: 'statement.history',
    lie: () => file('history.jsonl', (honest) => honest.slice(0, honest.indexOf('\n') + 1)),
  },
  {
    title: 'a history that was forked',
    fails: 'statement.history',
    lie: () => ({
      files: {
        'history.jsonl': (honest) => {
          const [first, last] = honest.trimEnd().split('\n');
          const { previous } = JSON.parse(last!) as { previous: string };
          const other = { ...(JSON.parse(first!) as Statement), revision: 'another', previous };
          return `${first}\n${historyLine(other)}${last}\n`;
        },
      },
    }),
  },
  {
    title: 'a history in another form than the canonical one',
    fails: 'statement.history',
    lie: () => file('history.jsonl', (honest) => honest.replace('{"', '{ "')),
  },
  {
    title: 'a history that is not UTF-8',
    fails: 'statement.history',
    lie: () => file('history.jsonl', (honest) => Buffer.concat([Buffer.from(honest), Buffer.of(0xff, 0x0a)])),
  },

  {
    title: 'a fresh quote that nobody has signed',
    fails: 'attest.quote',
    lie: async () => ({ attest: { processor: await createSimulatedProcessor({ forged: ['quote'] }) } }),
  },
  {
    title: 'a path that leads elsewhere',
    fails: 'attest.quote',
    lie: () => ({ attest: { answer: (honest) => ({ ...honest, path: [] }) } }),
  },
  {
    title: 'a path of 33 steps',
    fails: 'attest.quote',
    open: ['attest.nonce', 'attest.exporter', 'attest.key', 'attest.identity'],
    lie: () => ({
      attest: {
        answer: (honest) => ({ ...honest, path: Array(33).fill({ side: 'left', hash: '0'.repeat(64) }) }),
      },
    }),
  },
  {
    title: 'nonsense for a fresh quote',
    fails: 'attest.quote',
    lie: () => ({ attest: { reply: 'nonsense' } }),
  },
  {
    title: 'a fresh quote that is somewhere else',
    fails: 'attest.quote',
    lie: () => ({ attest: { reply: { status: 307, headers: { location: 'https://elsewhere.example/' } } } }),
  },
  {
    title: 'an answer with two nonces',
    fails: 'attest.quote',
    lie: () => ({ attest: { answer: (honest) => twice('nonce', JSON.stringify(honest), '"00"') } }),
  },
  {
    title: 'no fresh quotes',
    open: ['attest.quote', 'attest.nonce', 'attest.exporter', 'attest.key', 'attest.identity'],
    lie: () => ({ attest: { reply: { status: 404 } } }),
  },
  {
    title: 'a host too busy for fresh quotes',
    open: ['attest.quote', 'attest.nonce', 'attest.exporter', 'attest.key', 'attest.identity'],
    lie: () => ({ attest: { reply: { status: 429, headers: { 'retry-after': '3600' } } } }),
  },
  {
    title: 'a host that speaks TLS 1.2 alone',
    open: ['attest.quote', 'attest.exporter'],
    lie: () => ({ tls: { maxVersion: 'TLSv1.2' } }),
  },
  {
    title: 'a fresh quote for another nonce',
    fails: 'attest.nonce',
    lie: () => ({ attest: { claims: (honest) => ({ ...honest, nonce: '00'.repeat(32) }) } }),
  },
  {
    title: 'a fresh quote for another connection',
    fails: 'attest.exporter',
    lie: () => ({ attest: { claims: (honest) => ({ ...honest, exporter: '00'.repeat(32) }) } }),
  },
  {
    title: 'claims that are signed with another key',
    fails: 'attest.key',
    lie: async ({ ca }) => ({ attest: { key: createPrivateKey((await ca.issue([HOST])).key) } }),
  },
  {
    title: 'claims of another key',
    fails: 'attest.key',
    lie: () => ({ attest: { claims: (honest) => ({ ...honest, spki: '00'.repeat(32) }) } }),
  },
  {
    title: 'a fresh quote of another instance',
    fails: 'attest.identity',
    lie: () => ({ attest: { machine: { instanceId: 'b2'.repeat(20) } } }),
  },

  {
    title: 'resolvers that disagree',
    fails: 'dns.agreement',
    open: ['dns.authority', 'caa.present', 'caa.account', 'caa.method'],
    lie: () => ({ dns: { second: { [`CAA ${HOST}`]: ['0 issue "other.example"'] } } }),
  },
  {
    title: 'resolvers that send visitors to two apps',
    fails: 'dns.agreement',
    lie: () => ({ dns: { second: { [`TXT _dstack-app-address.${HOST}`]: ['elsewhere:443'] } } }),
  },
  {
    title: 'one resolver that answers',
    open: ['dns.agreement'],
    lie: () => ({ dns: { silent: 'second' } }),
  },
  {
    title: 'a zone that says something else than the resolvers',
    fails: 'dns.authority',
    lie: () => ({ dns: { authority: { [`CAA ${HOST}`]: ['0 issue "other.example"'] } } }),
  },
  {
    title: 'a zone that does not answer',
    open: ['dns.authority'],
    lie: () => ({ dns: { silent: 'authority' } }),
  },
  { title: 'no CAA record', fails: 'caa.present', open: ['caa.account', 'caa.method'], lie: () => caa() },
  {
    title: 'a CAA record that is about mail alone',
    fails: 'caa.present',
    lie: () => caa('0 iodef "mailto:ca@example.com"'),
  },
  {
    title: 'a CAA record for every account of the CA',
    fails: 'caa.account',
    lie: () => caa('0 issue "ca.example; validationmethods=tls-alpn-01"'),
  },
  {
    title: 'a CAA record for another CA beside ours',
    fails: 'caa.account',
    lie: () => caa(PIN, PIN.replace('ca.example;', 'other.example;')),
  },
  {
    title: 'a CAA record for another account beside ours',
    fails: 'caa.account',
    lie: () => caa(PIN, PIN.replace(ACCOUNT, `${ACCOUNT}2`)),
  },
  {
    title: 'a CAA record that forbids wildcards beside ours, and one about mail',
    lie: () => caa(PIN, '0 issuewild ";"', '0 iodef "mailto:ca@example.com"'),
  },
  {
    title: 'a CAA record for every method',
    fails: 'caa.method',
    lie: () => caa(`0 issue "ca.example; accounturi=${ACCOUNT}"`),
  },
  {
    title: 'a CAA record for one more method',
    fails: 'caa.method',
    lie: () => caa(PIN.replace('tls-alpn-01', 'tls-alpn-01,http-01')),
  },

  {
    title: 'one source of certificate logs',
    open: ['ct.sources'],
    lie: () => ({ ct: { crtsh: { status: 502 } } }),
  },
  {
    title: 'a source that answers with nonsense',
    open: ['ct.sources'],
    lie: () => ({ ct: { crtsh: '<html>' } }),
  },
  {
    title: 'a source whose pages never end',
    open: ['ct.sources'],
    lie: () => ({
      ct: {
        certSpotter: JSON.stringify([
          { id: '1', pubkey_sha256: '0'.repeat(64), not_after: '2030-01-01T00:00:00Z' },
        ]),
      },
    }),
  },
  {
    title: 'no source of certificate logs',
    open: ['ct.sources', 'ct.logged', 'ct.history'],
    lie: () => ({ ct: { certSpotter: { status: 429 }, crtsh: { status: 502 } } }),
  },
  {
    title: 'a certificate that is in no log',
    fails: 'ct.logged',
    lie: () => ({ ct: { certSpotter: () => [], crtsh: () => [] } }),
  },
  {
    title: 'a certificate of this morning that is in no log yet',
    open: ['ct.logged'],
    lie: async ({ ca }) => {
      const young = await ca.issue([HOST], { from: new Date(Date.now() - DAY_MS / 24) });
      return { served: [young], published: young, ct: { certSpotter: () => [], crtsh: () => [] } };
    },
  },
  {
    title: 'a certificate of somebody else, by its key',
    fails: 'ct.history',
    lie: () => ({ ct: { certSpotter: spotted({ pubkey_sha256: 'ab'.repeat(32) }) } }),
  },
  {
    title: 'a certificate of somebody else, by its serial',
    fails: 'ct.history',
    lie: () => ({ ct: { crtsh: spotted({ id: 12, serial_number: 'abcd' }) } }),
  },
  {
    title: 'a certificate of somebody else with a serial of ours, which ends at another time',
    fails: 'ct.history',
    lie: () => ({ ct: { crtsh: spotted({ id: 12, not_after: '2099-01-01T00:00:00' }) } }),
  },
  {
    title: 'a certificate of somebody else for the name in capitals',
    fails: 'ct.history',
    lie: () => ({
      ct: { certSpotter: spotted({ pubkey_sha256: 'ab'.repeat(32), dns_names: [HOST.toUpperCase()] }) },
    }),
  },
  {
    title: 'a certificate of somebody else that a reader knows of',
    lie: () => ({ ct: { crtsh: spotted({ id: 12, serial_number: '00abcd' }) } }),
    expected: (honest) => ({ ...honest, ct: { known: ['ABCD'] } }),
  },
  {
    title: 'a certificate of somebody else that has expired',
    lie: () => ({
      ct: { certSpotter: spotted({ pubkey_sha256: 'ab'.repeat(32), not_after: '2020-01-01T00:00:00Z' }) },
    }),
  },
];

const impatient = { now: () => new Date(), sleep: async () => {} };

let world: World;
const results = new Map<Case, Verification>();

before(async () => {
  world = await createEvidenceWorld();
});

/** One line for each check that is not as the case says. */
function surprises({ fails, open = [] }: Case, checks: Verification['checks']): string[] {
  return checks.flatMap(({ id, verdict, reason }) => {
    const line = `${id}: ${verdict}: ${reason}`;
    if (reason === '') return [`${id} gives no reason`];
    if (id === fails) return verdict === 'fail' ? [] : [line];
    if (open.includes(id)) return verdict === 'not-run' ? [] : [line];
    return verdict === 'fail' ? [line] : [];
  });
}

describe('of a host with', () => {
  for (const one of cases) {
    test(`${one.title}, ${one.fails === undefined ? 'no check fails' : `${one.fails} fails alone`}`, async () => {
      const host = await startEvidenceHost(world, (await one.lie?.(world)) ?? {});
      try {
        const expected = one.expected?.(host.options.expected) ?? host.options.expected;
        const found = await verify({
          ...host.options,
          clock: impatient,
          ...one.options?.(host),
          expected,
        });
        results.set(one, found);
        assert.deepEqual(surprises(one, found.checks), []);
        assert.deepEqual(
          found.checks.map(({ id }) => id),
          checkIds,
        );
        if (one.fails === undefined && one.open === undefined)
          assert.deepEqual(
            found.checks.filter(({ verdict }) => verdict !== 'pass'),
            [],
          );
        assert.equal(found.verdict, one.fails ? 'fail' : one.open ? 'unknown' : 'pass');
      } finally {
        await host.close();
      }
    });
  }
});

describe('the cases above', () => {
  /** Never fails: a source that is missing proves nothing against a host. */
  const neverFails: CheckId = 'ct.sources';

  after(() => results.clear());

  for (const id of checkIds) {
    test(`notice when ${id} is blind`, () => {
      const noticed = [...results].filter(([one, found]) => {
        const blind = Object.fromEntries(
          found.checks.map((check) => [
            check.id,
            check.id === id ? { verdict: 'pass', reason: 'blind' } : check,
          ]),
        ) as Verdicts;
        return surprises(one, reportOf(blind).checks).length > 0;
      });
      assert.ok(noticed.length > 0);
      if (id !== neverFails) assert.ok(noticed.some(([one]) => one.fails === id));
    });
  }

  test('are told with what they mean, and what to do', () => {
    for (const id of checkIds) {
      const { means, cure } = adviceOn(id);
      assert.ok(means.length > 20 && cure.length > 10, id);
    }
  });
});
