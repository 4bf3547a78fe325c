// The status page and `top` beside a running ingress: what they show, on a phone and on a desk, in the light and in the dark. UPDATE_DOCS=1 takes the pictures of docs/.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { bundledProgram } from '../../support/bundle.ts';
import { type Browser, type BrowserPage, type PageOptions, startChromium } from '../../support/chromium.ts';
import { startScene } from '../../support/status-scene.ts';
import { terminalPicture } from '../../support/terminal-picture.ts';

const root = fileURLToPath(new URL('../../..', import.meta.url));
/** For a picture there must be something to see. */
const TAKES_PICTURES = process.env.UPDATE_DOCS === '1';
const WAIT_MS = TAKES_PICTURES ? 150_000 : 3_000;

let scene: Awaited<ReturnType<typeof startScene>>;
let browser: Browser;
let page: BrowserPage;

const DESK = { width: 1200, height: 900 };
const PHONE = { width: 320, height: 640 };

before(async () => {
  scene = await startScene();
  await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
  browser = await startChromium(['--hide-scrollbars']);
  page = await openPage(DESK);
});

/** Once it has heard of the ingress, and of what disk and DNS say. */
async function openPage(options: PageOptions): Promise<BrowserPage> {
  const opened = await browser.newPage(options);
  await opened.open(scene.url);
  await opened.until("document.body.innerText.includes('CAA forbids the next order')");
  return opened;
}

after(async () => {
  await browser[Symbol.asyncDispose]();
  await scene.stop();
});

const words = () => page.evaluate<string>("document.body?.innerText ?? ''");

async function until(what: string, holds: () => Promise<boolean>, most = 200): Promise<void> {
  for (let tries = 0; tries < most; tries++) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.fail(`${what}: waited in vain`);
}

async function picture(of: BrowserPage, name: string): Promise<void> {
  if (TAKES_PICTURES) await of.screenshot(`${root}/docs/${name}.png`, { whole: true });
}

describe('the status page', () => {
  test('says who is served, how, and what is wrong', async () => {
    const text = await words();
    for (const part of [
      'app.example.com',
      '*.tenants.example.com',
      'ready',
      '77 days left',
      'last attempt failed 40 minutes ago: CAA at example.com does not allow this account',
      'records in place',
      'fails',
      'Worker 2',
      '7 hours old',
      'evidence published',
    ])
      assert.ok(text.includes(part), part);
    await picture(page, 'status-page');
  });

  test('fits a phone of 320 points, and nothing sticks out', async () => {
    for (const view of [DESK, { ...PHONE, width: 768 }, PHONE]) {
      const opened = await openPage(view);
      const wide = await opened.evaluate<number>('document.documentElement.scrollWidth');
      assert.equal(wide, view.width, `${view.width} points`);
      if (view === PHONE) await picture(opened, 'status-page-phone');
    }
  });

  test('has its own colours in the dark', async () => {
    const groundOf = (one: BrowserPage) =>
      one.evaluate<string>('getComputedStyle(document.body).backgroundColor');
    const dark = await openPage({ ...DESK, scheme: 'dark' });
    assert.notEqual(await groundOf(dark), await groundOf(page));
    await picture(dark, 'status-page-dark');
  });

  test('finds events by their words', async () => {
    const search = (text: string) =>
      page.evaluate<number>(`(() => {
        const field = document.getElementById('search');
        field.value = ${JSON.stringify(text)};
        field.dispatchEvent(new Event('input'));
        return document.querySelectorAll('#events .event').length;
      })()`);
    const all = await search('');
    const some = await search('warn upstream');
    assert.ok(some > 0 && some < all, `${some} of ${all}`);
    assert.equal(await search('no-such-word'), 0);
    await search('');
  });

  test('goes on by itself, and complains of nothing', async () => {
    const figure = () => page.evaluate<string>("document.getElementById('about').textContent");
    const first = await figure();
    await until('another second', async () => (await figure()) !== first);
    assert.deepEqual(page.faults, []);
    const elsewhere = page.requests.filter((url) => !url.startsWith(scene.url) && !url.startsWith('data:'));
    assert.deepEqual(elsewhere, []);
  });
});

describe('top', () => {
  const run = (...args: string[]) =>
    spawn(process.execPath, [bundledProgram(), 'top', ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH: process.env.PATH ?? '' },
    });

  async function outcome(child: ReturnType<typeof run>) {
    let [out, err] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text) => (out += text));
    child.stderr.setEncoding('utf8').on('data', (text) => (err += text));
    const [code] = await once(child, 'close');
    return { code, out, err };
  }

  test('prints one picture where there is no terminal', async () => {
    const { code, out, err } = await outcome(run('--address', `unix:${scene.socketPath}`));
    assert.equal(code, 0, err);
    assert.match(out, /^dstack-ingress 0\.1\.0, up \d+[smh] {2}ready\n/);
    assert.match(out, /^host +last 20 s +rps +p50 +p99 +4xx +5xx +in flight$/m);
    assert.match(out, /^app\.example\.com .* \d+(\.\d)? +\d/m);
    assert.match(out, /^chat\.example\.com +█+░+ 6d$/m);
    assert.match(out, /^✖ http:\/\/127\.0\.0\.1:\d+ {2}fails$/m);
    assert.doesNotMatch(out, /\x1b/);
  });

  test('says whom it cannot reach, and what it was given that is no address', async () => {
    const nobody = await outcome(run('--address', 'unix:/nowhere/admin.sock'));
    assert.equal(nobody.code, 1);
    assert.match(nobody.err, /^top: no ingress to watch at \/nowhere\/admin\.sock: /);
    const wrong = await outcome(run('--address', 'somewhere'));
    assert.equal(wrong.code, 2);
    assert.match(wrong.err, /^top: --address: .*somewhere/);
  });

  test('in a terminal it draws again and again, until q is pressed, and gives the screen back', async () => {
    const command = `stty cols 110 rows 32; exec '${process.execPath}' '${bundledProgram()}' top --address unix:${scene.socketPath}`;
    const child = spawn('script', ['-qefc', command, '/dev/null'], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { PATH: process.env.PATH ?? '', TERM: 'xterm-256color', LANG: 'C.UTF-8' },
    });
    let out = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text;
    });
    const drawn = TAKES_PICTURES ? 22 : 3;
    await until('pictures', async () => out.split('\x1b[H').length > drawn, 600);
    child.stdin.write('q');
    const [code] = await once(child, 'close');
    assert.equal(code, 0);
    assert.ok(out.startsWith('\x1b[?1049h\x1b[?25l'));
    assert.ok(out.trimEnd().endsWith('\x1b[?25h\x1b[?1049l'), JSON.stringify(out.slice(-40)));
    const frames = out.split('\x1b[H').slice(1);
    const last = frames.at(-1)!.split('\x1b[J')[0]!;
    assert.match(last, /chat\.example\.com/);
    if (TAKES_PICTURES) writeFileSync(`${root}/docs/top.svg`, terminalPicture(last, 110));
  });
});
