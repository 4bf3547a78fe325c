// A real browser without a screen, driven over its DevTools protocol.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import WebSocket from 'ws';

export interface PageOptions {
  readonly width?: number;
  readonly height?: number;
  readonly scheme?: 'light' | 'dark';
}

export interface BrowserPage {
  /** Every URL that the page asked for. */
  readonly requests: readonly string[];
  /** Exceptions and errors of the console, refusals of the policy among them. */
  readonly faults: readonly string[];
  /** Resolves when the page has loaded. */
  open(url: string): Promise<void>;
  /** The value of an expression, awaited; it must be JSON. Rejects with what the page threw. */
  evaluate<T>(expression: string): Promise<T>;
  /** Resolves once the expression is truthy; looks for a minute. */
  until(expression: string): Promise<void>;
  /** Writes a PNG, of the whole page if asked. */
  screenshot(path: string, options?: { readonly whole?: boolean }): Promise<void>;
}

export interface Browser {
  newPage(options?: PageOptions): Promise<BrowserPage>;
  [Symbol.asyncDispose](): Promise<void>;
}

const PATIENCE_MS = 60_000;

export async function startChromium(args: readonly string[] = []): Promise<Browser> {
  const folder = await mkdtemp(join(tmpdir(), 'chromium-'));
  const child = spawn(
    chromiumProgram(),
    [
      '--headless=new',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-dev-shm-usage',
      '--no-first-run',
      '--remote-debugging-port=0',
      `--user-data-dir=${folder}`,
      ...args,
      'about:blank',
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  const connection = await connect(await endpointOf(child));
  return {
    newPage: (options = {}) => newPage(connection, options),
    async [Symbol.asyncDispose]() {
      const gone = once(child, 'exit');
      connection.close();
      child.kill('SIGKILL');
      await gone;
      await rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    },
  };
}

function chromiumProgram(): string {
  const places = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
  return places.find((place) => existsSync(place)) ?? 'chromium';
}

async function endpointOf(child: ChildProcess): Promise<string> {
  let said = '';
  for await (const line of createInterface({ input: child.stderr! })) {
    const [, url] = /DevTools listening on (ws:\S+)/.exec(line) ?? [];
    if (url !== undefined) {
      child.stderr!.resume();
      return url;
    }
    said += `${line}\n`;
  }
  throw new Error(`Chromium ended: ${said}`);
}

type Params = Readonly<Record<string, unknown>>;
type Event = { readonly method: string; readonly params: Params; readonly sessionId?: string };

interface Connection {
  send<T = Params>(method: string, params?: Params, sessionId?: string): Promise<T>;
  listen(listener: (event: Event) => void): void;
  close(): void;
}

async function connect(url: string): Promise<Connection> {
  const socket = new WebSocket(url, { perMessageDeflate: false });
  await once(socket, 'open');
  const waiting = new Map<number, PromiseWithResolvers<unknown>>();
  const listeners: ((event: Event) => void)[] = [];
  let last = 0;
  socket.on('message', (data) => {
    const message = JSON.parse(String(data)) as Event & { id?: number; result?: unknown; error?: object };
    if (message.id === undefined) for (const listener of listeners) listener(message);
    else if (message.error === undefined) waiting.get(message.id)?.resolve(message.result);
    else waiting.get(message.id)?.reject(new Error(JSON.stringify(message.error)));
  });
  return {
    send<T>(method: string, params: Params = {}, sessionId?: string) {
      last += 1;
      const answer = Promise.withResolvers<unknown>();
      waiting.set(last, answer);
      socket.send(JSON.stringify({ id: last, method, params, sessionId }));
      return answer.promise as Promise<T>;
    },
    listen: (listener) => void listeners.push(listener),
    close: () => socket.terminate(),
  };
}

async function newPage(connection: Connection, options: PageOptions): Promise<BrowserPage> {
  const { width = 1280, height = 900, scheme = 'light' } = options;
  const { targetId } = await connection.send<{ targetId: string }>('Target.createTarget', {
    url: 'about:blank',
  });
  const { sessionId } = await connection.send<{ sessionId: string }>('Target.attachToTarget', {
    targetId,
    flatten: true,
  });
  const send = <T = Params>(method: string, params: Params = {}) =>
    connection.send<T>(method, params, sessionId);
  const requests: string[] = [];
  const faults: string[] = [];
  let loaded = Promise.withResolvers<void>();
  connection.listen(({ method, params, sessionId: of }) => {
    if (of !== sessionId) return;
    if (method === 'Page.loadEventFired') loaded.resolve();
    if (method === 'Network.requestWillBeSent') requests.push((params.request as { url: string }).url);
    if (method === 'Runtime.exceptionThrown') faults.push(JSON.stringify(params.exceptionDetails));
    if (method === 'Log.entryAdded') {
      const entry = params.entry as { level: string; text: string; url?: string };
      if (entry.level === 'error') faults.push(`${entry.text} ${entry.url ?? ''}`);
    }
  });
  for (const domain of ['Page', 'Network', 'Runtime', 'Log']) await send(`${domain}.enable`);
  await send('Emulation.setDeviceMetricsOverride', {
    width,
    height,
    deviceScaleFactor: 1,
    mobile: width < 600,
  });
  await send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });

  async function evaluate<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await send<{
      result: { value: T };
      exceptionDetails?: { text: string; exception?: { description?: string } };
    }>('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails !== undefined)
      throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  return {
    requests,
    faults,
    async open(url) {
      loaded = Promise.withResolvers();
      const { errorText } = await send<{ errorText?: string }>('Page.navigate', { url });
      if (errorText !== undefined) throw new Error(`${url}: ${errorText}`);
      await loaded.promise;
    },
    evaluate,
    async until(expression) {
      const end = Date.now() + PATIENCE_MS;
      while (!(await evaluate<boolean>(`Boolean(${expression})`))) {
        if (Date.now() > end) throw new Error(`it never came to ${expression}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    },
    async screenshot(path, { whole = false } = {}) {
      const { data } = await send<{ data: string }>('Page.captureScreenshot', {
        format: 'png',
        captureBeyondViewport: whole,
      });
      await writeFile(path, Buffer.from(data, 'base64'));
    },
  };
}
