// The README, the docs and the examples: what they say is what the program does.

import assert from 'node:assert/strict';
import { existsSync, globSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { chooseProvider, providerKinds } from '../dns/providers/choice.ts';
import { cureOf } from '../dns/providers/cures.ts';
import { metrics } from '../src/admin/metrics.ts';
import { readConfig } from '../src/config/config.ts';
import { retiredSettings, unsupportedSettings } from '../src/config/retired.ts';
import { settings } from '../src/config/settings.ts';
import { fileVariableOf, knownVariables, mayBeFiles } from '../src/config/variables.ts';
import { pages, read, root } from './snippets/blocks.ts';

/** Every name that a setting goes by. */
const inForce = new Set([
  ...settings.flatMap(({ name, aliases = [] }) => [name, ...aliases]),
  ...providerKinds.flatMap(({ variables }) =>
    variables.flatMap(({ name, aliases = [] }) => [name, ...aliases]),
  ),
]);
const code = (text: string) => `\`${text}\``;
const orFile = (name: string) => `Or ${code(fileVariableOf(name))}.`;
const cell = (text: string) => text.replaceAll('|', '\\|');

function settingsTable(): string {
  const rows = settings.map(({ name, aliases = [], meaning, byDefault, example, security, secret }) => [
    [name, ...aliases].map(code).join(' '),
    [meaning, secret && orFile(name), security && `**Security:** ${security}`].filter(Boolean).join(' '),
    /^[a-z0-9_./:,-]+$/.test(byDefault) || settings.some((one) => one.name === byDefault)
      ? code(byDefault)
      : byDefault,
    secret ? '' : code(example),
  ]);
  const credentials = providerKinds.flatMap((kind) =>
    kind.variables.map(({ name, aliases = [], meaning, secret }) => [
      [name, ...aliases].map(code).join(' '),
      `DNS provider ${code(kind.name)}: ${meaning}. ${orFile(name)}${secret ? ' **Security:** Secret; who has it can change the zone. Give it that zone only.' : ''}`,
      '',
      '',
    ]),
  );
  const lines = [...rows, ...credentials].map((cells) => `| ${cells.map(cell).join(' | ')} |`);
  return `| Setting, and older names | Meaning | Default | Example |\n| --- | --- | --- | --- |\n${lines.join('\n')}\n`;
}

test('the table of settings is that of the program (UPDATE_DOCS=1 writes it)', () => {
  const page = read('docs/settings.md');
  const [, before, shown, after] =
    /^(.*<!-- settings:[^\n]*-->\n)(.*)(<!-- \/settings -->.*)$/s.exec(page) ?? [];
  assert.ok(before !== undefined && after !== undefined, 'the markers are there');
  if (process.env.UPDATE_DOCS === '1')
    writeFileSync(`${root}/docs/settings.md`, `${before}${settingsTable()}${after}`);
  else assert.equal(shown, settingsTable());
});

test('the table of metrics is that of the program (UPDATE_DOCS=1 writes it)', () => {
  const page = read('docs/metrics.md');
  const [, before, shown, after] =
    /^(.*<!-- metrics:[^\n]*-->\n)(.*)(<!-- \/metrics -->.*)$/s.exec(page) ?? [];
  assert.ok(before !== undefined && after !== undefined, 'the markers are there');
  const rows = Object.values(metrics).map(({ name, type, labels, help }) =>
    [code(name), type, labels.map(code).join(' '), help].map(cell).join(' | '),
  );
  const table = `| Metric | Type | Labels | Meaning |\n| --- | --- | --- | --- |\n${rows.map((row) => `| ${row} |`).join('\n')}\n`;
  if (process.env.UPDATE_DOCS === '1') writeFileSync(`${root}/docs/metrics.md`, `${before}${table}${after}`);
  else assert.equal(shown, table);
});

test('no setting is in two tables', () => {
  const names = [
    ...settings.flatMap(({ name, aliases = [] }) => [name, ...aliases]),
    ...providerKinds
      .flatMap(({ variables }) => variables)
      .flatMap(({ name, aliases = [] }) => [name, ...aliases]),
    ...[...retiredSettings, ...unsupportedSettings].map(({ name }) => name),
    ...[...mayBeFiles].map(fileVariableOf),
  ];
  assert.deepEqual(
    names.filter((name, i) => names.indexOf(name) !== i),
    [],
  );
});

test('every setting that the prose names exists', () => {
  const known = new Set([...knownVariables, ...[...mayBeFiles].map(fileVariableOf)]);
  const prose = pages
    .map(read)
    .join('\n')
    .replace(/<!-- settings:.*<!-- \/settings -->/s, '');
  const named = [...prose.matchAll(/`([A-Z]+_[A-Z_]+)(?:=[a-z0-9]+)?`/g)].map(([, name]) => name!);
  assert.ok(named.length > 10);
  assert.deepEqual(
    named.filter((name) => !known.has(name)),
    [],
  );
});

test('the README is a front door: under 200 lines', () => {
  assert.ok(read('README.md').split('\n').length < 200);
});

for (const page of pages) {
  test(`every link in ${page} leads to a file, and every npm command to a script`, () => {
    const text = read(page);
    const links = [...text.matchAll(/\]\((?!https?:)([^)#]+)\)/g)].map(([, path]) => path!);
    for (const path of links) assert.ok(existsSync(join(root, dirname(page), path)), path);
    const { scripts } = JSON.parse(read('package.json'));
    const commands = [...text.matchAll(/npm (?:run ([\w-]+)|(start|test))/g)].map(
      ([, script, short]) => script ?? short!,
    );
    for (const command of commands) assert.ok(Object.hasOwn(scripts, command), `npm run ${command}`);
  });
}

test('every page of docs/ is found from the README', () => {
  const readme = read('README.md');
  for (const page of pages.filter((path) => path !== 'README.md'))
    assert.ok(readme.includes(`(${page})`), page);
});

test('each step of the walks in docs/architecture.md is in the source', () => {
  const steps = [...read('docs/architecture.md').matchAll(/^\d+\. `([^`]+)` · `([^`]+)`/gm)];
  assert.ok(steps.length > 40);
  const missing = steps.filter(
    ([, file, name]) =>
      !new RegExp(`\\b(?:function|class|const)?\\s*${name}\\b[^;]*[({:=]`).test(read(file!)),
  );
  assert.deepEqual(
    missing.map(([step]) => step),
    [],
  );
});

test('every dependency is argued for, and none that is gone', () => {
  const { dependencies, devDependencies } = JSON.parse(read('package.json'));
  const rows = read('docs/dependencies.md')
    .split('\n')
    .filter((line) => line.startsWith('| `'));
  const named = rows.flatMap((row) =>
    [...row.split('|')[1]!.matchAll(/`([^`]+)`/g)].map(([, name]) => name!),
  );
  assert.deepEqual(named.sort(), Object.keys({ ...dependencies, ...devDependencies }).sort());
});

test('the exit codes in docs/operation.md are those of the program', () => {
  const codes = [
    ...read('src/exit-codes.ts').matchAll(/^ {2}(?:ok|failed|usage|unknown|configuration): (\d+),$/gm),
  ].map(([, n]) => n);
  const table = /\| Exit code \| Meaning \|\n(.*?)(?:\n\n|$)/s.exec(read('docs/operation.md'))![1]!;
  assert.deepEqual(
    [...table.matchAll(/^\| (\d+) \|/gm)].map(([, n]) => n),
    codes,
  );
  assert.equal(codes.length, 5);
});

test('the compose file in the README is the example', () => {
  assert.ok(read('README.md').includes(`\`\`\`yaml\n${read('examples/single-domain.yaml')}\`\`\``));
});

const examples = globSync('examples/*.yaml', { cwd: root });

/** What dstack and the operator fill in. */
const FILLED_IN: Record<string, string> = {
  DOMAIN: 'app.example.com',
  DSTACK_GATEWAY_DOMAIN: 'dstack-prod5.phala.network',
  STORE_URL: 'postgres://ingress:secret@db.example.com/ingress',
  STORE_PASSWORD: 'a-password',
  CLOUDFLARE_API_TOKEN: 'v1.0-0123456789abcdef0123456789abcdef01234567',
};

function environmentOf(compose: { services: { ingress: { environment: Record<string, unknown> } } }) {
  const filledIn = (text: string) =>
    text.replace(
      /\$\{(\w+)\}/g,
      (_, name: string) => FILLED_IN[name] ?? assert.fail(`${name} is filled in by nobody`),
    );
  return Object.fromEntries(
    Object.entries(compose.services.ingress.environment).map(([name, value]) => {
      assert.equal(typeof value, 'string', `${name}: compose takes text as the value of a variable`);
      return [name, filledIn(value as string)];
    }),
  );
}

test('there is an example for each use', () => assert.ok(examples.length >= 6));

for (const path of examples) {
  test(`${path} is a configuration that the program takes without a warning`, () => {
    const compose = parse(read(path));
    const files = new Map<string, string>(
      (compose.services.ingress.configs ?? []).map(({ source, target }: Record<string, string>) => [
        target,
        compose.configs[source!].content,
      ]),
    );
    const config = readConfig(
      environmentOf(compose),
      (file) => files.get(file) ?? assert.fail(`${file} is not mounted`),
    );
    assert.deepEqual(config.warnings, []);
    const services = Object.keys(compose.services);
    for (const { upstream } of config.routes.flatMap(({ paths }) => paths)) {
      for (const { host } of upstream.addresses) assert.ok(services.includes(host), `${host} is a service`);
    }
  });

  test(`${path} keeps private keys in a named volume that only the ingress mounts`, () => {
    const { services, volumes } = parse(read(path));
    const state = services.ingress.volumes
      .find((volume: string) => volume.endsWith(':/etc/letsencrypt'))
      .split(':')[0];
    assert.ok(Object.hasOwn(volumes, state));
    const others = Object.entries<{ volumes?: string[] }>(services).filter(([name]) => name !== 'ingress');
    for (const [name, service] of others) {
      assert.ok(!(service.volumes ?? []).some((volume) => volume.startsWith(`${state}:`)), name);
    }
    assert.ok(services.ingress.volumes.includes('/var/run/dstack.sock:/var/run/dstack.sock'));
  });
}

// docs/upgrade.md and docs/dns-providers.md.

const verdicts = ['as before', 'better', 'no longer', 'refused'];

/** Rows of four cells under "Every variable". */
function variablesOfUpgrade(): { name: string; verdict: string }[] {
  const [, section] = /## Every variable\n(.*?)\n## /s.exec(read('docs/upgrade.md'))!;
  return [...section!.matchAll(/^\| `(\w+)` \| [^|]+ \| ([^|]+) \|/gm)].map(([, name, verdict]) => ({
    name: name!,
    verdict: verdict!.trim(),
  }));
}

test('the table of variables in docs/upgrade.md says of each what the program does with it', () => {
  const rows = variablesOfUpgrade();
  assert.ok(rows.length > 50);
  for (const { name, verdict } of rows) {
    const expected = retiredSettings.some((one) => one.name === name)
      ? ['no longer']
      : unsupportedSettings.some((one) => one.name === name)
        ? ['refused']
        : ['as before', 'better'];
    assert.ok(expected.includes(verdict), `${name}: ${verdict}`);
    if (!['no longer', 'refused'].includes(verdict)) assert.ok(inForce.has(name), name);
  }
  const missing = [...retiredSettings, ...unsupportedSettings].filter(
    ({ name }) => !rows.some((row) => row.name === name) && name !== 'ADMIN_ADDRESS',
  );
  assert.deepEqual(missing, []);
});

test('every variable of a deployment that is tested is in that table', () => {
  const named = globSync('test/e2e/deployments/*.yaml', { cwd: root }).flatMap((path) =>
    [...read(path).matchAll(/^ {6}(?:- )?([A-Z][A-Z0-9_]+)[:=]/gm)].map(([, name]) => name!),
  );
  assert.ok(named.length > 50);
  const known = new Set(variablesOfUpgrade().map(({ name }) => name));
  assert.deepEqual(
    [...new Set(named)].filter((name) => !known.has(name)),
    [],
  );
});

test('every behaviour in docs/upgrade.md has a verdict', () => {
  const [, section] = /## Every behaviour\n(.*)$/s.exec(read('docs/upgrade.md'))!;
  const rows = [...section!.matchAll(/^\| .+? \| ([^|]+) \| [^|]+ \|$/gm)].slice(2);
  assert.ok(rows.length > 10);
  for (const [row, verdict] of rows) assert.ok(verdicts.includes(verdict!.trim()), row);
});

test('docs/dns-providers.md has a section for each provider, with an example that chooses it and the words of the program', () => {
  const sections = read('docs/dns-providers.md').split(/^## /m).slice(1);
  assert.equal(sections.length, providerKinds.length);
  for (const kind of providerKinds) {
    const section = sections.find((text) => text.includes(`\`DNS_PROVIDER=${kind.name}\``));
    assert.ok(section !== undefined, kind.name);
    const [, example] = /```yaml\n(.*?)```/s.exec(section)!;
    const { environment } = parse(example!) as { environment: Record<string, string> };
    const { DNS_PROVIDER, ...credentials } = environment;
    assert.equal(DNS_PROVIDER, kind.name);
    const chosen = chooseProvider(credentials);
    assert.ok(chosen !== undefined && 'kind' in chosen && chosen.kind === kind, kind.name);
    for (const { name } of kind.variables) assert.ok(section.includes(name), name);
    const [, permission, place] =
      /lacks (.*), or is for another account: see to it at ([^;]*)/.exec(
        cureOf(kind.name, 'permission-missing')!.cure,
      ) ?? [];
    assert.ok(section.includes(permission!) && section.includes(place!), kind.name);
  }
});

test('every image that is named is of the version in package.json', () => {
  const { version } = JSON.parse(read('package.json')) as { version: string };
  const files = ['README.md', 'build-image.sh', ...globSync('{docs,examples}/**/*.{md,yaml}', { cwd: root })];
  const named = files.flatMap((file) =>
    [...read(file).matchAll(/registry\.example\.com\/dstack-ingress:([\w.-]+)/g)].map(
      ([, tag]) => `${file}: ${tag}`,
    ),
  );
  assert.ok(named.length > 15);
  assert.deepEqual(
    named.filter((entry) => !entry.endsWith(`: ${version}`)),
    [],
  );
});
