// What the log tells of a request, whatever becomes of it: where it went, and never the secrets in its target.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectHttp2, type IncomingHttpHeaders } from 'node:http2';
import { PassThrough } from 'node:stream';
import { after, describe, it } from 'node:test';
import { loggedName, loggedRequestLine, loggedTarget } from '../../../proxy/exchange/logged.ts';
import { createAccessLog, type ListenerOptions } from '../../../proxy/listener/listener.ts';
import type { UpstreamProtocol } from '../../../proxy/rules/routes.ts';
import { createLog } from '../../../src/lib/log.ts';
import {
  answering,
  eventually,
  HOST,
  request,
  routeTo,
  settingsFor,
  startIngress,
  startUpstream,
} from '../../support/proxy.ts';

const cleanups: (() => Promise<void>)[] = [];
after(async () => {
  for (const cleanUp of cleanups.reverse()) await cleanUp();
});

describe('of a target', () => {
  for (const [target, logged] of [
    ['/a/b?token=s3cret', '/a/b'],
    ['/a?x?s3cret', '/a'],
    ['/a#s3cret', '/a'],
    ['?s3cret', ''],
    ['https://user:s3cret@host/a?s3cret', 'https://host/a'],
    ['https://user:s3@cret@host/a', 'https://host/a'],
    ['user:s3cret@host:443', 'host:443'],
    ['https://host/a@b', 'https://host/a@b'],
    ['/a@b', '/a@b'],
    ['*', '*'],
    ['', ''],
  ] as const) {
    it(`${JSON.stringify(target)} the log has ${JSON.stringify(logged)}`, () => {
      assert.equal(loggedTarget(target), logged);
    });
  }

  it('it has no more than can be read, of a start line as well', () => {
    assert.equal(loggedTarget(`/${'a'.repeat(100_000)}`).length, 2_003);
    assert.equal(loggedRequestLine('GET /a?s3cret HTTP/1.1\r\nHost: x\r\n'), 'GET /a');
  });

  it('and of a name what a terminal can show', () => {
    assert.equal(loggedName('a.example'), 'a.example');
    assert.equal(loggedName('a\x1b[2J\n\u202e.example'), 'a?[2J??.example');
    assert.equal(loggedName('a'.repeat(1_000)).length, 256);
  });
});

const SECRET = 's3cret';
const TARGET = `/path?token=${SECRET}`;

/** How a request can end, and what the upstream does for it. */
const endings: Record<
  string,
  {
    protocol?: UpstreamProtocol;
    upstream?: Parameters<typeof startUpstream>[0];
    gone?: true;
    target?: string;
    fields?: readonly (readonly [string, string])[];
    listener?: Partial<ListenerOptions>;
    /** It ends of itself, and at a level that is always on. */
    warns?: true;
  }
> = {
  'an upstream that stays silent': { upstream: () => {}, warns: true },
  'an h2c upstream that stays silent': { protocol: 'h2c', upstream: () => {}, warns: true },
  'an upstream that refuses': { gone: true, warns: true },
  'an upstream that closes': {
    upstream: (socket) => void socket.once('data', () => socket.end()),
    warns: true,
  },
  'a reply that is none': { upstream: answering(() => `${SECRET.slice(0, 3)}\r\n\r\n`), warns: true },
  'a reply that is cut': {
    upstream: answering((_, socket) => {
      socket.end('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx');
      return undefined;
    }),
    warns: true,
  },
  'a handler of our own that fails': {
    warns: true,
    listener: {
      localPaths: [{ path: '/', answeredBy: 'broken' }],
      localHandlers: {
        broken: {
          handle() {
            throw new Error('broken');
          },
        },
      },
    },
  },
  'a body that is too large': {
    listener: { limits: { maxBodyBytes: 1 } },
    fields: [['content-length', '9']],
  },
  'a host that is not ours': { fields: [['host', 'elsewhere.example']] },
  'no route': { target: `/none?token=${SECRET}` },
  'a fragment': { target: `/path#${SECRET}` },
  'a method that is refused': { fields: [['expect', 'nonsense']] },
};

describe('the log at every level', () => {
  for (const [what, ending] of Object.entries(endings)) {
    for (const client of ['HTTP/1.1', 'HTTP/2'] as const) {
      it(`says nothing of the query, and of the request what is needed: ${what}, ${client}`, async () => {
        const stream = new PassThrough();
        let text = '';
        stream.on('data', (bytes) => {
          text += bytes;
        });
        const upstream = await startUpstream(ending.upstream ?? answering(() => undefined));
        if (ending.gone) await upstream.close();
        else cleanups.push(upstream.close);
        const settings = settingsFor(upstream.port, ending.protocol ?? 'http', { readTimeoutMs: 50 });
        const route = { ...routeTo(settings), paths: [{ prefix: '/path', upstream: settings }] };
        const accessLines: string[] = [];
        const ingress = await startIngress([route], {
          log: createLog({ level: 'trace', readable: false, stream }),
          accessLog: createAccessLog((lines) => accessLines.push(lines)),
          ...ending.listener,
        });
        cleanups.push(ingress.close);
        const target = ending.target ?? TARGET;
        if (client === 'HTTP/1.1') await askHttp1(ingress, target, ending.fields ?? []);
        else await askHttp2(ingress, target, ending.fields ?? []);
        await eventually(() => accessLines.length > 0);
        if (ending.warns) await eventually(() => /"level":"(?:warn|error)"/.test(text));
        const all = text + accessLines.join('');
        assert.doesNotMatch(all, new RegExp(SECRET));
        // HTTP/1.1 reads no further than to what is wrong.
        if (what !== 'a fragment') assert.match(accessLines.join(''), /"path":"\/(?:path|none)"/);
      });
    }
  }
});

type Fields = readonly (readonly [string, string])[];

async function askHttp1(ingress: Awaited<ReturnType<typeof startIngress>>, target: string, fields: Fields) {
  const client = await ingress.connect();
  const lines = fields.map(([name, value]) => `${name}: ${value}`);
  const hosted = fields.some(([name]) => name === 'host');
  client.send(
    hosted ? [`GET ${target} HTTP/1.1`, ...lines, '', ''].join('\r\n') : request(`GET ${target}`, ...lines),
  );
  await client.until(/[\s\S]/).catch(() => {});
}

async function askHttp2(ingress: Awaited<ReturnType<typeof startIngress>>, target: string, fields: Fields) {
  const { socket } = await ingress.connect({ ALPNProtocols: ['h2'] });
  const session = connectHttp2(`https://${HOST}`, { createConnection: () => socket });
  session.on('error', () => {});
  const { host = HOST, ...rest } = Object.fromEntries(fields) as IncomingHttpHeaders & { host?: string };
  const stream = session.request({ ':path': target, ':authority': host, ...rest }, { endStream: false });
  stream.on('error', () => {});
  stream.resume();
  if (rest['content-length'] === undefined) stream.end();
  await once(stream, 'close').catch(() => {});
  session.destroy();
}
