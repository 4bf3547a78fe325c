// Every block of code, command and setting on the pages: the reader that the program has for it takes it.

import assert from 'node:assert/strict';
import { globSync } from 'node:fs';
import { describe, test } from 'node:test';
import { parse } from 'yaml';
import { type Config, ConfigError, readConfig } from '../../src/config/config.ts';
import { knownVariables } from '../../src/config/variables.ts';
import { readNginxFiles } from '../../src/routes/nginx/read.ts';
import { writeRoutes } from '../../src/routes/write.ts';
import { type Block, blocksOf, pages, read, root, spansOf } from './blocks.ts';
import { formsOf, judgeCommand, looksLikeCommand, wordsOf } from './commands.ts';
import { judgeCompose, kinds } from './kinds.ts';

/** What nothing can run or read, each with its reason; by its page and the words that it begins with. */
const CANNOT_RUN: readonly (readonly [page: string, begins: string, why: string])[] = [
  ['README.md', 'DNS provider          ACME CA', 'a drawing of the processes and of who talks to whom'],
  ['docs/architecture.md', 'listener ─ http1', 'a drawing of the way of a request'],
  ['docs/architecture.md', "the client's side", 'a drawing of the parts of an exchange'],
  ['docs/architecture.md', 'visitors ─ attest.ts', 'a drawing of the way of a quote'],
  ['docs/architecture.md', 'exchange ─ observe', 'a drawing of the way of the numbers'],
  ['docs/logs.md', '/var/log/ingress/access.log {', 'a file of logrotate, which is not of ours'],
  [
    'docs/operation.md',
    'dstack-ingress/history-',
    'the files of STATE_DIR: compared with a real one by test/e2e/documented-commands.test.ts',
  ],
];

const blocks = pages.flatMap(blocksOf);

const exceptionOf = ({ page, text }: Block) =>
  CANNOT_RUN.find(([where, begins]) => where === page && text.trimStart().startsWith(begins));

describe('every block', () => {
  for (const block of blocks.filter((one) => exceptionOf(one) === undefined)) {
    const takers = kinds.filter((kind) => kind.takes(block));
    test(`${block.place} is ${takers[0]?.name ?? 'of a kind that there is'}, and sound`, () => {
      assert.deepEqual(
        takers.length,
        1,
        `${block.place}: ${takers.map(({ name }) => name).join(', ') || 'no kind'} takes it`,
      );
      takers[0]!.judge(block);
    });
  }

  test('that cannot run is still there, and says why', () => {
    for (const exception of CANNOT_RUN)
      assert.equal(
        blocks.filter((block) => exceptionOf(block) === exception).length,
        1,
        exception.join(': '),
      );
  });
});

test('the routes file beside the file of nginx in docs/nginx.md is what convert-nginx prints of it', () => {
  const here = blocksOf('docs/nginx.md');
  const [nginx, yaml] = ['nginx', 'yaml'].map(
    (language) => here.find((block) => block.language === language)!,
  );
  const { rules } = readNginxFiles('/etc/nginx/conf.d', {
    readFile: () => nginx!.text,
    listFolder: () => ['site.conf'],
  });
  const { text, unsaid } = writeRoutes(rules);
  assert.equal(text, yaml!.text);
  assert.deepEqual(
    unsaid.map(({ what }) => what),
    ['a default server: names that no route has are refused'],
  );
});

describe('a block', () => {
  const block = (language: string, text: string): Block => ({ page: 'x', place: 'x:1', language, text });
  const judged = (one: Block) => () => {
    const taker = kinds.find((kind) => kind.takes(one));
    assert.ok(taker !== undefined, 'no kind takes it');
    taker.judge(one);
  };

  for (const [what, wrong, says] of [
    ['of a language that nobody reads', block('toml', 'a = 1\n'), /no kind/],
    ['without a language that is no drawing of ours', block('', 'anything\n'), /no kind/],
    ['of YAML that nobody reads', block('yaml', 'colour: red\n'), /no kind/],
    ['with a command that is not there', block('sh', 'ingressctl get\n'), /nobody knows what ingressctl is/],
    [
      'with a flag that a command does not take',
      block('sh', 'dstack-ingress status --yaml\n'),
      /unknown flag/,
    ],
    ['with a script that npm does not know', block('sh', 'npm ci && npm run dmeo\n'), /no script dmeo/],
    ['with flags that npm would keep', block('sh', 'npm run bench --only h1\n'), /it wants --/],
    ['with a row that the benchmark is not told so', block('sh', 'npm run bench -- --onyl h1\n'), /onyl/],
    ['with a test that is gone', block('sh', 'node --test test/gone.test.ts\n'), /does not exist/],
    [
      'with a variable that compose gets and the program does not know',
      block('yaml', 'services:\n  ingress:\n    environment:\n      TARGET_ENDPIONT: http://app\n'),
      /TARGET_ENDPIONT/,
    ],
    [
      'with a word that compose does not know',
      block('yaml', 'services:\n  ingress:\n    volume: []\n'),
      /volume/,
    ],
    [
      'with a provider that lacks its token',
      block('yaml', 'environment:\n  DNS_PROVIDER: gandi\n'),
      /GANDI_PERSONAL_ACCESS_TOKEN/,
    ],
    ['with a key that routes do not have', block('yaml', 'routes: [{ host: a.example.com, to: b }]\n'), /to/],
    ['with a directive that nobody takes', block('nginx', 'server { listen 443 ssl; lua_x y; }\n'), /lua_x/],
    [
      'with a room that is gone',
      block('', `${'src/'.padEnd(25)}words\n${'  cellar/'.padEnd(25)}words\n`),
      /cellar/,
    ],
  ] as const)
    test(`${what} is found`, () => assert.throws(judged(wrong), says));
});

describe('every command in the prose', () => {
  const commands = pages.flatMap(spansOf).filter(({ text }) => looksLikeCommand(text));
  test('is one that there is', () => {
    assert.ok(commands.length > 30, `${commands.length} commands`);
    const wrong = commands.flatMap(({ place, text }) => {
      try {
        for (const words of formsOf(wordsOf(text))) judgeCommand(words);
        return [];
      } catch (error) {
        return [`${place}: ${text}: ${(error as Error).message}`];
      }
    });
    assert.deepEqual(wrong, []);
  });
});

describe('every setting in the prose', () => {
  const settings = pages.flatMap(spansOf).flatMap(({ place, text }) => {
    const [, name, value] = /^([A-Z][A-Z0-9_]+)=(\S+)$/.exec(text) ?? [];
    return name !== undefined && knownVariables.has(name) ? [{ place, name, value: value! }] : [];
  });
  test('has a value that the program takes', () => {
    assert.ok(settings.length > 30, `${settings.length} settings`);
    const wrong = settings.flatMap(({ place, name, value }) => {
      const problem = mistakesIn({ [name]: value }).find((mistake) => mistake.place.variable === name);
      return problem === undefined ? [] : [`${place}: ${name}=${value}: ${problem.subject}`];
    });
    assert.deepEqual(wrong, []);
  });
});

function mistakesIn(env: Record<string, string>): ConfigError['mistakes'] {
  const around = { DOMAIN: 'app.example.com', TARGET_ENDPOINT: 'http://app', NGINX_CONF_DIR: 'none' };
  try {
    void (readConfig({ ...around, ...env }, () => 'words') satisfies Config);
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.mistakes;
  }
}

describe('every compose file in a folder of examples/', () => {
  for (const path of globSync('examples/*/*.yaml', { cwd: root }).sort()) {
    const file = parse(read(path)) as { services?: object };
    if (file.services === undefined) continue;
    test(`${path} is a configuration that the program takes without a warning`, () =>
      judgeCompose(parse(read(path))));
  }
});
