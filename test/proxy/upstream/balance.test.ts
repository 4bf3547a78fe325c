// The choice among an upstream's addresses: fair, up to date, and never without a guess.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { UpstreamSettings } from '../../../proxy/rules/routes.ts';
import { createDeadlines } from '../../../proxy/socket/deadlines.ts';
import { createBalance, type Endpoint } from '../../../proxy/upstream/balance.ts';
import { createTroubles } from '../../../proxy/upstream/troubles.ts';
import { eventually, settingsFor } from '../../support/proxy.ts';

const health = {
  probe: { type: 'tcp' },
  intervalMs: 1_000,
  timeoutMs: 1_000,
  unhealthyAfter: 3,
  healthyAfter: 2,
} as const;

/** A balance whose clock and name servers are the test's. */
function setUp() {
  let now = 1_000_000;
  let answer: readonly string[] | Error = ['10.0.0.1'];
  const asked: string[] = [];
  const checks = new Map<string, (healthy: boolean) => void>();
  const retired: string[] = [];
  const balance = createBalance({
    deadlines: createDeadlines(() => now),
    names: {
      async resolve(name) {
        asked.push(name);
        if (answer instanceof Error) throw answer;
        return { addresses: answer, lifetimeMs: 20_000 };
      },
    },
    troubles: createTroubles(() => {}),
    check(endpoint, _health, changed) {
      checks.set(endpoint.ip, changed);
      return () => void checks.delete(endpoint.ip);
    },
  });
  balance.onRetired((endpoint) => retired.push(endpoint.ip));
  return {
    balance,
    asked,
    checks,
    retired,
    pass: (ms: number) => {
      now += ms;
    },
    answer: (next: readonly string[] | Error) => {
      answer = next;
    },
    resolved: (settings: UpstreamSettings) =>
      new Promise<void>((resolve) => balance.resolve(settings, resolve)),
  };
}

const named = (...hosts: string[]) =>
  settingsFor(80, 'http', { addresses: hosts.map((host) => ({ host, port: 80 })) });
const notFound = Object.assign(new Error('not found'), { code: 'ENOTFOUND' });

describe('the load', () => {
  it('goes to all addresses of a name, the least busy first', async () => {
    const { balance, answer, resolved } = setUp();
    answer(['10.0.0.1', '10.0.0.2', '10.0.0.3']);
    const settings = named('app');
    await resolved(settings);
    const first = [1, 2, 3].map(() => balance.pick(settings)!.ip);
    assert.deepEqual(first.toSorted(), ['10.0.0.1', '10.0.0.2', '10.0.0.3'], 'equals take turns');
    const busy = Array.from({ length: 10 }, () => {
      const endpoint = balance.pick(settings)!;
      if (endpoint.ip !== '10.0.0.2') endpoint.active += 5;
      return endpoint.ip;
    });
    assert.deepEqual(new Set(busy.slice(3)), new Set(['10.0.0.2']));
  });

  it('goes to all names and addresses of a list, one that cannot be resolved aside', async () => {
    const { balance, answer, resolved } = setUp();
    const settings = named('10.0.0.9', 'app');
    answer(notFound);
    await resolved(settings);
    assert.equal(balance.isResolved(settings), true);
    for (let i = 0; i < 4; i++) assert.equal(balance.pick(settings)?.ip, '10.0.0.9');
  });
});

describe('a name', () => {
  it('is asked again when its time is over, and nobody waits for the answer', async () => {
    const { balance, asked, answer, resolved, retired, pass } = setUp();
    const settings = named('app');
    assert.equal(balance.isResolved(settings), false);
    await resolved(settings);
    answer(['10.0.0.2']);
    pass(19_999);
    assert.equal(balance.pick(settings)?.ip, '10.0.0.1');
    assert.deepEqual(asked, ['app']);
    pass(1);
    assert.equal(balance.isResolved(settings), true);
    for (let i = 0; i < 5; i++) assert.equal(balance.pick(settings)?.ip, '10.0.0.1');
    await eventually(() => balance.pick(settings)?.ip === '10.0.0.2');
    assert.deepEqual(asked, ['app', 'app']);
    assert.deepEqual(retired, ['10.0.0.1']);
  });

  it('that was not used for long is looked up first: its address may be another’s by now', async () => {
    const { balance, answer, resolved, pass } = setUp();
    const settings = named('app');
    await resolved(settings);
    answer(['10.0.0.2']);
    pass(60_000);
    assert.equal(balance.isResolved(settings), false);
    await resolved(settings);
    assert.equal(balance.pick(settings)?.ip, '10.0.0.2');
  });

  it('keeps its addresses while it cannot be resolved, but not for ever', async () => {
    const { balance, answer, asked, resolved, pass } = setUp();
    const settings = named('app');
    await resolved(settings);
    answer(notFound);
    for (let minute = 0; minute < 5; minute++) {
      pass(60_000);
      await resolved(settings);
      assert.equal(balance.pick(settings)?.ip, '10.0.0.1');
    }
    pass(60_000);
    await resolved(settings);
    assert.equal(balance.pick(settings), undefined);
    assert.equal(balance.noneFault(settings).code, 'upstream-unresolved');
    const count = asked.length;
    // For a moment the failure is the answer: every request would ask otherwise.
    assert.equal(balance.isResolved(settings), true);
    balance.pick(settings);
    assert.equal(asked.length, count);
    answer(['10.0.0.7']);
    pass(1_000);
    assert.equal(balance.isResolved(settings), false);
    await resolved(settings);
    assert.equal(balance.pick(settings)?.ip, '10.0.0.7');
  });

  it('is asked at once when a connection fails', async () => {
    const { balance, answer, asked, resolved, pass } = setUp();
    const settings = named('app');
    await resolved(settings);
    answer(['10.0.0.2']);
    pass(2_000);
    const old = balance.pick(settings)!;
    balance.report(old, 'unreachable');
    assert.equal(balance.isAsking(settings), true);
    await resolved(settings);
    assert.equal(balance.pick(settings, new Set([old]))?.ip, '10.0.0.2');
    balance.report(balance.pick(settings)!, 'unreachable');
    assert.deepEqual(asked, ['app', 'app'], 'an answer just got is believed');
  });
});

describe('an address that fails', () => {
  const pair = () => named('10.0.0.1', '10.0.0.2');
  const find = (balance: ReturnType<typeof setUp>['balance'], settings: UpstreamSettings, ip: string) => {
    for (;;) {
      const endpoint = balance.pick(settings)!;
      if (endpoint.ip === ip) return endpoint;
    }
  };
  const share = (balance: ReturnType<typeof setUp>['balance'], settings: UpstreamSettings, ip: string) =>
    Array.from({ length: 10 }, () => balance.pick(settings)?.ip).filter((picked) => picked === ip).length;

  it('is left out for longer each time, and comes back for good with the first success', () => {
    const { balance, pass } = setUp();
    const settings = pair();
    const bad = find(balance, settings, '10.0.0.1');
    for (let i = 0; i < 2; i++) balance.report(bad, 'failed');
    assert.equal(share(balance, settings, '10.0.0.1'), 5, 'two failures may be chance');
    balance.report(bad, 'failed');
    const pauses: number[] = [];
    for (let round = 0; round < 8; round++) {
      let waited = 0;
      for (; share(balance, settings, '10.0.0.1') === 0; waited += 500) pass(500);
      pauses.push(waited);
      balance.report(bad, 'failed');
    }
    assert.deepEqual(pauses, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
    pass(60_000);
    balance.report(bad, 'well');
    balance.report(bad, 'failed');
    assert.equal(share(balance, settings, '10.0.0.1'), 5);
  });

  it('to connect is left out at once', () => {
    const { balance } = setUp();
    const settings = pair();
    balance.report(find(balance, settings, '10.0.0.2'), 'unreachable');
    assert.equal(share(balance, settings, '10.0.0.2'), 0);
  });

  it('is tried all the same when all others are ejected too: the one whose pause ends first', () => {
    const { balance, pass } = setUp();
    const settings = pair();
    balance.report(find(balance, settings, '10.0.0.2'), 'unreachable');
    pass(100);
    balance.report(find(balance, settings, '10.0.0.1'), 'unreachable');
    assert.equal(share(balance, settings, '10.0.0.2'), 10);
    assert.equal(share(balance, named('10.0.0.3'), '10.0.0.3'), 10);
  });
});

describe('health', () => {
  it('decides which address is picked, and without a healthy one none is', () => {
    const { balance, checks } = setUp();
    const settings = { ...named('10.0.0.1', '10.0.0.2'), health };
    balance.serve([settings]);
    checks.get('10.0.0.1')!(false);
    for (let i = 0; i < 4; i++) assert.equal(balance.pick(settings)?.ip, '10.0.0.2');
    checks.get('10.0.0.2')!(false);
    assert.equal(balance.pick(settings), undefined);
    assert.equal(balance.noneFault(settings).code, 'upstream-unavailable');
    checks.get('10.0.0.1')!(true);
    assert.equal(balance.pick(settings)?.ip, '10.0.0.1');
  });

  it('outlives a reload that changes nothing, and ends with one that does', () => {
    const { balance, checks, retired } = setUp();
    const settings = () => ({ ...named('10.0.0.1'), health });
    const first = settings();
    balance.serve([first]);
    checks.get('10.0.0.1')!(false);
    const again = settings();
    balance.serve([again]);
    assert.equal(balance.pick(again), undefined);
    balance.serve([named('10.0.0.1')]);
    assert.equal(checks.size, 0);
    assert.deepEqual(retired, ['10.0.0.1']);
    balance.serve([first]);
    assert.equal(checks.size, 1, 'settings that come back are checked anew');
    assert.equal(balance.pick(first)?.ip, '10.0.0.1');
    balance.close();
    assert.equal(checks.size, 0);
  });

  it('follows a name to its new addresses', async () => {
    const { balance, checks, answer, resolved, pass } = setUp();
    const settings = { ...named('app'), health };
    balance.serve([settings]);
    await resolved(settings);
    assert.deepEqual([...checks.keys()], ['10.0.0.1']);
    answer(['10.0.0.2', '10.0.0.3']);
    pass(60_000);
    await resolved(settings);
    assert.deepEqual([...checks.keys()], ['10.0.0.2', '10.0.0.3']);
    balance.close();
  });
});

it('an endpoint that no route leads to any more is not kept, but may end what it has begun', () => {
  const { balance } = setUp();
  const settings = named('10.0.0.1');
  balance.serve([settings]);
  const endpoint: Endpoint = balance.pick(settings)!;
  balance.serve([]);
  assert.equal(endpoint.retired, true);
  balance.report(endpoint, 'well');
});

describe('shares', () => {
  const shared = (...servers: NonNullable<UpstreamSettings['servers']>) =>
    settingsFor(80, 'http', {
      addresses: servers.map((_, i) => ({ host: `10.0.0.${i + 1}`, port: 80 })),
      servers,
    });
  const turns = ({ balance }: ReturnType<typeof setUp>, settings: UpstreamSettings, count: number) =>
    Array.from({ length: count }, () => balance.pick(settings)?.ip.slice(-1)).join('');

  it('are given in turns that are spread evenly, by weight', () => {
    const world = setUp();
    assert.equal(turns(world, shared({ weight: 3 }, { weight: 1 }, {}), 10), '1213112131');
  });

  it('of those that stand by are given only where no other can be asked', () => {
    const world = setUp();
    const settings = shared({}, { backup: true });
    assert.equal(turns(world, settings, 3), '111');
    const first = world.balance.pick(settings)!;
    world.balance.report(first, 'unreachable');
    assert.equal(turns(world, settings, 3), '222');
    world.pass(60_000);
    assert.equal(turns(world, settings, 3), '111');
    assert.equal(world.balance.pick(settings, new Set([first]))?.ip, '10.0.0.2');
  });

  it('end where as many are under way as there may be', () => {
    const world = setUp();
    const settings = shared({ maxConnections: 2 }, { backup: true, maxConnections: 1 });
    const taken: Endpoint[] = [];
    for (let one = world.balance.pick(settings); one !== undefined; one = world.balance.pick(settings)) {
      one.active++;
      taken.push(one);
    }
    assert.deepEqual(
      taken.map(({ ip }) => ip),
      ['10.0.0.1', '10.0.0.1', '10.0.0.2'],
    );
    assert.equal(world.balance.noneFault(settings).status, 503);
  });

  it('are one for each key, and another one only while that cannot be asked', () => {
    const world = setUp();
    const settings = { ...shared({}, {}, {}), choice: 'key' as const };
    const of = (key: string) => world.balance.pick(settings, undefined, { key })!;
    const keys = Array.from({ length: 300 }, (_, i) => `visitor ${i}`);
    const before = keys.map((key) => of(key).ip);
    assert.deepEqual(
      keys.map((key) => of(key).ip),
      before,
    );
    assert.equal(new Set(before).size, 3);
    const lost = of(keys[0]!);
    world.balance.report(lost, 'unreachable');
    for (const [i, key] of keys.entries())
      if (before[i] === lost.ip) assert.notEqual(of(key).ip, lost.ip);
      else assert.equal(of(key).ip, before[i]);
    world.pass(60_000);
    assert.equal(of(keys[0]!).ip, lost.ip);
  });

  it('are left out for as long as their rule says after so many failures, and tried by one request then', () => {
    const { balance, pass } = setUp();
    const settings = shared({ maxFails: 2, failTimeoutMs: 5_000 }, { weight: 3 });
    const shared1 = () => Array.from({ length: 8 }, () => balance.pick(settings)!.ip);
    const one = Array.from({ length: 8 }, () => balance.pick(settings)!).find(({ ip }) => ip === '10.0.0.1')!;
    balance.report(one, 'unreachable');
    balance.report(one, 'well');
    assert.ok(shared1().includes('10.0.0.1'), 'one failure is not two');
    balance.report(one, 'failed');
    assert.ok(!shared1().includes('10.0.0.1'), 'a success within the time does not outweigh failures');
    pass(4_999);
    assert.ok(!shared1().includes('10.0.0.1'));
    pass(2);
    assert.equal(shared1().filter((ip) => ip === '10.0.0.1').length, 1, 'one request tries it');
    balance.report(one, 'failed');
    pass(4_999);
    assert.ok(!shared1().includes('10.0.0.1'), 'one failure was enough this time');
    pass(2);
    assert.ok(shared1().includes('10.0.0.1'));
    balance.report(one, 'well');
    assert.ok(shared1().includes('10.0.0.1'));
    balance.report(one, 'failed');
    assert.ok(shared1().includes('10.0.0.1'), 'what was before is forgotten');
  });

  it('are never left out where their rule says so', () => {
    const { balance } = setUp();
    const settings = shared({ maxFails: 0 }, { maxFails: 0 });
    const one = balance.pick(settings)!;
    for (let i = 0; i < 10; i++) balance.report(one, 'unreachable');
    assert.deepEqual(new Set([balance.pick(settings), balance.pick(settings)]).size, 2);
  });

  it('get the fewest requests for their weight, in turns if equal, where rules say least', () => {
    const { balance } = setUp();
    const settings = { ...shared({ weight: 2 }, {}), choice: 'least' as const };
    const taken = Array.from({ length: 9 }, () => {
      const endpoint = balance.pick(settings)!;
      endpoint.active++;
      return endpoint.ip;
    });
    assert.equal(taken.filter((ip) => ip === '10.0.0.1').length, 6);
  });

  it('are drawn by weight, or the less busy of two', () => {
    const { balance } = setUp();
    const drawn = { ...shared({ weight: 9 }, {}), choice: 'random' as const };
    const counts = Array.from({ length: 2_000 }, () => balance.pick(drawn)!.ip);
    const first = counts.filter((ip) => ip === '10.0.0.1').length;
    assert.ok(first > 1_600 && first < 1_960, String(first));
    const better = { ...shared({}, {}, {}), choice: 'best-of-two' as const };
    for (let i = 0; i < 300; i++) balance.pick(better)!.active++;
    const busiest = new Set(Array.from({ length: 60 }, () => balance.pick(better)!));
    for (const { active } of busiest) assert.ok(active > 80 && active < 120, String(active));
  });

  it('are spread over keys by their weights', () => {
    const { balance } = setUp();
    const settings = { ...shared({ weight: 3 }, {}), choice: 'key' as const };
    const chosen = Array.from(
      { length: 4_000 },
      (_, i) => balance.pick(settings, undefined, { key: `/${i}` })!.ip,
    );
    const first = chosen.filter((ip) => ip === '10.0.0.1').length;
    assert.ok(first > 2_850 && first < 3_150, String(first));
  });

  it('that a request prefers get it as long as they can be asked', () => {
    const { balance } = setUp();
    const settings = { ...shared({ maxConnections: 1 }, { weight: 5 }), choice: 'least' as const };
    const wish = { prefers: ({ ip }: Endpoint) => ip === '10.0.0.1' };
    const one = balance.pick(settings, undefined, wish)!;
    assert.equal(one.ip, '10.0.0.1');
    one.active++;
    assert.equal(balance.pick(settings, undefined, wish)!.ip, '10.0.0.2', 'it has all it may have');
    one.active--;
    assert.equal(balance.pick(settings, new Set([one]), wish)!.ip, '10.0.0.2', 'it was tried');
    balance.report(one, 'unreachable');
    assert.equal(balance.pick(settings, undefined, wish)!.ip, '10.0.0.2', 'it is left out');
  });

  it('that were not tried are known, those that are left out or full aside', () => {
    const { balance } = setUp();
    const settings = shared({ maxConnections: 1 }, {});
    const all = [balance.pick(settings)!, balance.pick(settings)!];
    const one = all.find(({ ip }) => ip === '10.0.0.1')!;
    const other = all.find(({ ip }) => ip === '10.0.0.2')!;
    assert.equal(balance.hasOther(settings, new Set([one])), true);
    assert.equal(balance.hasOther(settings, new Set([one, other])), false);
    one.active++;
    assert.equal(balance.hasOther(settings, new Set([other])), false, 'it is full');
    balance.report(other, 'unreachable');
    assert.equal(balance.hasOther(settings, new Set()), false, 'it is left out');
  });

  it('of the same address that is spoken to in another way of TLS are another endpoint', () => {
    const { balance } = setUp();
    const plain = settingsFor(443, 'https', { addresses: [{ host: '10.0.0.1', port: 443 }] });
    const lax = { ...plain, tls: { verify: false } };
    assert.notEqual(balance.pick(plain), balance.pick(lax));
    assert.equal(balance.pick(lax), balance.pick({ ...lax }));
  });
});
