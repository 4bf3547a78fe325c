// The pages of docs/ as `npm run docs` renders them: complete, linked, and searched without a network, in a real browser.

import assert from 'node:assert/strict';
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { groups } from '../docs/site/pages.ts';
import { renderSite } from '../docs/site/render.ts';
import { type Browser, startChromium } from './support/chromium.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

describe('the rendered docs', () => {
  const folder = mkdtempSync(join(tmpdir(), 'docs-site-'));
  const place = (page: string) => pathToFileURL(join(folder, page)).href;
  let browser: Browser;
  before(async () => {
    renderSite(folder);
    browser = await startChromium();
  });
  after(async () => {
    await browser[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  it('have every page of docs/, each once', () => {
    const listed = groups.flatMap(({ files }) => files);
    assert.equal(new Set(listed).size, listed.length);
    for (const file of globSync('docs/*.md', { cwd: root })) assert.ok(listed.includes(file), file);
  });

  it('have no link and no fragment that leads nowhere', () => {
    const pages = new Map(
      globSync('*.html', { cwd: folder }).map((file) => [file, readFileSync(join(folder, file), 'utf8')]),
    );
    const dead: string[] = [];
    for (const [file, html] of pages)
      for (const [, href] of html.matchAll(/(?:href|src)="(?![a-z]+:)([^"]+)"/g)) {
        const [path = '', fragment] = href!.split('#');
        const target = path === '' ? file : path;
        if (!existsSync(join(folder, target))) dead.push(`${file}: ${href}`);
        else if (fragment !== undefined && !pages.get(target)?.includes(`id="${fragment}"`))
          dead.push(`${file}: ${href}`);
      }
    assert.deepEqual(dead, []);
  });

  it('are read from the first page to the last by clicking, without a fault or a request to elsewhere', async () => {
    const page = await browser.newPage();
    await page.open(place('index.html'));
    const seen = [await page.evaluate<string>('location.pathname')];
    while (await page.evaluate<boolean>('document.querySelector("[rel=next]") !== null')) {
      const href = await page.evaluate<string>('document.querySelector("[rel=next]").href');
      await page.evaluate('document.querySelector("[rel=next]").click()');
      await page.until(`location.href === ${JSON.stringify(href)} && document.readyState === "complete"`);
      seen.push(await page.evaluate<string>('location.pathname'));
      assert.ok(await page.evaluate<boolean>('document.querySelector("main h1") !== null'), href);
    }
    assert.equal(seen.length, groups.flatMap(({ files }) => files).length);
    assert.equal(basename(seen.at(-1)!), 'changelog.html');
    assert.deepEqual(page.faults, []);
    assert.deepEqual(
      page.requests.filter((url) => !url.startsWith('file://')),
      [],
    );
  });

  it('find a setting and a phrase as one types, and lead to its section', async () => {
    const page = await browser.newPage();
    await page.open(place('index.html'));
    const type = (text: string) =>
      page.evaluate(
        `(() => { const q = document.getElementById('query'); q.value = ${JSON.stringify(text)}; q.dispatchEvent(new Event('input')); })()`,
      );
    await type('TARGET_ENDPOINT');
    await page.until('document.querySelectorAll("#results a").length > 0');
    await type('records without a token zone');
    await page.until('document.querySelectorAll("#results a").length > 0');
    await type('delegation alias');
    const found = await page.evaluate<string>('document.querySelector("#results a").href');
    assert.match(found, /certificates\.html#/);
    await page.evaluate('document.querySelector("#results a").click()');
    await page.until(`location.href === ${JSON.stringify(found)} && document.readyState === "complete"`);
    await type('zzzzqqqq');
    assert.match(
      await page.evaluate<string>('document.getElementById("results").textContent'),
      /Nothing found/,
    );
    assert.deepEqual(page.faults, []);
  });

  it('need no scrolling sideways on a phone, light or dark', async () => {
    const page = await browser.newPage({ width: 320, height: 640, scheme: 'dark' });
    for (const file of globSync('*.html', { cwd: folder })) {
      await page.open(place(file));
      const [inner, outer] = await page.evaluate<[number, number]>(
        '[document.documentElement.scrollWidth, innerWidth]',
      );
      assert.ok(inner <= outer, `${file}: ${inner} px wide in a window of ${outer}`);
    }
    await page.screenshot(join(folder, 'phone.png'));
  });
});
