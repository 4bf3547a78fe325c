// What is served last is what was asked for last, however requests, workers and the agent overlap.

import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import fc from 'fast-check';
import { type Bundle, fileOf } from '../../evidence/bundle.ts';
import { createDeployment, type DeploymentParts } from '../../src/deployment.ts';
import { createPublisher } from '../../src/evidence-publisher.ts';
import type { Certificate } from '../../src/lib/certificate.ts';
import { type Domain, parseDomain } from '../../src/lib/domain.ts';
import { silentLog } from '../../src/lib/log.ts';
import type { RoutingPlan } from '../../src/routes/plan.ts';
import { recordedLog } from '../acme/support.ts';
import { makeCertificate, weakCertificate } from '../support/certificates.ts';
import { sampleAttestation } from '../support/statements.ts';

const names = ['a.example', 'b.example', 'c.example'] as const;
type Name = (typeof names)[number];
/** By name, the oldest first. */
const versions = new Map<Name, Certificate[]>();
before(async () => {
  for (const name of names) {
    versions.set(name, await Promise.all(Array.from({ length: 6 }, () => makeCertificate(name))));
  }
});

function planOf(...hosts: Name[]): RoutingPlan {
  const domains = hosts.map(parseDomain);
  const routes = hosts.map((host) => ({ host })) as unknown as RoutingPlan['routes'];
  const certificates = domains.map((each) => [each] as Domain[]);
  return { domains, certificates, routes, rules: undefined };
}

const statementFile = fileOf('attestation.json', 'application/json', '{}', 'a statement');

const hostsOf = (plan: Pick<RoutingPlan, 'routes'>) => plan.routes.map(({ host }) => host);
const serials = (certificates: readonly Certificate[]) => certificates.map(({ serial }) => serial);

/** Parts that do at once what they are told, and note it. */
function plainParts(parts: Partial<DeploymentParts> = {}) {
  const routes: string[][] = [];
  const served: string[][] = [];
  const all: DeploymentParts = {
    setRoutes: async (next) => void routes.push(hostsOf({ routes: next })),
    setCertificates: async (next) => void served.push(serials(next)),
    publisher: { deploy: (_, swap) => swap() },
    log: silentLog,
    ...parts,
  };
  return { routes, served, all };
}

type Step =
  | { readonly kind: 'plan'; readonly hosts: readonly Name[] }
  | { readonly kind: 'renewal'; readonly name: Name }
  | { readonly kind: 'account'; readonly number: number };
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    kind: fc.constant('plan' as const),
    hosts: fc.subarray(names.slice(1)).map((more) => [names[0], ...more]),
  }),
  fc.record({ kind: fc.constant('renewal' as const), name: fc.constantFrom(...names) }),
  fc.record({ kind: fc.constant('account' as const), number: fc.nat(3) }),
);

test('in whatever order workers and agent answer, the newest plan and the newest certificates are served last, and the evidence is about them', async () => {
  await fc.assert(
    fc.asyncProperty(fc.scheduler(), fc.array(step, { minLength: 1, maxLength: 8 }), async (s, steps) => {
      let routes: string[] = [];
      let served: readonly Certificate[] = [];
      let shown: Bundle | undefined;
      let written: Bundle | undefined;
      const publisher = createPublisher({
        build: s.scheduleFunction(async (account, certificates) => bundleOf(account.uri, certificates)),
        statements: {
          draft: s.scheduleFunction(async () => sampleAttestation()),
          commit: s.scheduleFunction(async () => [statementFile]),
        },
        write: s.scheduleFunction(async (bundle) => {
          written = bundle;
        }),
        // Workers take what they are sent in the order in which it is sent.
        serve: (bundle) => {
          shown = bundle;
          return s.schedule(Promise.resolve());
        },
        log: silentLog,
        clock: { now: () => new Date(0), sleep: (_, signal) => untilAborted(signal) },
      });
      const deployment = createDeployment(planOf('a.example'), {
        setRoutes: s.scheduleFunction(async (next) => {
          routes = hostsOf({ routes: next });
        }),
        setCertificates: s.scheduleFunction(async (next) => {
          served = next;
        }),
        publisher,
        log: silentLog,
      });
      // The disk, which a renewal writes before anybody asks anew.
      const stored = new Map(names.map((name) => [name, versions.get(name)![0]!]));
      const issued = new Map(names.map((name) => [name, 0]));
      const stale = names.map((name) => versions.get(name)![0]!);
      let last: readonly Name[] = ['a.example'];
      let account = 'https://ca.example/0';
      publisher.setAccount({ uri: account });
      const stop = new AbortController();
      const run = publisher.run(stop.signal);
      const asked: Promise<void>[] = [deployment.follow(planOf('a.example'), [...stored.values()])];
      const take = async (each: Step) => {
        if (each.kind === 'plan') {
          last = each.hosts;
          asked.push(deployment.follow(planOf(...each.hosts), [...stored.values()]));
        } else if (each.kind === 'renewal') {
          const count = Math.min(issued.get(each.name)! + 1, 5);
          issued.set(each.name, count);
          const fresh = versions.get(each.name)![count]!;
          stored.set(each.name, fresh);
          // A manager of an older plan knows the others as they were.
          asked.push(
            deployment.offer([...stale.filter(({ names: [first] }) => first !== each.name), fresh], fresh),
          );
        } else {
          account = `https://ca.example/${each.number}`;
          publisher.setAccount({ uri: account });
        }
      };
      s.scheduleSequence(steps.map((each) => ({ label: each.kind, builder: () => take(each) })));
      await s.waitIdle();
      await Promise.all(asked);
      await s.waitIdle();
      assert.deepEqual(routes, last);
      assert.deepEqual(serials(served), serials(last.map((name) => stored.get(name)!)));
      const expected = bundleOf(account, served).builtAt;
      assert.equal(shown?.builtAt, expected);
      assert.equal(written?.builtAt, expected);
      assert.deepEqual(written?.files, [statementFile]);
      stop.abort();
      await s.waitIdle();
      await run;
    }),
    { numRuns: 200 },
  );
});

/** What it is about stands in its date. */
function bundleOf(account: string, certificates: readonly Certificate[]): Bundle {
  const builtAt = `${account} ${serials(certificates)}`;
  return { files: [], certificates: {}, leaves: [], reportData: '', builtAt };
}

/** Patience without end: nobody is late here. */
function untilAborted(signal: AbortSignal | undefined): Promise<void> {
  return new Promise((_, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    signal?.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}

test('what the workers refuse is refused to who asked, and does not come along with the next', async () => {
  const [bad, good] = [versions.get('a.example')![0]!, versions.get('b.example')![0]!];
  const { all, served } = plainParts();
  const deployment = createDeployment(planOf('a.example', 'b.example'), {
    ...all,
    async setCertificates(next) {
      if (next.includes(bad)) throw new Error('a worker refused');
      await all.setCertificates(next);
    },
  });
  await assert.rejects(deployment.offer([bad], bad), /refused/);
  await deployment.offer([good], good);
  assert.deepEqual(served, [[good.serial]]);
});

test('a certificate that does not load is left out and told, and the others are served', async () => {
  const { log, lines } = recordedLog();
  const { all, served } = plainParts({ log });
  const deployment = createDeployment(planOf('a.example', 'b.example'), all);
  const sound = versions.get('b.example')![0]!;
  const weak = { ...versions.get('a.example')![0]!, ...weakCertificate('a.example') };
  await deployment.follow(planOf('a.example', 'b.example'), [weak, sound]);
  assert.deepEqual(served, [[sound.serial]]);
  const line = lines.find(({ msg }) => msg === 'certificate left out, it cannot be served');
  assert.deepEqual([line?.domain, line?.why], ['a.example', 'SSL routines: ee key too small']);
  await assert.rejects(deployment.offer([weak, sound], weak), { code: 'does-not-load' });
  const fresh = versions.get('a.example')![1]!;
  await deployment.offer([fresh, sound], fresh);
  await deployment.covered;
  assert.deepEqual(served.at(-1)!.toSorted(), [fresh.serial, sound.serial].toSorted());
});

test('routes that the workers refuse do not keep certificates from being served', async () => {
  const { all, served } = plainParts({ setRoutes: () => Promise.reject(new Error('a worker refused')) });
  const deployment = createDeployment(planOf('a.example'), all);
  const stored = versions.get('a.example')![0]!;
  await assert.rejects(deployment.follow(planOf('a.example'), [stored]), /refused/);
  assert.deepEqual(served, [[stored.serial]]);
});
