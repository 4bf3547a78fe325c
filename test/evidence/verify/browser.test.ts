// What a page verifies by itself, in a real browser, under a policy that forbids eval: the same verdicts as here.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { bundleForBrowser } from '../../../build.ts';
import { type FileVerdicts, verifyFiles } from '../../../evidence/verify/browser.ts';
import { startSimulatedAgent } from '../../../src/demo/simulated-agent.ts';
import { createSimulatedProcessor, type SimulatedPlatform } from '../../../src/demo/simulated-quote.ts';
import { readFixture, withoutFixtures } from '../../support/attestation-fixtures.ts';
import { type Browser, type BrowserPage, startChromium } from '../../support/chromium.ts';

const at = new Date('2026-05-04T03:02:01Z');
const sums = 'abc  cert-app.example.com.pem\n';
const bound = createHash('sha256').update(sums).digest();

/** As a page has it: the bytes and the date as text. */
interface Files {
  readonly sums: string;
  readonly quote: string;
  readonly collateral?: string;
  readonly root?: string;
  readonly at: string;
}

async function filesOf(platform: SimulatedPlatform = {}): Promise<Files> {
  const processor = await createSimulatedProcessor({ now: at, ...platform });
  const agent = await startSimulatedAgent({ port: 0, processor });
  try {
    const reply = await fetch(`${agent.endpoint}/GetQuote?report_data=${bound.toString('hex')}`);
    return {
      sums,
      quote: await reply.text(),
      collateral: JSON.stringify(processor.collateral),
      root: processor.rootPem,
      at: at.toISOString(),
    };
  } finally {
    await agent.close();
  }
}

const honest = await filesOf();
const past = { until: new Date(at.getTime() - 1_000) };

function altered(change: (quoteJson: { quote: string; event_log: string }) => object): Files {
  return { ...honest, quote: JSON.stringify(change(JSON.parse(honest.quote))) };
}

const { collateral: _, ...withoutCollateral } = honest;

type Expected = Readonly<Partial<Record<keyof FileVerdicts, 'fail' | 'not-run'>>>;

/** All that is not named passes. */
const cases: readonly (readonly [what: string, files: Files, Expected])[] = [
  ['honest files', honest, {}],
  ['a quote of format 5 with a TD report 1.5', await filesOf({ format: 5, report: '1.5' }), {}],
  ['a processor that has run out', await filesOf({ dates: { pck: past } }), { 'quote.signature': 'fail' }],
  [
    'a PCK authority that has run out',
    await filesOf({ dates: { pckCa: past } }),
    { 'quote.signature': 'fail' },
  ],
  [
    'a TCB signer that has run out',
    await filesOf({ dates: { tcbSigner: past } }),
    { 'quote.collateral': 'fail' },
  ],
  ['a processor that is revoked', await filesOf({ revoked: ['pck'] }), { 'quote.revocation': 'fail' }],
  ['a forged quote', await filesOf({ forged: ['quote'] }), { 'quote.signature': 'fail' }],
  [
    'a TDX module that is revoked',
    await filesOf({ tcb: { module: { status: 'Revoked' } } }),
    { 'quote.tcb': 'fail' },
  ],
  [
    'a machine under debug',
    await filesOf({ td: { tdAttributes: '0100001000000000' } }),
    { 'quote.attributes': 'fail' },
  ],
  ['other sums', { ...honest, sums: `${sums} ` }, { 'quote.binding': 'fail' }],
  [
    'a log that lacks an event',
    altered((json) => ({ ...json, event_log: JSON.stringify(JSON.parse(json.event_log).slice(0, -1)) })),
    { 'log.replay': 'fail' },
  ],
  ['a log that is none', altered((json) => ({ ...json, event_log: '{' })), { 'log.replay': 'fail' }],
  [
    'no collateral',
    withoutCollateral,
    {
      'quote.collateral': 'not-run',
      'quote.signature': 'not-run',
      'quote.revocation': 'not-run',
      'quote.tcb': 'not-run',
      'quote.attributes': 'not-run',
    },
  ],
  [
    'collateral that is none',
    { ...honest, collateral: '[]' },
    {
      'quote.collateral': 'fail',
      'quote.signature': 'not-run',
      'quote.revocation': 'not-run',
      'quote.tcb': 'not-run',
      'quote.attributes': 'not-run',
    },
  ],
  [
    'a quote.json that is an error page',
    { ...honest, quote: '<html>' },
    {
      'quote.collateral': 'not-run',
      'quote.signature': 'fail',
      'quote.revocation': 'not-run',
      'quote.tcb': 'not-run',
      'quote.attributes': 'not-run',
      'quote.binding': 'not-run',
      'log.replay': 'not-run',
    },
  ],
];

function outcomeOf(verdicts: FileVerdicts): Expected {
  const others = Object.entries(verdicts).filter(([, { verdict }]) => verdict !== 'pass');
  return Object.fromEntries(others.map(([check, { verdict }]) => [check, verdict]));
}

const toBytes = ({ sums, at, ...files }: Files) => ({ ...files, sums: Buffer.from(sums), at: new Date(at) });

for (const [what, files, expected] of cases) {
  test(`${what}, without a browser`, async () => {
    assert.deepEqual(outcomeOf(await verifyFiles(toBytes(files))), expected);
  });
}

describe('in a browser', () => {
  let folder: string;
  let script: Buffer;
  let server: Server;
  let browser: Browser;
  let page: BrowserPage;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'browser-test-'));
    await bundleForBrowser(join(folder, 'verify.js'));
    script = await readFile(join(folder, 'verify.js'));
    server = createServer((request, response) => {
      const isScript = request.url === '/verify.js';
      response.writeHead(200, {
        'content-type': isScript ? 'text/javascript' : 'text/html',
        'content-security-policy': "default-src 'none'; script-src 'self'; img-src data:",
      });
      response.end(
        isScript ? script : '<!doctype html><link rel=icon href=data:,><script src=/verify.js></script>',
      );
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    browser = await startChromium();
    page = await browser.newPage();
    await page.open(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  });

  after(async () => {
    await browser[Symbol.asyncDispose]();
    server.close();
    server.closeAllConnections();
    await rm(folder, { recursive: true });
  });

  const inPage = (files: Files) =>
    page.evaluate<FileVerdicts>(`(() => {
      const { sums, at, ...files } = ${JSON.stringify(files)};
      const given = { ...files, sums: new TextEncoder().encode(sums), at: new Date(at) };
      return dstackIngressVerify.verifyFiles(given);
    })()`);

  test('the script takes less than 150 KiB on its way', () => {
    assert.ok(gzipSync(script).length < 150 * 1024, `${gzipSync(script).length} bytes`);
  });

  for (const [what, files, expected] of cases) {
    test(what, async () => {
      const verdicts = await inPage(files);
      assert.deepEqual(outcomeOf(verdicts), expected, JSON.stringify(verdicts, undefined, 1));
      assert.deepEqual(verdicts, await verifyFiles(toBytes(files)), 'in the same words');
    });
  }

  test('a real quote', { skip: withoutFixtures('quote-report.json', 'tdx-collateral.json') }, async () => {
    const verdicts = await inPage({
      sums,
      quote: JSON.stringify(readFixture('quote-report.json')),
      collateral: JSON.stringify(readFixture('tdx-collateral.json')),
      at: '2026-03-01T00:00:00Z',
    });
    assert.deepEqual(outcomeOf(verdicts), { 'quote.binding': 'fail' }, 'it was made for other report data');
  });

  test('breaks no policy, and asks for nothing', () => {
    assert.deepEqual(page.faults, []);
    assert.deepEqual(
      page.requests.filter((url) => !url.startsWith('data:')).map((url) => new URL(url).pathname),
      ['/', '/verify.js'],
    );
  });
});
