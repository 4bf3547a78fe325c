// FLEET=derived, without its network: who orders of those that mean to at once, and which key a certificate has.

import assert from 'node:assert/strict';
import { createHash, X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { type Issuer, IssuerError } from '../../acme/issuer.ts';
import type { DnsRecord } from '../../dns/provider.ts';
import { createDerivedKeys } from '../../src/derived-keys.ts';
import { createIssuerInTurn } from '../../src/derived-turns.ts';
import type { Certificate } from '../../src/lib/certificate.ts';
import { type Domain, parseDomain } from '../../src/lib/domain.ts';
import { silentLog } from '../../src/lib/log.ts';
import { makeCertificate } from '../support/certificates.ts';

const domain = parseDomain('a.example');

/** What replicas have in common: DNS, the public name, and a CA. */
function world() {
  const records: DnsRecord[] = [];
  const served: Certificate[] = [];
  let orders = 0;
  const beat = () => new Promise((resolve) => setTimeout(resolve, Math.random() * 5));
  const replica = (order: () => Promise<Certificate>) => {
    const own: Certificate[] = [];
    const issuer: Issuer = {
      async obtain() {
        orders += 1;
        await beat();
        return order();
      },
    };
    const inTurn = createIssuerInTurn({
      issuer,
      peers: { served: async () => served.at(-1) },
      provider: {
        async list(name) {
          await beat();
          return records.filter((each) => each.name === name);
        },
        async add(record) {
          await beat();
          records.push(record);
        },
        remove: async ({ value }) => {
          const at = records.findIndex((each) => each.value === value);
          if (at >= 0) records.splice(at, 1);
        },
      },
      store: {
        readCertificates: async () => own,
        addChallenge: async () => {},
        dropChallenge: async () => {},
      },
      pauseMs: 20,
      log: silentLog,
    });
    return async (replaces?: string) => {
      const obtained = await inTurn.obtain([domain], AbortSignal.timeout(30_000), { replaces });
      own.push(obtained);
      served.push(obtained);
      return obtained;
    };
  };
  return { replica, served, records, orders: () => orders };
}

test('of four that have nothing and begin at once one orders, and all have what it obtained', async () => {
  const { replica, orders } = world();
  const obtained = await Promise.all([1, 2, 3, 4].map(() => replica(() => makeCertificate(domain))()));
  assert.equal(orders(), 1);
  assert.equal(new Set(obtained.map(({ serial }) => serial)).size, 1);
});

test('who orders in vain gives his turn back at once', async () => {
  const { replica, records, orders } = world();
  const failing = replica(async () => {
    throw new IssuerError('order-failed', 'the CA refused it');
  });
  await assert.rejects(failing(), { code: 'order-failed' });
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual(records, []);
  await replica(() => makeCertificate(domain))();
  assert.equal(orders(), 2);
});

test('who comes second at the CA takes the certificate of the first, once he finds it', async () => {
  const { replica, served } = world();
  const first = await makeCertificate(domain);
  const late = replica(async () => {
    setTimeout(() => served.push(first), 50);
    throw new IssuerError('replaced-elsewhere', 'another replica has ordered this renewal');
  });
  assert.equal((await late('an identifier')).serial, first.serial);
});

test('a certificate’s key is found again by its date, is another one a month later, and fits no foreign certificate', async () => {
  const asked: string[] = [];
  const keys = createDerivedKeys(
    {
      async deriveKey(path) {
        asked.push(path);
        return { key: createHash('sha256').update(path).digest(), signatureChain: [] };
      },
    },
    'https://ca.example/dir',
  );
  const names: Domain[] = [domain];
  const at = new Date();
  const key = await keys.keyAt(names, at);
  assert.equal(await keys.keyAt(names, at), key);
  assert.notEqual(await keys.keyAt(names, new Date(at.getTime() + 30 * 86_400_000)), key);
  assert.notEqual(await keys.keyAt([parseDomain('b.example')], at), key);
  const foreign = await makeCertificate(domain);
  assert.equal(await keys.keyOf(names, new X509Certificate(foreign.chain)), undefined);
  assert.ok(asked.every((path) => path.startsWith('dstack-ingress/certificate/v1/ca.example/dir/')));
});
