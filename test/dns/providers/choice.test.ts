// The provider is found by its name or by the credentials that are set, and every problem is told at once.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseProvider, providerKinds } from '../../../dns/providers/choice.ts';

function chosen(env: Record<string, string>) {
  const choice = chooseProvider(env);
  assert.ok(choice !== undefined && 'kind' in choice, JSON.stringify(choice));
  return { name: choice.kind.name, credentials: choice.credentials };
}

function problems(env: Record<string, string>) {
  const choice = chooseProvider(env);
  assert.ok(choice !== undefined && 'problems' in choice, JSON.stringify(choice));
  return choice.problems;
}

test('without a name the credentials say which provider it is', () => {
  assert.deepEqual(chosen({ CLOUDFLARE_API_TOKEN: 'a' }), {
    name: 'cloudflare',
    credentials: { CLOUDFLARE_API_TOKEN: 'a' },
  });
  assert.equal(chosen({ LINODE_API_TOKEN: 'b' }).name, 'linode');
});

test('the names that lego users know are read under our own', () => {
  assert.deepEqual(chosen({ CF_DNS_API_TOKEN: 'a' }).credentials, { CLOUDFLARE_API_TOKEN: 'a' });
  assert.deepEqual(chosen({ LINODE_TOKEN: 'b' }).credentials, { LINODE_API_TOKEN: 'b' });
});

test('DNS_PROVIDER decides between credentials of several providers', () => {
  const both = { CLOUDFLARE_API_TOKEN: 'a', LINODE_API_TOKEN: 'b' };
  assert.equal(chosen({ ...both, DNS_PROVIDER: 'Linode' }).name, 'linode');
  assert.deepEqual(
    problems(both).map(({ variable }) => variable),
    ['DNS_PROVIDER'],
  );
});

test('a provider that is named without its credentials is a problem of the missing variable', () => {
  const [problem] = problems({ DNS_PROVIDER: 'cloudflare', LINODE_API_TOKEN: 'b' });
  assert.equal(problem?.variable, 'CLOUDFLARE_API_TOKEN');
  assert.match(problem?.cure ?? '', /CF_DNS_API_TOKEN/);
});

test('an unknown provider is refused with the list of known ones', () => {
  const [problem] = problems({ DNS_PROVIDER: 'cloudfare' });
  assert.equal(problem?.variable, 'DNS_PROVIDER');
  for (const { name } of providerKinds) assert.ok(problem?.subject.includes(name), name);
  assert.equal(problem?.cure, 'was cloudflare meant?');
});

test('an empty or blank credential counts as none', () => {
  assert.equal(chooseProvider({ CLOUDFLARE_API_TOKEN: '  ', DNS_PROVIDER: '' }), undefined);
  assert.equal(chooseProvider({}), undefined);
});

test('a line break pasted behind a token does not become a part of it', () => {
  assert.equal(chosen({ CLOUDFLARE_API_TOKEN: 'a\n' }).credentials.CLOUDFLARE_API_TOKEN, 'a');
});

test('an address of an API over which the token would travel in clear is refused', () => {
  for (const { create, variables } of providerKinds) {
    const address = variables.find(({ name }) => /_URL$/.test(name));
    const token = variables.find(({ secret }) => secret);
    if (address === undefined || token === undefined) continue;
    for (const bad of [
      'http://api.example.com/v4',
      'nonsense',
      'https://user:pass@api.example.com',
      'ftp://x.example',
    ]) {
      assert.throws(() => create({ [token.name]: 'a', [address.name]: bad }), { code: 'unsupported' }, bad);
    }
  }
});

test('a secret without what belongs to it is a problem, for its owner meant that provider', () => {
  assert.deepEqual(
    problems({ NAMECHEAP_API_KEY: 'a', NAMECHEAP_USERNAME: 'us' }).map(({ variable }) => variable),
    ['NAMECHEAP_CLIENT_IP'],
  );
  assert.deepEqual(
    problems({ RFC2136_TSIG_SECRET: 'c2VjcmV0' }).map(({ variable }) => variable),
    ['RFC2136_NAMESERVER', 'RFC2136_TSIG_KEY'],
  );
});

test('no two providers read the same variable, and each says what its variables mean', () => {
  const names = providerKinds.flatMap(({ variables }) =>
    variables.flatMap(({ name, aliases = [] }) => [name, ...aliases]),
  );
  assert.equal(new Set(names).size, names.length);
  for (const { meaning } of providerKinds.flatMap(({ variables }) => variables))
    assert.ok(meaning.length > 5);
});
