// The routes files in docs/ and examples/: they are sound, fit the schema, and send requests where they say.

import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Ajv } from 'ajv';
import { parse } from 'yaml';
import { explainRequest, readRequestLine } from '../../../../src/commands/check-explain.ts';
import { describeMistake } from '../../../../src/config/mistake.ts';
import { readRoutesFile } from '../../../../src/routes/yaml/file.ts';
import { keys } from '../../../../src/routes/yaml/keys.ts';
import { documentedFile as readFile } from '../../../support/documented-files.ts';

const root = fileURLToPath(new URL('../../../..', import.meta.url));
const page = (path: string) => readFileSync(`${root}/${path}`, 'utf8');
const fitsSchema = new Ajv({ strict: true, strictRequired: false }).compile(
  JSON.parse(page('docs/routes.schema.json')),
);
const timeouts = { connectTimeoutMs: 10_000, readTimeoutMs: 60_000, sendTimeoutMs: 30_000 };
const admin = { host: '127.0.0.1', port: 9180, token: undefined };
const ON_DISK = ['/srv/docs/a.html', '/srv/app/index.html', '/srv/www/index.html', '/srv/www/a.css'];
const disk = (kind: string, path: string) => kind === 'file' && ON_DISK.includes(path);

/** `# GET https://host/path: words that explain it`. */
function expectations(text: string): [request: string, words: string][] {
  return [...text.matchAll(/^# ([A-Z]+ https?:\/\/[^\s]+): (.+)$/gm)].map(([, request, words]) => [
    request!,
    words!,
  ]);
}

function judge(text: string, name: string): void {
  const { routes, rules, mistakes } = readRoutesFile(text, `/config/${name}`, { timeouts, readFile, admin });
  assert.deepEqual(mistakes.map(describeMistake), []);
  assert.ok(fitsSchema(parse(text)), JSON.stringify(fitsSchema.errors));
  const expected = expectations(text);
  assert.ok(expected.length > 0, `${name} says of no request where it goes`);
  for (const [asked, words] of expected) {
    const request = readRequestLine(asked);
    assert.ok(!('fault' in request), asked);
    const { lines } = explainRequest(request, routes, rules, disk);
    assert.ok(
      lines.some((line) => line.includes(words)),
      `${asked}: ${words}\n${lines.join('\n')}`,
    );
  }
}

const snippets = [...page('docs/routes.md').matchAll(/^```yaml\n(.*?)^```$/gms)].map(([, text]) => text!);

for (const [index, text] of snippets.entries()) {
  test(`routes file ${index + 1} of docs/routes.md sends requests where it says`, () =>
    judge(text, `snippet-${index + 1}.yaml`));
}

test('docs/routes.md shows every key in an example and explains it', () => {
  const shown = snippets.join('\n');
  const prose = page('docs/routes.md');
  const all = new Set(Object.values(keys).flat());
  const missing = [...all].filter(
    (name) =>
      !new RegExp(`(^|[\\s{,])${name}: `, 'm').test(shown.replaceAll(':\n', ': \n')) && !prose.includes(name),
  );
  assert.deepEqual(missing, []);
  const levels = [...keys.file, ...keys.defaults, ...keys.route, ...keys.path];
  const unshown = levels.filter(
    (name) => !new RegExp(`(^|[\\s{,-])${name}: `, 'm').test(shown.replaceAll(':\n', ': \n')),
  );
  assert.deepEqual([...new Set(unshown)], []);
});

const examples = globSync('examples/*/routes.yaml', { cwd: root });

test('there is an example for each use of rules', () => assert.ok(examples.length >= 8, examples.join()));

for (const path of examples) {
  test(`${path} sends requests where it says, to services of its compose file`, () => {
    const text = page(path);
    judge(text, path);
    const compose = parse(page(`${dirname(path)}/compose.yaml`));
    const named = new Set(
      [
        ...text
          .replaceAll(/^#.*$/gm, '')
          .matchAll(/(?:https?|h2c|grpcs?):\/\/([a-z][a-z0-9-]*)(?=[:/\s"\],}]|$)/gm),
      ].map(([, host]) => host!),
    );
    const services = Object.keys(compose.services);
    for (const host of named) assert.ok(services.includes(host), `${host} is a service`);
    const { environment, volumes, configs } = compose.services.ingress;
    assert.equal(environment.ROUTES_FILE, '/config/routes.yaml');
    assert.deepEqual(configs, [{ source: 'routes', target: '/config/routes.yaml' }]);
    // In a compose file $$ is a $.
    assert.equal(
      compose.configs.routes.content.replaceAll('$$', () => '$'),
      text,
    );
    assert.ok(volumes.includes('ingress-state:/etc/letsencrypt') && 'ingress-state' in compose.volumes);
  });

  test(`${path} counts by address only where its compose file makes addresses known`, () => {
    const { environment } = parse(page(`${dirname(path)}/compose.yaml`)).services.ingress;
    const clientAddresses =
      environment.PROXY_PROTOCOL === 'true' || environment.TRUSTED_FORWARDERS !== undefined;
    const { mistakes } = readRoutesFile(page(path), 'routes.yaml', { timeouts, readFile, clientAddresses });
    assert.deepEqual(mistakes.map(describeMistake), []);
  });
}
