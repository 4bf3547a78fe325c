// The page of the evidence as people see it: a real browser, the built program, and quotes that are wrong in one way each.

import assert from 'node:assert/strict';
import { createHash, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startSimulatedAgent } from '../../src/demo/simulated-agent.ts';
import { createSimulatedProcessor, type SimulatedPlatform } from '../../src/demo/simulated-quote.ts';
import { type Browser, type BrowserPage, type PageOptions, startChromium } from '../support/chromium.ts';
import { readHttp1 } from '../support/evidence-reader.ts';
import type { IngressProcess } from '../support/ingress-process.ts';
import { createWorld, get, startApp, type World } from '../support/world.ts';

const domain = 'app.example.com';

let world: World;
let app: Awaited<ReturnType<typeof startApp>>;
let ingress: IngressProcess;
let browser: Browser;
let page: BrowserPage;
let origin: string;

before(async () => {
  world = await createWorld();
  app = await startApp('from the app');
  ingress = world.start({
    DOMAIN: domain,
    TARGET_ENDPOINT: app.url,
    CHALLENGE_TYPE: 'tls-alpn-01',
    DNS_SETUP_MODE: 'print',
  });
  await ingress.waitFor('ready');
  origin = `https://${domain}:${world.port}`;
  browser = await startChromium([
    `--host-resolver-rules=MAP ${domain} 127.0.0.1`,
    '--ignore-certificate-errors',
    '--hide-scrollbars',
  ]);
  page = await browser.newPage();
});

after(async () => {
  await browser?.[Symbol.asyncDispose]();
  await app?.[Symbol.asyncDispose]();
  await world?.[Symbol.asyncDispose]();
});

/** What a reader chooses, and what is fetched in place of what is served. */
interface Scene {
  readonly collateral?: string;
  readonly root?: string;
  /** The collateral that the site publishes. */
  readonly published?: string;
  readonly instead?: Readonly<Record<string, string>>;
}

interface Outcome {
  readonly said: string;
  readonly verdicts: Readonly<Record<string, string>>;
  readonly reasons: Readonly<Record<string, string>>;
  readonly badges: readonly string[];
  readonly shift: number;
}

const honest = (): Scene => ({
  collateral: JSON.stringify(world.agent.collateral),
  root: new X509Certificate(world.agent.rootDer).toString(),
});

/** Opens the page, chooses the files, presses the button, and reads what has come of it. */
async function checked(scene: Scene, on = page): Promise<Outcome> {
  await on.open(`${origin}/evidences/`);
  await on.evaluate(`(() => {
    const { collateral, root, published, instead = {} } = ${JSON.stringify(scene)};
    if (published !== undefined) {
      instead['quote-collateral.json'] = published;
      document.getElementById('collateral').dataset.published = '';
    }
    globalThis.shift = 0;
    new PerformanceObserver((list) => {
      for (const { value } of list.getEntries()) globalThis.shift += value;
    }).observe({ type: 'layout-shift', buffered: true });
    const choose = (id, name, text) => {
      if (text === undefined) return;
      const files = new DataTransfer();
      files.items.add(new File([text], name));
      document.getElementById(id).files = files.files;
    };
    choose('collateral', 'quote-collateral.json', collateral);
    choose('root', 'quote-root.pem', root);
    const really = fetch;
    globalThis.fetch = (name, options) =>
      Object.hasOwn(instead, decodeURIComponent(name))
        ? Promise.resolve(new Response(instead[decodeURIComponent(name)]))
        : really(name, options);
    document.documentElement.style.scrollBehavior = 'auto';
    document.querySelector('#check .results').scrollIntoView();
    document.getElementById('run').click();
  })()`);
  await on.until(`!['busy', undefined].includes(document.getElementById('outcome').dataset.state)`);
  return on.evaluate<Outcome>(`(() => {
    const items = [...document.querySelectorAll('[data-check]')];
    const all = (read) => Object.fromEntries(items.map((item) => [item.dataset.check, read(item)]));
    return {
      said: document.getElementById('outcome').textContent,
      verdicts: all((item) => item.dataset.verdict ?? 'none'),
      reasons: all((item) => item.querySelector('.reason').textContent),
      badges: [...document.querySelectorAll('.badge')].map((badge) => badge.textContent),
      shift: globalThis.shift,
    };
  })()`);
}

/** All that is not 'pass'. */
function faults({ verdicts }: Outcome) {
  return Object.fromEntries(Object.entries(verdicts).filter(([, verdict]) => verdict !== 'pass'));
}

/** A quote over the checksums that are served, by a platform of its own. */
async function quotedBy(platform: SimulatedPlatform): Promise<Scene> {
  const reader = await readHttp1({ port: world.port, servername: domain, ca: await world.roots() });
  const { body } = await reader.get('/evidences/sha256sum.txt');
  reader.close();
  const processor = await createSimulatedProcessor(platform);
  const agent = await startSimulatedAgent({ port: 0, processor });
  try {
    const data = createHash('sha256').update(body).digest('hex');
    const reply = await fetch(`${agent.endpoint}/GetQuote?report_data=${data}`);
    return {
      collateral: JSON.stringify(processor.collateral),
      root: processor.rootPem,
      instead: { 'quote.json': await reply.text() },
    };
  } finally {
    await agent.close();
  }
}

test('honest files pass under the root that the reader chose, and the page says whose root that is', async () => {
  const outcome = await checked(honest());
  assert.deepEqual(faults(outcome), {}, JSON.stringify(outcome.reasons));
  assert.match(outcome.said, /^9 of 9 hold\. .*quote-root\.pem.*in place of Intel’s.*simulated/);
  assert.deepEqual(outcome.badges, [...Array(4).fill('holds, simulated'), 'not for a page to check']);
});

test('collateral that the site publishes is taken where the reader has chosen none', async () => {
  const { root, collateral: published } = honest() as { root: string; collateral: string };
  assert.deepEqual(faults(await checked({ root, published })), {});
  const other = await createSimulatedProcessor();
  const lying = await checked({ root, published: JSON.stringify(other.collateral) });
  assert.equal(lying.verdicts['quote.collateral'], 'fail');
  assert.deepEqual(
    faults(await checked({ ...honest(), published: '[]' })),
    {},
    "the reader's own goes before it",
  );
});

test("under Intel's root a simulated platform fails, by its signature", async () => {
  const { collateral } = honest() as { collateral: string };
  const outcome = await checked({ collateral });
  assert.equal(outcome.verdicts['quote.signature'], 'fail');
  assert.equal(outcome.verdicts['quote.binding'], 'pass');
  assert.match(outcome.said, /Judged under Intel’s root\./);
  assert.equal(outcome.badges[0], 'does not hold');
});

test('without collateral what needs it is not run, and nothing is called proven', async () => {
  const { root } = honest() as { root: string };
  const outcome = await checked({ root });
  const needy = ['signature', 'collateral', 'revocation', 'tcb', 'attributes'].map((name) => `quote.${name}`);
  assert.deepEqual(
    faults(outcome),
    Object.fromEntries([...needy, 'statement.quote'].map((id) => [id, 'not-run'])),
  );
  assert.equal(outcome.badges[0], 'not proven');
});

describe('what is wrong fails at its place', () => {
  const past = { until: new Date(Date.now() - 1_000) };
  /** The statement that is served was quoted by another platform, under another root. */
  const alone = { 'statement.quote': 'fail' };

  test('a file that was altered', async () => {
    const instead = { 'acme-account.json': '{"body":{},"uri":"https://ca.test/acct/other"}\n' };
    const outcome = await checked({ ...honest(), instead });
    assert.deepEqual(faults(outcome), { 'bundle.sums': 'fail' });
    assert.match(outcome.reasons['bundle.sums']!, /acme-account\.json does not have the digest/);
  });

  test('a list that was altered', async () => {
    const outcome = await checked({ ...honest(), instead: { 'sha256sum.txt': '../x\n' } });
    assert.deepEqual(faults(outcome), { 'bundle.sums': 'fail', 'quote.binding': 'fail' });
  });

  test('a statement that was altered', async () => {
    const reader = await readHttp1({ port: world.port, servername: domain, ca: await world.roots() });
    const { body } = await reader.get('/evidences/attestation.json');
    reader.close();
    const text = body.toString().replace(`"${domain}"`, '"other.example.com"');
    const outcome = await checked({ ...honest(), instead: { 'attestation.json': text } });
    assert.deepEqual(faults(outcome), { 'statement.quote': 'fail' });
    assert.match(outcome.reasons['statement.quote']!, /is for report data .*, the statement has /);
  });

  test('a processor that has run out', async () => {
    const outcome = await checked(await quotedBy({ dates: { pck: past } }));
    assert.deepEqual(faults(outcome), { 'quote.signature': 'fail', ...alone });
  });

  test('a processor that is revoked', async () => {
    const outcome = await checked(await quotedBy({ revoked: ['pck'] }));
    assert.deepEqual(faults(outcome), { 'quote.revocation': 'fail', ...alone });
    assert.match(outcome.said, /fail: .*Revocation/);
  });

  test('a choice that is no root', async () => {
    const wrong = await checked({ ...honest(), root: 'no certificate' });
    assert.match(wrong.said, /^Nothing could be judged: .*root/);
    assert.deepEqual(new Set(Object.values(wrong.verdicts)), new Set(['not-run']));
  });
});

test('nobody else is asked, and no policy is broken', () => {
  assert.deepEqual(page.faults, []);
  assert.deepEqual(
    page.requests.filter((url) => new URL(url).origin !== origin),
    [],
  );
});

/** `at`: where the picture for the docs begins. */
const looks: readonly (readonly [name: string, options: PageOptions, at: string])[] = [
  ['light', { width: 1120, height: 1100 }, 'body'],
  ['dark', { width: 1120, height: 1100, scheme: 'dark' }, '#check'],
  ['phone', { width: 320, height: 700 }, '#chain'],
  ['wall', { width: 3840, height: 2160 }, 'body'],
];

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

for (const [name, options, at] of looks) {
  test(`axe finds nothing, nothing is cut off, nothing moves: ${name}`, async () => {
    const own = await browser.newPage(options);
    const { shift } = await checked(honest(), own);
    assert.equal(shift, 0, 'nothing has moved while it was checked');
    await own.evaluate(axe);
    const found = await own.evaluate<{ id: string; nodes: string[] }[]>(`(async () => {
      for (const details of document.querySelectorAll('details')) details.open = true;
      const { violations } = await axe.run();
      return violations.map(({ id, nodes }) => ({ id, nodes: nodes.map(({ html }) => html) }));
    })()`);
    assert.deepEqual(found, []);
    const room = `document.documentElement.scrollWidth - document.documentElement.clientWidth`;
    assert.equal(await own.evaluate(room), 0);
    if (process.env.UPDATE_DOCS !== '1' || name === 'wall') return;
    await own.evaluate(`(() => {
      for (const details of document.querySelectorAll('details')) details.open = false;
      document.querySelector('${at}').scrollIntoView();
    })()`);
    const picture = fileURLToPath(new URL(`../../docs/evidence-${name}.png`, import.meta.url));
    await own.screenshot(picture);
  });
}

for (const [encoding, accepts] of [
  ['br', 'gzip, deflate, br'],
  ['gzip', 'gzip'],
] as const) {
  test(`the page takes less than 150 KiB on its way, the verifier included: ${encoding}`, async () => {
    const target = { port: world.port, servername: domain, ca: await world.roots() };
    let bytes = 0;
    for (const name of ['', 'page.css', 'page.js', 'page.svg', 'verifier.js']) {
      const headers = [`Accept-Encoding: ${accepts}`];
      const { status, head, body } = await get({ ...target, path: `/evidences/${name}`, headers });
      assert.equal(status, 200, name);
      const used = /^content-encoding: (\S+)\r?$/im.exec(head)?.[1];
      assert.equal(used, name === '' ? 'gzip' : encoding, name);
      bytes += body.length;
    }
    assert.ok(bytes < 150 * 1024, `${bytes} bytes`);
  });
}
