// What resolvers say is taken for true only when it answers the question; silence and failure are never "nothing there".

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { DnsError } from '../../dns/error.ts';
import type { DnsRecord, RecordType } from '../../dns/provider.ts';
import { createResolver, type Resolver, waitForRecords } from '../../dns/resolver.ts';
import { decodeMessage, encodeMessage, encodeName } from '../../dns/wire/message.ts';
import type { Clock } from '../../src/lib/clock.ts';
import { createLog } from '../../src/lib/log.ts';
import { type DnsDouble, startDnsDouble } from '../support/dns-double.ts';

const table = {
  'A gw.example.net': ['192.0.2.1', '192.0.2.2'],
  'CNAME app.example.com': ['gw.example.net'],
  'TXT _dstack-app-address.app.example.com': ['abc:443'],
  'CAA example.com': ['0 issue "letsencrypt.org;accounturi=https://ca.example/acct/1"'],
  'TXT long.example.com': ['x'.repeat(700)],
  'CNAME one.example.com': ['two.example.com'],
  'CNAME two.example.com': ['one.example.com'],
};

const doubles: DnsDouble[] = [];
after(() => Promise.all(doubles.map((double) => double.stop())));

async function start(records: Record<string, string[]> = table): Promise<DnsDouble> {
  const double = await startDnsDouble(records);
  doubles.push(double);
  return double;
}

async function rejected(run: Promise<unknown>): Promise<DnsError> {
  const error = await run.then(
    (value) => assert.fail(`it resolved to ${JSON.stringify(value)}`),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof DnsError, String(error));
  return error;
}

const withCode = (message: Buffer, code: number) => {
  const copy = Buffer.from(message);
  copy.writeUInt16BE((copy.readUInt16BE(2) & 0xfff0) | code, 2);
  return copy;
};

for (const transport of ['plain', 'https'] as const) {
  describe(`over ${transport}`, () => {
    const through = (double: DnsDouble, timeoutMs = 400) =>
      transport === 'plain'
        ? createResolver({ servers: [double.server], timeoutMs })
        : createResolver({ doh: [double.doh], timeoutMs });

    test('records of every type are read, and aliases are followed', async () => {
      const resolver = through(await start());
      assert.deepEqual(await resolver.resolve('gw.example.net', 'A'), ['192.0.2.1', '192.0.2.2']);
      assert.deepEqual(await resolver.resolve('APP.example.com.', 'CNAME'), ['gw.example.net']);
      assert.deepEqual(await resolver.resolve('app.example.com', 'A'), ['192.0.2.1', '192.0.2.2']);
      assert.deepEqual(await resolver.resolve('_dstack-app-address.app.example.com', 'TXT'), ['abc:443']);
      assert.deepEqual(await resolver.resolve('example.com', 'CAA'), table['CAA example.com']);
      assert.deepEqual(await resolver.resolve('long.example.com', 'TXT'), ['x'.repeat(700)]);
    });

    test('a name that does not exist, and one without such records, have none', async () => {
      const resolver = through(await start());
      assert.deepEqual(await resolver.resolve('nowhere.example.com', 'TXT'), []);
      assert.deepEqual(await resolver.resolve('gw.example.net', 'TXT'), []);
    });

    test('a failing server is an error and not an empty answer', async () => {
      const double = await start();
      double.misanswer((_, honest) => [withCode(honest, 2)]);
      assert.equal((await rejected(through(double).resolve('gw.example.net', 'A'))).code, 'unreachable');
      double.misanswer((_, honest) => [withCode(honest, 5)]);
      const refused = await rejected(through(double).resolve('gw.example.net', 'A'));
      assert.equal(refused.code, 'refused');
      assert.match(refused.message, /REFUSED/);
    });

    test('CNAMEs that lead round in a circle end in an error', async () => {
      const error = await rejected(through(await start()).resolve('one.example.com', 'A'));
      assert.equal(error.code, 'unintelligible');
      assert.match(error.message, /one\.example\.com -> two\.example\.com/);
    });

    test('a chain of aliases without an end is given up', async () => {
      const double = await start();
      double.misanswer(({ question }, honest) => {
        const message = decodeMessage(honest);
        const data = encodeName(`x${question.name}`);
        return [
          encodeMessage({
            ...message,
            flags: 0x8180,
            answers: [{ name: question.name, type: 5, class: 1, ttl: 0, data }],
          }),
        ];
      });
      assert.equal((await rejected(through(double).resolve('a.example', 'A'))).code, 'unintelligible');
      assert.ok(double.asked.length < 20);
    });

    test('an answer to another question does not count', async () => {
      const double = await start();
      double.misanswer((_, honest) => {
        const message = decodeMessage(honest);
        return [encodeMessage({ ...message, questions: [{ name: 'evil.example', type: 1, class: 1 }] })];
      });
      assert.equal(
        (await rejected(through(double, 150).resolve('gw.example.net', 'A'))).code,
        'unintelligible',
      );
    });

    test('a record at the name goes before an alias of the same name', async () => {
      const double = await start();
      const [pin] = table['CAA example.com'];
      double.table.set('CAA app.example.com', [pin!]);
      assert.deepEqual(await through(double).resolve('app.example.com', 'CAA'), [pin]);
    });

    test('bytes that are no message are an error', async () => {
      const double = await start();
      double.misanswer(({ query }) => [
        Buffer.concat([query.subarray(0, 2), Buffer.from('8180000100ff00000000', 'hex')]),
      ]);
      assert.equal(
        (await rejected(through(double, 150).resolve('gw.example.net', 'A'))).code,
        'unintelligible',
      );
    });

    test('silence ends after the time given', async () => {
      const double = await start();
      double.misanswer(() => []);
      if (transport === 'plain')
        assert.equal((await rejected(through(double, 80).resolve('a.example', 'A'))).code, 'unreachable');
    });
  });
}

test('forged datagrams with a wrong id come first, and the true answer behind them counts', async () => {
  const double = await start();
  double.misanswer((_, honest) => {
    const forged = Buffer.from(honest);
    forged.writeUInt16BE((forged.readUInt16BE() + 1) & 0xffff);
    forged.fill(6, forged.length - 4);
    return [forged, honest];
  });
  const resolver = createResolver({ servers: [double.server], timeoutMs: 500 });
  assert.deepEqual(await resolver.resolve('gw.example.net', 'A'), ['192.0.2.1', '192.0.2.2']);
});

test('a truncated answer is asked for again over TCP', async () => {
  const double = await start();
  double.misanswer(({ transport }, honest) => {
    if (transport === 'tcp') return [honest];
    const cut = Buffer.from(honest.subarray(0, 20));
    cut.writeUInt16BE(cut.readUInt16BE(2) | 0x0200, 2);
    return [cut];
  });
  const resolver = createResolver({ servers: [double.server], timeoutMs: 500 });
  assert.deepEqual(await resolver.resolve('long.example.com', 'TXT'), ['x'.repeat(700)]);
  assert.deepEqual(
    double.asked.map(({ transport }) => transport),
    ['udp', 'tcp'],
  );
});

test('a truncated answer over TCP is not taken for the whole', async () => {
  const double = await start();
  double.misanswer((_, honest) => {
    const cut = Buffer.from(honest);
    cut.writeUInt16BE(cut.readUInt16BE(2) | 0x0200, 2);
    return [cut];
  });
  const resolver = createResolver({ servers: [double.server], timeoutMs: 500 });
  assert.equal((await rejected(resolver.resolve('gw.example.net', 'A'))).code, 'unintelligible');
});

test('a lost datagram is sent again', async () => {
  const double = await start();
  let lost = 0;
  double.misanswer((_, honest) => (lost++ === 0 ? [] : [honest]));
  const resolver = createResolver({ servers: [double.server], timeoutMs: 4_000 });
  assert.deepEqual(await resolver.resolve('example.com', 'CAA'), table['CAA example.com']);
});

test('each question has an id of its own, and over HTTPS none', async () => {
  const double = await start();
  const plain = createResolver({ servers: [double.server] });
  const doh = createResolver({ doh: [double.doh] });
  for (let round = 0; round < 8; round++) await plain.resolve('gw.example.net', 'A');
  await doh.resolve('gw.example.net', 'A');
  const ids = double.asked.map(({ query }) => query.readUInt16BE());
  assert.ok(new Set(ids.slice(0, 8)).size > 4);
  assert.equal(ids[8], 0);
});

test('of several resolvers the union counts, and as many failures as the quorum allows do no harm', async () => {
  const [one, two, three] = [
    await start({ 'TXT a.example': ['1'] }),
    await start({ 'TXT a.example': ['2'] }),
    await start({}),
  ];
  three.misanswer((_, honest) => [withCode(honest, 2)]);
  const servers = [one.server, two.server, three.server];
  assert.deepEqual((await createResolver({ servers }).resolve('a.example', 'TXT')).sort(), ['1', '2']);
  const strict = createResolver({ servers, quorum: 3 });
  assert.match(
    (await rejected(strict.resolve('a.example', 'TXT'))).message,
    /too few resolvers answered.*SERVFAIL/,
  );
});

test('addresses that cannot be a resolver are refused before anything is asked', () => {
  for (const options of [
    { servers: ['dns.example.com'] },
    { servers: ['127.0.0.1:99999'] },
    { doh: ['http://dns.example.com/dns-query'] },
    { doh: ['not a url'] },
    { servers: [], doh: [] },
  ]) {
    assert.throws(() => createResolver(options), { code: 'unsupported' });
  }
});

test('addresses with and without port are read, IPv6 too', () => {
  const resolver = createResolver({
    servers: ['192.0.2.1', '192.0.2.1:53', '[2001:db8::1]:53', '2001:db8::1'],
  });
  assert.equal(resolver.views?.length, 4);
});

test("the JSON address of Google's resolver, as the images before had it, is asked in the standard's form", () => {
  const resolver = createResolver({ doh: ['https://dns.google/resolve'] });
  assert.equal(resolver.views?.[0]?.server, 'https://dns.google/dns-query');
});

describe('waiting for records', () => {
  const wanted: DnsRecord = { name: 'a.example', type: 'TXT', value: 'ours' };

  /** A clock whose sleeps take no time. */
  function fastClock(onSleep: (slept: number) => void = () => {}): Clock {
    let now = 0;
    let sleeps = 0;
    return {
      now: () => new Date(now),
      async sleep(ms) {
        now += ms;
        onSleep(++sleeps);
      },
    };
  }

  function view(server: string, answers: Partial<Record<RecordType, string[] | Error>>) {
    return {
      server,
      async resolve(_name: string, type: RecordType) {
        const answer = answers[type] ?? [];
        if (answer instanceof Error) throw answer;
        return answer;
      },
    };
  }

  function resolverOf(...views: ReturnType<typeof view>[]): Resolver {
    return { views, quorum: Math.ceil(views.length / 2), resolve: views[0]!.resolve };
  }

  test('ends only when every resolver has every value', async () => {
    const late: Record<string, string[]> = { TXT: [] };
    const resolver = resolverOf(view('one', { TXT: ['theirs', 'ours'] }), view('two', late));
    let looks = 0;
    const clock = fastClock((slept) => {
      looks = slept;
      if (slept === 3) late.TXT = ['ours'];
    });
    await waitForRecords([wanted], { resolver, timeoutMs: 60_000, clock });
    assert.equal(looks, 3);
  });

  test('ends at its time-out although the clock is set back at every look', async () => {
    let nowMs = 1e12;
    let passedMs = 0;
    const clock: Clock = {
      now: () => new Date(nowMs),
      monotonicMs: () => passedMs,
      async sleep(ms) {
        passedMs += ms;
        nowMs -= 3_600_000;
      },
    };
    const resolver = resolverOf(view('one', {}));
    const error = await rejected(waitForRecords([wanted], { resolver, timeoutMs: 60_000, clock }));
    assert.match(error.message, /not in DNS after 60 s/);
    assert.equal(passedMs, 60_000);
  });

  test('two values of one name must both be seen', async () => {
    const resolver = resolverOf(view('one', { TXT: ['ours'] }));
    const both = [wanted, { ...wanted, value: 'ours too' }];
    const error = await rejected(waitForRecords(both, { resolver, timeoutMs: 10_000, clock: fastClock() }));
    assert.equal(error.code, 'not-visible');
  });

  test('the error says what is missing, what is there instead, and who says so', async () => {
    const resolver = resolverOf(view('resolver-one', { TXT: ['stale'] }), view('resolver-two', {}));
    const error = await rejected(
      waitForRecords([wanted], { resolver, timeoutMs: 9_000, clock: fastClock() }),
    );
    assert.match(error.message, /after 9 s.*TXT a\.example should be ours; resolver-one: there is stale/);
    assert.match(error.message, /resolver-two: there is none/);
  });

  test('a resolver that fails does not hold up those that answer, unless too many fail', async () => {
    const broken = view('broken', { TXT: new DnsError('unreachable', 'broken said SERVFAIL') });
    const good = view('good', { TXT: ['ours'] });
    await waitForRecords([wanted], {
      resolver: resolverOf(good, broken),
      timeoutMs: 1_000,
      clock: fastClock(),
    });
    const error = await rejected(
      waitForRecords([wanted], {
        resolver: resolverOf(good, broken, broken),
        timeoutMs: 1_000,
        clock: fastClock(),
      }),
    );
    assert.match(error.message, /broken: broken said SERVFAIL/);
  });

  test('an alias counts as seen when it is flattened to addresses of its target', async () => {
    const alias: DnsRecord = { name: 'example.com', type: 'CNAME', value: 'gw.example.net' };
    const flat = resolverOf(view('one', { CNAME: [], A: ['192.0.2.1'] }));
    await waitForRecords([alias], { resolver: flat, timeoutMs: 0, clock: fastClock() });
    const nowhere = resolverOf(view('one', { CNAME: ['elsewhere.example'] }));
    await rejected(waitForRecords([alias], { resolver: nowhere, timeoutMs: 0, clock: fastClock() }));
  });

  test('the log tells of a missing record now and then, with its particulars', async () => {
    const lines: Record<string, unknown>[] = [];
    const stream = {
      write: (line: string) => lines.push(JSON.parse(line)),
    } as unknown as NodeJS.WritableStream;
    const resolver = resolverOf(view('one', { TXT: ['stale'] }));
    const options = {
      resolver,
      timeoutMs: 65_000,
      intervalMs: 5_000,
      clock: fastClock(),
      log: createLog({ stream }),
    };
    await rejected(waitForRecords([wanted], options));
    assert.equal(lines.length, 3);
    assert.equal(lines[0]?.msg, 'waiting for a DNS record');
    assert.deepEqual(
      [lines[0]?.name, lines[0]?.values, lines[0]?.seen, lines[0]?.server],
      ['a.example', ['ours'], ['stale'], 'one'],
    );
  });

  test('giving up ends the wait with the reason given', async () => {
    const controller = new AbortController();
    const resolver = resolverOf(view('one', {}));
    const clock = fastClock((slept) => slept === 2 && controller.abort(new Error('the ingress stops')));
    const run = waitForRecords([wanted], { resolver, timeoutMs: 1e9, clock, signal: controller.signal });
    await assert.rejects(run, /the ingress stops/);
  });
});
