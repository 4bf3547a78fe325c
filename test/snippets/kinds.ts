// What kinds of blocks the pages have, how each is recognised, and who judges it: the reader that the program has for it.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { Ajv } from 'ajv';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { parse } from 'yaml';
import { readPolicy } from '../../src/commands/verify-policy.ts';
import { readConfig } from '../../src/config/config.ts';
import { describeMistake } from '../../src/config/mistake.ts';
import { parseDomain } from '../../src/lib/domain.ts';
import { delegationRecords } from '../../src/records/records.ts';
import { readNginxFiles } from '../../src/routes/nginx/read.ts';
import { readRoutesFile } from '../../src/routes/yaml/file.ts';
import { documentedFile } from '../support/documented-files.ts';
import { type Block, read, root } from './blocks.ts';
import { commandsIn, judgeCommand, needsDeployment } from './commands.ts';

export interface Kind {
  readonly name: string;
  takes(block: Block): boolean;
  /** Throws what is wrong with it. */
  judge(block: Block): void;
}

const isByHand = ({ page, language, text }: Block) =>
  page === 'docs/verification.md' && language === 'sh' && text.includes('$domain');
const keysOf = ({ language, text }: Block): string[] =>
  language === 'yaml' ? Object.keys(parse(text) as object) : [];
const timeouts = { connectTimeoutMs: 10_000, readTimeoutMs: 60_000, sendTimeoutMs: 30_000 };
const admin = { host: '127.0.0.1', port: 9180, token: undefined };
const schemaOf = (path: string) => JSON.parse(read(path));
const fitsRoutes = new Ajv({ strict: true, strictRequired: false }).compile(
  schemaOf('docs/routes.schema.json'),
);
const fitsPolicy = new Ajv2020().compile(schemaOf('docs/policy.schema.json'));

export const kinds: readonly Kind[] = [
  {
    name: 'a compose file, or what changes in one',
    takes: (block) => keysOf(block).includes('services'),
    judge: ({ text }) => judgeCompose(parse(text)),
  },
  {
    name: 'the environment of a DNS provider',
    takes: (block) => keysOf(block).join() === 'environment',
    judge({ text }) {
      const { environment } = parse(text) as { environment: Record<string, string> };
      const { CLOUDFLARE_API_TOKEN: _, ...around } = single().services.ingress!.environment!;
      judgeEnvironment({ ...around, ...environment });
    },
  },
  {
    name: 'a routes file',
    takes: (block) => keysOf(block).includes('routes'),
    judge({ text, place }) {
      const { mistakes } = readRoutesFile(text, `/config/${place}`, {
        timeouts,
        readFile: documentedFile,
        admin,
      });
      assert.deepEqual(mistakes.map(describeMistake), []);
      assert.ok(fitsRoutes(parse(text)), JSON.stringify(fitsRoutes.errors));
    },
  },
  {
    name: 'a policy',
    takes: (block) => keysOf(block).includes('systems'),
    judge({ text }) {
      const shown = text.replace('compose: app-compose.json', `compose: "${'c0'.repeat(32)}"`);
      assert.deepEqual(readPolicy(shown, 'policy.yaml').mistakes, []);
      assert.ok(fitsPolicy(parse(shown)), JSON.stringify(fitsPolicy.errors));
    },
  },
  { name: 'a file of nginx', takes: ({ language }) => language === 'nginx', judge: judgeNginx },
  {
    name: 'commands that ask a deployment',
    takes: needsDeployment,
    // They are run there, by test/e2e/documented-commands.test.ts.
    judge() {},
  },
  {
    name: 'steps of the verification by hand',
    takes: (block) => isByHand(block) && !needsDeployment(block),
    // They are run by test/e2e/evidence.test.ts.
    judge() {},
  },
  {
    name: 'commands',
    takes: (block) => block.language === 'sh' && !needsDeployment(block) && !isByHand(block),
    judge({ text }) {
      for (const words of commandsIn(text)) judgeCommand(words);
    },
  },
  {
    name: 'DNS records of a delegation',
    takes: ({ language, text }) => language === '' && /^\S+\.\s+CNAME /.test(text),
    judge({ text }) {
      const settings = { delegationZone: 'delegated.example.net', challenges: true };
      const records = delegationRecords([parseDomain('app.example.com')], settings);
      assert.deepEqual(
        text
          .trimEnd()
          .split('\n')
          .map((line) => line.split(/\s+/).join(' ')),
        records.map(({ name, type, value }) => `${name}. ${type} ${value}.`),
      );
    },
  },
  {
    name: 'the rooms of the source',
    takes: ({ language, text }) => language === '' && text.startsWith('src/ '),
    judge: ({ text }) => judgeRooms(text),
  },
];

// Compose files.

interface Service {
  readonly image?: string;
  readonly environment?: Readonly<Record<string, unknown>>;
  readonly configs?: readonly { readonly source: string; readonly target: string }[];
}

export interface ComposeFile {
  readonly services: Readonly<Record<string, Service>>;
  readonly configs?: Readonly<Record<string, { readonly content: string }>>;
}

/** Of Compose's words those that are in use: it refuses what it does not know. */
const COMPOSE_KEYS = ['services', 'volumes', 'configs', 'secrets', 'networks'];
const SERVICE_KEYS = [
  ...['image', 'command', 'environment', 'ports', 'volumes', 'configs', 'secrets', 'depends_on', 'restart'],
  ...['cap_drop', 'cap_add', 'tmpfs', 'read_only', 'networks', 'healthcheck'],
];
/** Under either name; a page about an upgrade has that of the older image. */
const INGRESS = ['ingress', 'dstack-ingress'];

function single(): ComposeFile {
  return parse(read('examples/single-domain.yaml')) as ComposeFile;
}

/** What a part of a file does not say is as in the example for one domain. */
export function judgeCompose(compose: ComposeFile): void {
  assert.deepEqual(unknownIn(compose, COMPOSE_KEYS), []);
  for (const service of Object.values(compose.services))
    assert.deepEqual(unknownIn(service, SERVICE_KEYS), []);
  const [, ingress] =
    Object.entries(compose.services).find(([name]) => INGRESS.includes(name)) ??
    assert.fail('there is no ingress in it');
  const isWhole = ingress.environment?.GATEWAY_DOMAIN !== undefined;
  const around = isWhole ? {} : single().services.ingress!.environment;
  const mounted = new Map(
    (ingress.configs ?? []).map(({ source, target }) => [target, contentOf(compose, source)]),
  );
  judgeEnvironment({ ...around, ...ingress.environment }, mounted);
}

/** In a compose file $$ is a $. */
function contentOf({ configs }: ComposeFile, source: string): string {
  return (configs?.[source] ?? assert.fail(`no config ${source}`)).content.replaceAll('$$', () => '$');
}

function unknownIn(found: object, known: readonly string[]): string[] {
  return Object.keys(found).filter((key) => !known.includes(key));
}

const FILLED_IN: Readonly<Record<string, string>> = {
  DOMAIN: 'app.example.com',
  DSTACK_GATEWAY_DOMAIN: 'dstack-prod5.phala.network',
  NAMECHEAP_USERNAME: 'ann',
};
/** A token, a key or a password. */
const SECRET = '0123456789abcdef0123456789abcdef01234567';

function judgeEnvironment(
  environment: Readonly<Record<string, unknown>>,
  mounted: ReadonlyMap<string, string> = new Map(),
): void {
  const env = Object.entries(environment).map(([name, value]) => {
    assert.equal(typeof value, 'string', `${name}: compose takes text as the value of a variable`);
    const filled = (value as string).replaceAll(
      /\$\{(\w+)\}/g,
      (_, variable: string) => FILLED_IN[variable] ?? SECRET,
    );
    return [name, filled];
  });
  const readFile = (path: string) => mounted.get(path) ?? documentedFile(path);
  // What is not mounted is no folder.
  const listFolder = (folder: string) => {
    const names = [...mounted.keys()]
      .filter((path) => dirname(path) === folder)
      .map((path) => basename(path));
    if (names.length === 0) throw Object.assign(new Error(folder), { code: 'ENOENT' });
    return names;
  };
  const config = readConfig(Object.fromEntries(env), readFile, listFolder);
  assert.deepEqual(
    config.warnings.filter(({ warning }) => !warning.includes(ONLY_CHALLENGES)),
    [],
  );
}

/** What a provider that holds challenges alone is always told. */
const ONLY_CHALLENGES = 'only challenge records are written';

// Files of nginx.

/** For our reader, and for nginx itself. What only a deployment has is put in its place. */
function judgeNginx({ text }: Block): void {
  const folder = mkdtempSync(join(tmpdir(), 'documented-nginx-'));
  try {
    const { mistakes } = readNginxFiles('/etc/nginx/conf.d', {
      readFile: () => text,
      listFolder: () => ['site.conf'],
    });
    assert.deepEqual(mistakes.map(describeMistake), []);
    const conf = join(folder, 'nginx.conf');
    // There is no certificate here, and nobody who answers to the names of services.
    const bare = text
      .replaceAll(/listen 443 ssl/g, 'listen 127.0.0.1:8443')
      .replaceAll(/(proxy_pass https?:\/\/)[a-z][a-z-]*/g, '$1127.0.0.1');
    writeFileSync(conf, `error_log stderr; pid ${folder}/pid; events {} http { access_log off;\n${bare}\n}`);
    execFileSync('nginx', ['-q', '-t', '-c', conf, '-p', folder], { stdio: 'pipe' });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

// The rooms.

/** Where the words begin that say what is in a room. */
const WORDS_AT = 25;

function judgeRooms(text: string): void {
  /** The room at each depth above the line. */
  const above: string[] = [];
  for (const line of text.split('\n').filter((one) => one !== '')) {
    const depth = /^ */.exec(line)![0].length / 2;
    const names = line.slice(0, WORDS_AT).trim().split(/\s+/);
    for (const name of names) {
      const path = [...above.slice(0, depth), name].join('');
      assert.ok(existsSync(join(root, path)), `${path} does not exist`);
    }
    above[depth] = names[0]!;
  }
}
