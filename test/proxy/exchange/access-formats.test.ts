// The forms of the access log's lines, what they hide, and which of them are written.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  type AccessEntry,
  type AccessLogOptions,
  createAccessEntry,
  plainAccessLog,
} from '../../../proxy/exchange/access-entry.ts';
import { createAccessLog } from '../../../proxy/exchange/access-log.ts';
import { createQueryRedaction } from '../../../proxy/exchange/access-redaction.ts';

const AT = Date.UTC(2026, 10, 30, 9, 8, 7, 65);
const entry: AccessEntry = {
  ...createAccessEntry('h2', '192.0.2.1', 1_000, 'TLSv1.3'),
  method: 'GET',
  host: 'app.example.com',
  target: '/a?x=1&token=hunter2',
  status: 200,
  received: 3,
  sent: 5,
  replyAt: 1_010.5,
  upstream: { host: 'app', port: 80 },
  upstreamAt: 1_002,
  attempts: 2,
  id: 'ab'.repeat(16),
  traceparent: `00-${'1a'.repeat(16)}-${'2b'.repeat(8)}-01`,
  userAgent: 'curl/8.5 "x"',
  match: { route: 'app.example.com/' },
  shownHeaders: [['referer', 'https://a.example/']],
};

function written(
  list: readonly AccessEntry[],
  options: Partial<AccessLogOptions>,
  endedAt = 1_020,
): string[] {
  let text = '';
  const log = createAccessLog(
    (lines) => {
      text += lines;
    },
    { ...plainAccessLog, ...options },
    () => AT,
  );
  for (const one of list) log.write(one, endedAt);
  log.flush();
  return text.split('\n').slice(0, -1);
}

describe('a line', () => {
  it('as json has every field of docs/logs.md', () => {
    assert.deepEqual(JSON.parse(written([entry], { query: true })[0]!), {
      time: '2026-11-30T09:08:07.065Z',
      level: 'info',
      msg: 'access',
      client: '192.0.2.1',
      protocol: 'h2',
      method: 'GET',
      host: 'app.example.com',
      path: '/a',
      query: 'x=1&token=***',
      status: 200,
      received: 3,
      sent: 5,
      durationMs: 20,
      firstByteMs: 10.5,
      upstream: 'app:80',
      upstreamMs: 8.5,
      retries: 1,
      route: 'app.example.com/',
      tls: 'TLSv1.3',
      userAgent: 'curl/8.5 "x"',
      id: entry.id,
      traceparent: entry.traceparent,
      headers: { referer: 'https://a.example/' },
    });
  });

  it('as caddy has the members that readers of its log look for', () => {
    const line = JSON.parse(written([entry], { format: 'caddy', query: true })[0]!);
    const { ts, request, duration, size, status, bytes_read, level, logger, msg } = line;
    assert.deepEqual(
      { ts, duration, size, status, bytes_read, level, logger, msg },
      {
        ...{ ts: AT / 1_000, duration: 0.02, size: 5, status: 200, bytes_read: 3 },
        ...{ level: 'info', logger: 'http.log.access', msg: 'handled request' },
      },
    );
    assert.deepEqual(request, {
      remote_ip: '192.0.2.1',
      client_ip: '192.0.2.1',
      proto: 'HTTP/2.0',
      method: 'GET',
      host: 'app.example.com',
      uri: '/a?x=1&token=***',
      headers: { 'User-Agent': ['curl/8.5 "x"'], referer: ['https://a.example/'] },
      tls: { version: 0x0304, proto: 'h2' },
    });
  });

  it('as ecs has the fields of the Elastic Common Schema', () => {
    const line = JSON.parse(
      written([{ ...entry, status: 502, fault: 'upstream-refused' }], { format: 'ecs' })[0]!,
    );
    const expected = {
      '@timestamp': '2026-11-30T09:08:07.065Z',
      'log.level': 'warn',
      'event.outcome': 'failure',
      'event.duration': 20_000_000,
      'client.ip': '192.0.2.1',
      'http.version': '2',
      'http.request.method': 'GET',
      'http.request.id': entry.id,
      'http.response.status_code': 502,
      'url.path': '/a',
      'trace.id': '1a'.repeat(16),
      'tls.version': '1.3',
      'error.code': 'upstream-refused',
      'http.request.headers.referer': 'https://a.example/',
    };
    assert.deepEqual({ ...line, ...expected }, line);
    assert.equal(line['url.query'], undefined);
  });

  it('as common is what analysers of the Apache format read', () => {
    assert.equal(
      written([entry], { format: 'common' })[0],
      '192.0.2.1 - - [30/Nov/2026:09:08:07 +0000] "GET /a HTTP/2.0" 200 5 "https://a.example/" "curl/8.5 \\"x\\""',
    );
  });

  it('of a connection of raw bytes has no part that only requests have, in every form', () => {
    const tcp = { ...createAccessEntry('tcp', '192.0.2.1', 0, 'TLSv1.3'), host: 'app.example.com' };
    assert.equal(JSON.parse(written([tcp], { format: 'ecs' })[0]!)['http.version'], undefined);
    assert.equal(JSON.parse(written([tcp], { format: 'caddy' })[0]!).request.proto, 'TCP');
    assert.match(written([tcp], { format: 'common' })[0]!, /\] "-" - 0 "-" "-"$/);
  });

  it('is a warning for faults of ours and of upstreams, and not for those of clients', () => {
    const levelOf = (changes: Partial<AccessEntry>) =>
      JSON.parse(written([{ ...entry, ...changes }], {})[0]!).level;
    assert.equal(levelOf({ status: 404 }), 'info');
    assert.equal(levelOf({ status: 499, fault: 'client-closed' }), 'info');
    assert.equal(levelOf({ status: 400, fault: 'bad-request' }), 'info');
    assert.equal(levelOf({ status: 500 }), 'warn');
    assert.equal(levelOf({ status: 200, fault: 'upstream-closed' }), 'warn');
    assert.equal(levelOf({ status: 200, grpcStatus: 14 }), 'warn');
    assert.equal(levelOf({ status: 200, grpcStatus: 5 }), 'info');
  });
});

describe('redaction', () => {
  const redacted = createQueryRedaction({ redact: ['email'] });
  for (const [query, shown] of [
    ['token=hunter2', 'token=***'],
    ['a=1&TOKEN=hunter2&b=2', 'a=1&TOKEN=***&b=2'],
    ['%74oken=hunter2', '%74oken=***'],
    ['token[]=hunter2', 'token[]=***'],
    ['token%5B0%5D=hunter2', 'token%5B0%5D=***'],
    ['a=1;password=hunter2', 'a=1;password=***'],
    ['api%5Fkey=hunter2=hunter2', 'api%5Fkey=***'],
    ['email=me@example.com', 'email=***'],
    ['%zz=1&code=hunter2', '%zz=1&code=***'],
    ['tokens=3', 'tokens=3'],
    ['token', 'token'],
    ['', ''],
  ] as const) {
    it(`of ${query || 'nothing'}`, () => assert.equal(redacted(query), shown));
  }

  it('shows the headers that were asked for, secrets hidden, of both protocols alike', () => {
    const log = createAccessLog(() => {}, {
      ...plainAccessLog,
      headers: ['x-tenant', 'authorization', 'x-absent', 'x-id'],
      redact: ['x-id'],
    });
    const text =
      'GET / HTTP/1.1\r\nHost: x\r\nX-Tenant: one\r\nAuthorization: hunter2\r\nx-tenant:two\r\nX-ID: hunter2\r\n\r\n';
    const fields = [
      ['x-tenant', 'one'],
      ['authorization', 'hunter2'],
      ['x-tenant', 'two'],
      ['x-id', 'hunter2'],
    ].map(([name, value]) => ({ name: name!, value: value!, neverIndexed: false, kind: 0, line: '' }));
    for (const head of [text, fields]) {
      assert.deepEqual(log.shows?.(head), [
        ['x-tenant', 'one, two'],
        ['authorization', '***'],
        ['x-id', '***'],
      ]);
    }
    assert.equal(createAccessLog(() => {}).shows, undefined);
  });
});

describe('a sample', () => {
  it('is even, and keeps faults, replies of 500 and above, gRPC failures and slow ones', () => {
    const many = Array.from({ length: 1_000 }, () => entry);
    assert.equal(written(many, { sample: 0.05 }).length, 50);
    assert.equal(written(many, { sample: 0 }).length, 0);
    assert.equal(written(many, { sample: 1 }).length, 1_000);
    assert.equal(JSON.parse(written(many, { sample: 0.5 })[0]!).sample, 0.5);
    const kept: Partial<AccessEntry>[] = [
      { status: 503 },
      { fault: 'client-closed' },
      { grpcStatus: 13 },
      { startedAt: 0 },
    ];
    const lines = written(
      kept.map((changes) => ({ ...entry, ...changes })),
      { sample: 0, slowMs: 1_000 },
    );
    assert.equal(lines.length, 4);
    // They stand for themselves alone.
    assert.equal(JSON.parse(lines[0]!).sample, undefined);
  });
});
