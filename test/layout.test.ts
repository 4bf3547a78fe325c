// The shape of the source, held: who imports whom, how files begin and are called, and what no file may say.

import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path/posix';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Where a file stands: the most specific of these that its path begins with. */
const areas = [
  'src/lib/',
  'src/demo/',
  'src/workers/worker.ts',
  'src/',
  'proxy/',
  'acme/',
  'dns/',
  'evidence/verify/',
  'evidence/',
  'test/',
  'bench/',
] as const;
type Area = (typeof areas)[number];

/** The auditor's side and the side that is audited are two rooms of one folder. */
const allEvidence = ['evidence/', 'evidence/verify/'] as const;
const features = ['proxy/', 'acme/', 'dns/', ...allEvidence] as const;
const program = ['src/', 'src/workers/worker.ts', 'src/demo/'] as const;

interface ForbiddenArrow {
  readonly from: Area;
  readonly to: readonly Area[];
  readonly reason: string;
}

const forbidden: readonly ForbiddenArrow[] = [
  { from: 'src/lib/', to: [...features, ...program], reason: 'the floor cannot stand on what stands on it' },
  {
    from: 'proxy/',
    to: ['acme/', 'dns/', ...allEvidence],
    reason: 'what reads hostile bytes has no use for accounts, tokens or quotes',
  },
  { from: 'proxy/', to: program, reason: 'the proxy is told what to do by whoever runs it' },
  {
    from: 'evidence/',
    to: ['proxy/', 'acme/', 'dns/', 'evidence/verify/'],
    reason: 'an auditor of the evidence reads nothing else',
  },
  {
    from: 'evidence/verify/',
    to: ['proxy/', 'acme/'],
    reason: 'who judges a host needs nothing of what serves it, only what DNS says',
  },
  {
    from: 'evidence/verify/',
    to: program,
    reason: 'a library judges by what it is given, whoever calls it',
  },
  {
    from: 'evidence/',
    to: program,
    reason: 'evidence is made of what it is given, not of the configuration',
  },
  {
    from: 'dns/',
    to: ['proxy/', 'acme/', ...allEvidence],
    reason: 'records are written for anyone who needs them',
  },
  { from: 'dns/', to: program, reason: 'a provider sees its own credentials and no other setting' },
  {
    from: 'acme/',
    to: ['proxy/'],
    reason: 'how a challenge is served is the business of the composition root',
  },
  { from: 'acme/', to: allEvidence, reason: 'certificates are issued whether or not a quote can be had' },
  { from: 'acme/', to: program, reason: 'the issuer works for any program' },
  {
    from: 'src/workers/worker.ts',
    to: ['acme/', 'dns/', 'src/demo/'],
    reason: 'a worker that falls must have nothing to give away',
  },
  ...(['src/', ...features] as const).map((from) => ({
    from,
    to: ['src/demo/'] as const,
    reason: 'what is simulated must not be needed by what is real',
  })),
  ...(['src/lib/', ...program, ...features] as const).map((from) => ({
    from,
    to: ['test/', 'bench/'] as const,
    reason: 'the program does not ship its tests',
  })),
];

/** The rooms of the proxy, from the floor up: which others each may enter, and why no more. */
const rooms: Readonly<Record<string, { readonly enters: readonly string[]; readonly reason: string }>> = {
  socket: { enters: [], reason: 'a socket carries bytes, whatever they mean' },
  http1: { enters: ['socket'], reason: 'a message means the same, wherever it comes from and goes to' },
  http2: { enters: ['http1', 'socket'], reason: 'a connection carries streams, whoever has them' },
  rules: { enters: [], reason: 'a route is plain data: it crosses to the workers' },
  upstream: {
    enters: ['rules', 'http1', 'http2', 'socket'],
    reason: 'a connection to an upstream is there before the request that will use it',
  },
  tunnel: {
    enters: ['rules', 'upstream', 'http1', 'socket'],
    reason: 'bytes go both ways alike, whether a listener or an exchange began with them',
  },
  exchange: {
    enters: ['rules', 'tunnel', 'upstream', 'http1', 'http2', 'socket'],
    reason: 'a request is the same, however its connection was accepted',
  },
  listener: {
    enters: ['exchange', 'rules', 'tunnel', 'upstream', 'http1', 'http2', 'socket'],
    reason: 'it is the way in',
  },
};

const exceptions: readonly { from: string; to: string; reason: string }[] = [
  {
    from: 'src/command-line.ts',
    to: 'src/demo/demo.ts',
    reason: 'the command line starts the demo, on demand',
  },
];

/** Packages that belong to one subject, and who may import them; tests and benchmarks may import all. */
const packages: readonly { name: string; only: readonly string[]; reason: string }[] = [
  {
    name: 'acme-client',
    only: ['acme/'],
    reason: 'its transport and its auto() are only safe as acme/ uses them',
  },
  { name: 'cloudflare', only: ['dns/'], reason: 'a provider hides its vendor' },
  { name: '@aws-sdk/client-route-53', only: ['dns/'], reason: 'a provider hides its vendor' },
  { name: '@smithy/signature-v4', only: ['dns/'], reason: 'a provider hides its vendor' },
  { name: '@linode/api-v4', only: ['dns/'], reason: 'a provider hides its vendor' },
  { name: '@phala/dstack-sdk', only: ['evidence/'], reason: 'its answers are checked where it is asked' },
  { name: '@grpc/grpc-js', only: ['proxy/', 'src/demo/'], reason: 'gRPC passes through unread' },
  { name: 'http-proxy-3', only: ['proxy/'], reason: 'the data path is in one place' },
  { name: 'ws', only: ['proxy/', 'src/demo/'], reason: 'WebSockets pass through unread' },
  {
    name: 'yaml',
    only: ['src/routes/yaml/', 'src/routes/write.ts'],
    reason: 'YAML is read in one place, and written in one',
  },
  { name: 'pg', only: ['acme/storage/'], reason: 'a storage hides what it is made of' },
  { name: 'ioredis', only: ['acme/storage/'], reason: 'a storage hides what it is made of' },
  { name: 'aws4fetch', only: ['acme/storage/'], reason: 'a storage hides what it is made of' },
  { name: 'pino', only: ['src/lib/log.ts'], reason: 'everyone else knows only what a Log is' },
];

const sources = filesOf('{src,proxy,acme,dns,evidence}/**/*.{ts,js}');

describe('imports', () => {
  test('are recognised in every form that TypeScript has', () => {
    const text = [
      "import { a } from './a.ts';",
      'import {',
      '  b,',
      "} from './b.ts';",
      "import './c.ts';",
      "import type { D } from './d.ts';",
      "export * from './e.ts';",
      "export { f } from './f.ts';",
      "const g = await import('./g.ts');",
      "type H = import('./h.ts').H;",
      "// import { no } from './comment.ts';",
      "const text = 'imported from nowhere';",
    ].join('\n');
    assert.deepEqual(
      importsIn(text).sort(),
      'abcdefgh'.split('').map((name) => `./${name}.ts`),
    );
  });

  test('follow no forbidden arrow', () => {
    const found = sources.flatMap((file) => importedFiles(file).flatMap((target) => judge(file, target)));
    assert.deepEqual(found, []);
  });

  test('of the proxy go no further up than their room may', () => {
    const roomOf = (file: string) => /^proxy\/([^/]+)\//.exec(file)?.[1];
    const found = sources.flatMap((file) => {
      const here = roomOf(file);
      if (here === undefined) return [];
      assert.ok(rooms[here], `proxy/${here}/ is no room that is known`);
      return importedFiles(file).flatMap((target) => {
        const there = roomOf(target);
        if (there === undefined || there === here || rooms[here]!.enters.includes(there)) return [];
        return [`${file} imports ${target}: ${rooms[here]!.reason}`];
      });
    });
    assert.deepEqual(found, []);
  });

  test('take a package only where its subject is', () => {
    const found = sources.flatMap((file) =>
      importsIn(read(file)).flatMap((specifier) => {
        const rule = packages.find(({ name }) => specifier === name || specifier.startsWith(`${name}/`));
        if (rule === undefined || rule.only.some((place) => file.startsWith(place))) return [];
        return [`${file} imports ${specifier}: ${rule.reason}`];
      }),
    );
    assert.deepEqual(found, []);
  });

  test('name only packages that package.json brings into the image', () => {
    const declared = new Set(Object.keys((JSON.parse(read('package.json')) as Manifest).dependencies));
    const found = sources.flatMap((file) =>
      importsIn(read(file))
        .filter((specifier) => !/^(\.|node:)/.test(specifier))
        .filter((specifier) => !declared.has(packageOf(specifier)))
        .map((specifier) => `${file} imports ${specifier}, which is there only by accident`),
    );
    assert.deepEqual(found, []);
  });

  test('on demand are of modules of ours, which name what they use: of a package itself the bundle keeps no names', () => {
    const bare = /\bimport\(\s*['"`](?!\.|node:)/;
    assert.match("const { request } = await import('undici');", bare);
    const found = sources.filter((file) => bare.test(read(file).replaceAll(/typeof import\(/g, '')));
    assert.deepEqual(found, []);
  });

  test('of a forbidden kind would be found, and the exceptions are still in use', () => {
    assert.equal(judge('proxy/listener/listener.ts', 'acme/manager.ts').length, 1);
    assert.equal(judge('src/lib/log.ts', 'src/config/config.ts').length, 1);
    assert.equal(judge('src/ingress.ts', 'src/demo/demo.ts').length, 1);
    assert.deepEqual(judge('src/ingress.ts', 'acme/manager.ts'), []);
    for (const { from, to } of exceptions) assert.ok(importedFiles(from).includes(to), `${from} -> ${to}`);
  });
});

describe('a source file', () => {
  test('begins with one sentence that says what it is', () => {
    // After the line that names an interpreter, where there is one.
    const first = (file: string) =>
      read(file)
        .replace(/^#!.*\n/, '')
        .split('\n', 1)[0]!;
    const wrong = sources.filter((file) => !/^\/\/ [A-Z].*\.$/.test(first(file)));
    assert.deepEqual(wrong, []);
  });

  test('is named for its subject', () => {
    const vague = /^(utils?|helpers?|common|misc|shared|services?|types|managers?)$/;
    const wrong = [...sources, ...filesOf('{test,bench}/**/*.ts')].filter((file) => {
      const words = file.replace(/\.ts$/, '').split(/[/.-]/);
      return (
        file !== 'acme/manager.ts' &&
        !/manager\.test\.ts$/.test(file) &&
        words.some((word) => vague.test(word))
      );
    });
    assert.deepEqual(wrong, []);
  });

  test('is short enough to be read in one sitting, and so is a class', () => {
    const longest = { file: 600, class: 500 };
    assert.deepEqual(classesIn('class A {\n  b = 1;\n}\n\nexport abstract class C {\n}'), [
      { name: 'A', lines: 3 },
      { name: 'C', lines: 2 },
    ]);
    const found = sources.flatMap((file) => {
      const text = read(file);
      const lines = text.split('\n').length - 1;
      return [
        ...(lines > longest.file ? [`${file} has ${lines} lines`] : []),
        ...classesIn(text)
          .filter((one) => one.lines > longest.class)
          .map((one) => `${one.name} in ${file} has ${one.lines} lines`),
      ];
    });
    assert.deepEqual(found, []);
  });

  test('has nothing in it that must be compiled: no enum, no namespace', () => {
    const compiled = /^\s*(export\s+)?(declare\s+)?((const\s+)?enum|namespace)\s+\w/m;
    assert.match('export const enum Colour {', compiled);
    assert.deepEqual(
      sources.filter((file) => compiled.test(read(file))),
      [],
    );
  });
});

describe('no file', () => {
  const everything = filesOf('{,.ci/}**/*').filter((file) =>
    /\.(ts|json|md|ya?ml|sh|conf|toml)$|\/run$|file$/i.test(file),
  );

  test('names a folder of the machine that it was written on', () => {
    const places = ['home', 'root', 'work', 'Users'].map((name) => `/${name}/`).join('|');
    const pattern = new RegExp(`(^|[\\s"'\`=(:])(${places})\\w`, 'm');
    assert.match(`cd ${'/ho'}${'me/someone'}`, pattern);
    assert.deepEqual(
      everything.filter((file) => pattern.test(read(file))),
      [],
    );
  });
});

interface Manifest {
  readonly dependencies: Readonly<Record<string, string>>;
}

/** Of formatted text: a class ends with the first brace that stands where its own line begins. */
function classesIn(text: string): { name: string; lines: number }[] {
  const found = text.matchAll(/^(?:export )?(?:abstract )?class (\w+).*?^\}/gms);
  return [...found].map(([all, name]) => ({ name: name!, lines: all.split('\n').length }));
}

/** `@scope/name/deep/path` -> `@scope/name`. */
function packageOf(specifier: string): string {
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
}

function judge(from: string, to: string): string[] {
  if (exceptions.some((one) => one.from === from && one.to === to)) return [];
  const [here, there] = [areaOf(from), areaOf(to)];
  return forbidden
    .filter((arrow) => arrow.from === here && arrow.to.includes(there))
    .map(({ reason }) => `${from} imports ${to}: ${reason}`);
}

function areaOf(file: string): Area {
  const area = areas.find((prefix) => file.startsWith(prefix));
  assert.ok(area, `${file} is in no known folder`);
  return area;
}

function importedFiles(file: string): string[] {
  return importsIn(read(file))
    .filter((specifier) => specifier.startsWith('.'))
    .map((specifier) => join(dirname(file), specifier));
}

function importsIn(text: string): string[] {
  const code = text.replace(/^\s*(\/\/|\*|\/\*).*$/gm, '');
  const statements =
    /^(?:import|export)\b[^'";]*?\bfrom\s+'([^']+)'|^import\s+'([^']+)'|\bimport\(\s*'([^']+)'/gm;
  return [...code.matchAll(statements)].map(([, from, bare, dynamic]) => (from ?? bare ?? dynamic)!);
}

function filesOf(pattern: string): string[] {
  const skipped = new Set(['node_modules', 'dist', '.git']);
  return globSync(pattern, {
    cwd: root,
    withFileTypes: true,
    exclude: (entry) => skipped.has(typeof entry === 'string' ? basename(entry) : entry.name),
  })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(root.length))
    .sort();
}

function read(file: string): string {
  return readFileSync(join(root, file), 'utf8');
}
