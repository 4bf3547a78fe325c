// http-01 answered over plain HTTP, as the CA sees it.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { createHttp01Solver } from '../../acme/http01.ts';
import { IssuerError } from '../../acme/issuer.ts';
import { parseDomain } from '../../src/lib/domain.ts';
import { startPebble } from '../support/pebble.ts';
import { connectionTo, freshFolder, storeFor } from './support.ts';

/** Answers as told, whatever the Host; the listener's own strictness is tested where it is. */
async function challengeServer(t: { after(fn: () => void): void }, say: (text: string) => string) {
  const texts = new Map<string, string>();
  const server = createServer((request, response) => {
    const text = texts.get(request.url?.replace('/.well-known/acme-challenge/', '') ?? '');
    response.writeHead(text === undefined ? 404 : 200).end(say(text ?? ''));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const serve = (token: string, text: string | undefined) => {
    if (text === undefined) texts.delete(token);
    else texts.set(token, text);
  };
  return { port: (server.address() as AddressInfo).port, serve, texts };
}

test('three names of one certificate are proven by plain HTTP, and nothing is served afterwards', async (t) => {
  const { port, serve, texts } = await challengeServer(t, (text) => text);
  const pebble = await startPebble({ httpPort: port });
  t.after(pebble.stop);
  const store = await storeFor(pebble, await freshFolder(t));
  const acme = connectionTo(pebble, store, { solver: createHttp01Solver({ serve }) });
  t.after(acme.close);
  const signal = AbortSignal.timeout(30_000);
  const { issuer } = await acme.connect(signal);
  const names = ['a.http.example', 'b.http.example', 'c.http.example'].map(parseDomain);
  assert.deepEqual((await issuer.obtain(names, signal)).names, names);
  assert.equal(texts.size, 0);
});

test('an answer that somebody changed on its way is refused by the CA, and the challenge is taken down', async (t) => {
  const { port, serve, texts } = await challengeServer(t, (text) => `${text}x`);
  const pebble = await startPebble({ httpPort: port });
  t.after(pebble.stop);
  const store = await storeFor(pebble, await freshFolder(t));
  const acme = connectionTo(pebble, store, { solver: createHttp01Solver({ serve }) });
  t.after(acme.close);
  const signal = AbortSignal.timeout(30_000);
  const { issuer } = await acme.connect(signal);
  await assert.rejects(
    issuer.obtain([parseDomain('a.http.example')], signal),
    (error: unknown) =>
      error instanceof IssuerError &&
      error.code === 'authorization-failed' &&
      /key authorization/i.test(String(error.cause)),
  );
  assert.equal(texts.size, 0);
});
