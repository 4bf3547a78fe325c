// Hosts, resolvers and logs that mean harm: endless, silent, garbled, cut anywhere. There is a verdict, in time and within memory.

import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import {
  judge,
  loadSeen,
  parseTarget,
  SavedError,
  type Seen,
  saveSeen,
  TargetError,
  type Verification,
  verify,
} from '../../../evidence/verify/index.ts';
import {
  createEvidenceWorld,
  type EvidenceHost,
  everywhere,
  type Lie,
  sha256,
  startEvidenceHost,
  type World,
} from '../../support/evidence-host.ts';

let world: World;

before(async () => {
  world = await createEvidenceWorld();
});

async function withHost<T>(lie: Lie, use: (host: EvidenceHost) => Promise<T>): Promise<T> {
  const host = await startEvidenceHost(world, lie);
  try {
    return await use(host);
  } finally {
    await host.close();
  }
}

const verdictOf = ({ checks }: Pick<Verification, 'checks'>, id: string) =>
  checks.find((check) => check.id === id)?.verdict;

describe('a reader who does not wait for ever', () => {
  /** As if all the time there is had passed. */
  const cut = () => AbortSignal.timeout(1_500);

  for (const [title, lie] of [
    ['says nothing', { files: { 'sha256sum.txt': () => ({ how: 'hang' as const }) } }],
    [
      'says a byte now and then',
      { files: { 'sha256sum.txt': (body: string) => ({ body, how: 'drip' as const }) } },
    ],
    ['never makes a quote', { attest: { reply: { how: 'hang' as const } } }],
  ] as const) {
    test(`has a verdict on a host that ${title}, and none of the checks that it kept from him fails`, async () => {
      const { verdict, checks } = await withHost(lie, (host) => verify({ ...host.options, signal: cut() }));
      assert.equal(verdict, 'unknown');
      assert.deepEqual(
        checks.filter((check) => check.verdict === 'fail'),
        [],
      );
    });
  }

  test('has a verdict where nobody listens', async () => {
    const host = await startEvidenceHost(world);
    await host.close();
    const found = await verify(host.options);
    assert.equal(found.verdict, 'unknown');
    assert.equal(verdictOf(found, 'tls.chain'), 'not-run');
    assert.match(found.checks[0]!.reason, /ECONNREFUSED/);
  });
});

test('a nonce is never asked for twice, not even where the host asks for patience', async () => {
  const lie: Lie = { attest: { reply: { status: 503 } } };
  const clock = { now: () => new Date(), sleep: async () => {} };
  const asked = await withHost(lie, async (host) => {
    await verify({ ...host.options, clock });
    return host.asked.filter((path) => path.includes('attest?'));
  });
  assert.equal(asked.length, 3);
  assert.equal(new Set(asked).size, 3);
  for (const path of asked) assert.match(path, /\?nonce=([0-9a-f]{2}){16,64}$/);
});

test('a host that is changing its certificate is asked again, each time over a connection of its own', async () => {
  const old = await world.ca.issue(['localhost']);
  // The first connection still shows the old certificate.
  const found = await withHost({ served: [old, world.served], published: world.served }, (host) =>
    verify(host.options),
  );
  assert.equal(verdictOf(found, 'bundle.leaf'), 'pass');
  assert.equal(verdictOf(found, 'attest.key'), 'pass');
  // All the same there were two keys.
  assert.equal(verdictOf(found, 'tls.pinned'), 'fail');
});

test('an answer that was given before is no answer', async () => {
  let recorded: unknown;
  const record = (honest: Record<string, unknown>) => (recorded ??= honest);
  const again = await withHost({ attest: { answer: record } }, async (host) => {
    assert.equal(verdictOf(await verify(host.options), 'attest.nonce'), 'pass');
    return verify(host.options);
  });
  const failed = again.checks.filter(({ verdict }) => verdict === 'fail').map(({ id }) => id);
  assert.deepEqual(failed, ['attest.nonce', 'attest.exporter']);
});

test('what a host says stands in reasons as plain text, and not at any length', async () => {
  const evil = `\u001b]0;owned\u0007\u009b31m\u202eelpmaxe\u2028${'a'.repeat(200_000)}`;
  const { checks } = await withHost(
    { ...everywhere({ keyProvider: evil }), statement: (honest) => ({ ...honest, domains: [evil] }) },
    (host) => verify(host.options),
  );
  assert.equal(checks.find(({ id }) => id === 'statement.content')?.verdict, 'fail');
  for (const { id, reason } of checks) {
    assert.ok(reason.length <= 2_001, id);
    assert.doesNotMatch(reason, /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u, id);
  }
});

test('how many resolvers have validated what they say is told, and is no verdict', async () => {
  const validating = (_: unknown, honest: Buffer) => {
    const reply = Buffer.from(honest);
    reply.writeUInt16BE(reply.readUInt16BE(2) | 0x0020, 2);
    return [reply];
  };
  await withHost({}, async (host) => {
    for (const [resolver, said] of [
      [undefined, /none of them has validated it \(DNSSEC\)$/],
      [host.resolvers[0], /1 of them have validated it/],
      [host.resolvers[1], /all of them have validated it/],
    ] as const) {
      resolver?.misanswer(validating);
      const { checks } = await verify(host.options);
      const { verdict, reason } = checks.find(({ id }) => id === 'dns.agreement')!;
      assert.equal(verdict, 'pass');
      assert.match(reason, said);
    }
    for (const { query, transport } of host.resolvers[0].asked)
      if (transport === 'https') assert.equal(query.readUInt16BE(2) & 0x0020, 0x0020, 'it is asked for');
  });
});

test('what a host names as no disk would can be kept, and judged again', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'hostile-'));
  const name = 'a'.repeat(300);
  const lie: Lie = {
    sums: (honest) => `${honest}${sha256('x')}  ${name}\n`,
    files: { [name]: () => 'x' },
  };
  try {
    const live = await withHost(lie, async (host) => {
      const found = await verify(host.options);
      return { ...found, expected: host.options.expected };
    });
    assert.equal(verdictOf(live, 'bundle.sums'), 'pass');
    await saveSeen(join(folder, 'kept'), live.seen);
    const seen = await loadSeen(join(folder, 'kept'));
    const again = await judge(seen, live.expected, new Date(seen.at));
    assert.deepEqual(again.checks, live.checks);

    const path = join(folder, 'kept', 'seen.json');
    const saved = JSON.parse(await readFile(path, 'utf8'));
    for (const chain of [['AAAA'], [saved.connections[1].chain[0], 'AAAA'].reverse()]) {
      await writeFile(path, JSON.stringify({ ...saved, connections: [{ ...saved.connections[0], chain }] }));
      await assert.rejects(loadSeen(join(folder, 'kept')), SavedError);
    }
    await writeFile(path, JSON.stringify(saved));
    await writeFile(join(folder, 'kept', 'quote-collateral.json'), '{}');
    await assert.rejects(loadSeen(join(folder, 'kept')), SavedError);
  } finally {
    await rm(folder, { recursive: true });
  }
});

describe('what was seen, damaged in any way', () => {
  let seen: Seen;
  let host: EvidenceHost;

  before(async () => {
    host = await startEvidenceHost(world);
    seen = (await verify(host.options)).seen;
    await host.close();
  });

  const got = (body: Buffer) => ({ state: 'got' as const, body });
  /** Without collateral, which costs time and has no part in this: what is not damaged then fails in nothing. */
  const judged = (changed: Partial<Seen>) =>
    judge({ ...seen, collateral: undefined, ...changed }, host.options.expected, new Date(seen.at));

  test('fails in nothing while it is whole', async () => {
    assert.equal((await judged({})).verdict, 'unknown');
  });

  const documents: readonly [name: string, change: (body: Buffer) => Partial<Seen>, body: () => Buffer][] = [
    [
      'quote.json',
      (body) => ({ bundle: { ...seen.bundle, quote: got(body) } }),
      () => bodyOf(seen.bundle.quote),
    ],
    [
      'sha256sum.txt',
      (body) => ({ bundle: { ...seen.bundle, sums: got(body) } }),
      () => bodyOf(seen.bundle.sums),
    ],
    ['attestation.json', (body) => ({ statement: got(body) }), () => bodyOf(seen.statement)],
    ['history.jsonl', (body) => ({ history: got(body) }), () => bodyOf(seen.history)],
    [
      'the answer to our nonce',
      (body) => ({ attest: { ...seen.attest, answer: got(body) } }),
      () => bodyOf(seen.attest.answer),
    ],
  ];
  function bodyOf(file: Seen['statement']): Buffer {
    assert.ok(file.state === 'got');
    return file.body;
  }

  for (const [name, change, body] of documents) {
    test(`${name} cut anywhere fails`, async () => {
      const whole = body();
      const step = Math.max(1, Math.floor(whole.length / 12));
      for (let end = 0; end < whole.length; end += step) {
        const { verdict } = await judged(change(whole.subarray(0, end)));
        assert.equal(verdict, 'fail', `cut at ${end} of ${whole.length}`);
      }
    });

    test(`${name} of a mebibyte of brackets, lines or zeros fails`, async () => {
      for (const filler of ['[', '{"a":', '\n', '\0']) {
        const { verdict } = await judged(change(Buffer.alloc(1024 * 1024, filler)));
        assert.equal(verdict, 'fail');
      }
    });
  }

  test('a quote cut at any byte of its signed part fails', async () => {
    const quote = JSON.parse(bodyOf(seen.bundle.quote).toString()) as { quote: string };
    for (let end = 0; end < 700; end += 29) {
      const body = Buffer.from(JSON.stringify({ ...quote, quote: quote.quote.slice(0, end * 2) }));
      assert.equal((await judged({ bundle: { ...seen.bundle, quote: got(body) } })).verdict, 'fail');
    }
  });
});

test('the address of a host is https, and nothing but a host and a port', () => {
  for (const text of [
    'http://a.example',
    'a.example',
    'https://a.example/path',
    'https://a.example/?q',
    'https://a.example?',
    'https://a.example#',
    'https://me@a.example',
    'https://',
    'https://a.example:99999',
    '',
  ])
    assert.throws(() => parseTarget(text), TargetError, text);
  assert.deepEqual(parseTarget('https://App.example.com.:8443/'), { host: 'app.example.com', port: 8443 });
  // A name in other letters is shown as what it is.
  assert.equal(parseTarget('https://\u0430pp.example.com').host, 'xn--pp-6kc.example.com');
  assert.deepEqual(parseTarget('https://[::1]'), { host: '::1', port: 443 });
});
