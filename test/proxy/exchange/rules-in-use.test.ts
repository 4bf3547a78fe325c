// Rules on their way into use: compiled with room for visitors in between, and whole or not at all.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compileInPauses, createRules } from '../../../proxy/exchange/rules-in-use.ts';
import type { RuleSet, Site } from '../../../proxy/rules/model.ts';
import { prefix, re, t } from '../rules/driver.ts';

function sites(count: number): RuleSet {
  return {
    sites: Array.from({ length: count }, (_, i): Site => {
      const name = `s${i}.test`;
      const locations = [prefix('/', { rewrite: [{ do: 'return', status: 200, body: t(name) }] })];
      return { names: [{ kind: 'exact', name }], label: name, locations };
    }),
  };
}

test('a hundred sites, each of which takes a while, leave a hundred turns to others', async () => {
  let time = 0;
  let turns = 0;
  let isDone = false;
  const turn = () => {
    turns++;
    if (!isDone) setImmediate(turn);
  };
  setImmediate(turn);
  // Each look at the clock is 3 ms later: after one step it is time for the others.
  const compiled = await compileInPauses(sites(100), () => {
    time += 3;
    return time;
  });
  isDone = true;
  assert.equal(compiled.sites.length, 100);
  assert.ok(turns >= 100, `${turns}`);
});

test('what is compiled so is what is served, and what cannot be compiled leaves the old in force', async () => {
  const rules = createRules();
  rules.set(await compileInPauses(sites(3)));
  assert.equal(rules.siteFor('s2.test'), 's2.test');
  const broken: RuleSet = {
    sites: [
      ...sites(2).sites,
      {
        names: [{ kind: 'pattern', pattern: re('x') }],
        label: 'x',
        locations: [
          prefix('/', { content: { kind: 'proxy', upstream: 'none', protocol: 'http', host: 'x' } }),
        ],
      },
    ],
  };
  await assert.rejects(compileInPauses(broken));
  assert.equal(rules.siteFor('s2.test'), 's2.test');
});
