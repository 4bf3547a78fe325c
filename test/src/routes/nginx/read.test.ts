// nginx files as people mount them: what they are read as, and what is said of what cannot be.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync } from 'node:fs';
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { compile } from '../../../../proxy/rules/compile.ts';
import { describeMistake } from '../../../../src/config/mistake.ts';
import { type Domain, parseDomain } from '../../../../src/lib/domain.ts';
import { readGuardedFileSync } from '../../../../src/lib/guarded-file.ts';
import { judgeNames } from '../../../../src/routes/nginx/names.ts';
import { readNginxFiles } from '../../../../src/routes/nginx/read.ts';
import { ask } from '../../../proxy/rules/driver.ts';
import { realFiles } from './files.ts';
import { FOLDER, mistakesOf, read, readAll } from './reader.ts';

const inLocation = (text: string) => `server { location / { ${text} } }`;
const rulesOf = (name: keyof typeof realFiles) => readAll(realFiles[name]!).rules;

describe('files as they are mounted', () => {
  for (const [name, files] of Object.entries(realFiles))
    test(`are read whole: ${name}`, () => {
      const { mistakes, rules } = readAll(files);
      assert.deepEqual(mistakes.map(describeMistake), []);
      assert.ok(rules.sites.length > 0);
      assert.deepEqual(JSON.parse(JSON.stringify(rules)), rules);
      compile(rules);
    });

  test('of 1.x go where they went: paths as they came, the usual fields, one mebibyte of body', () => {
    const rules = rulesOf('the single-domain file of 1.x images');
    const { target, forwarded } = ask(rules, '/a%2Fb//c?d=e', { host: 'app.example.com' });
    assert.equal(target, '/a%2Fb//c?d=e');
    assert.equal(forwarded[0]!.host, 'app.example.com');
    assert.equal(forwarded[0]!.pool.name, 'app:8080');
    assert.equal(ask(rules, '/', { method: 'POST', contentLength: 1024 * 1024 + 1 }).status, 413);
  });

  test('leave evidence, challenges and redirects to the ingress', () => {
    const one = readAll(realFiles['the single-domain file of 1.x images']!);
    assert.equal(one.rules.sites[0]!.locations.length, 1);
    assert.ok(one.notes.some(({ kind }) => kind === 'evidence'));
    const several = readAll(realFiles['several domains with backups and limits']!);
    assert.deepEqual(
      several.rules.sites.map(({ label }) => label),
      ['app.example.com', '_'],
    );
    assert.ok(several.notes.some(({ kind }) => kind === 'plain HTTP'));
  });

  test('say once what has no effect, however often it is written', () => {
    const { notes } = readAll(realFiles['several domains with backups and limits']!);
    const kinds = notes.map(({ kind }) => kind);
    assert.deepEqual(kinds, [...new Set(kinds)]);
    const certificates = notes.find(({ kind }) => kind === 'tls')!;
    assert.deepEqual(certificates.place, { file: `${FOLDER}/10-web.conf`, line: 5, column: 5 });
    assert.ok(certificates.directives.includes('ssl_certificate'));
  });

  test('choose a server by name as nginx does, and the default by its order', () => {
    const rules = rulesOf('several domains with backups and limits');
    assert.equal(ask(rules, '/health', { host: 'app-i42.example.com' }).body, 'ok');
    assert.equal(ask(rules, '/.git/config', { host: 'app.example.com' }).status, 404);
    assert.equal(ask(rules, '/', { host: 'app.example.com' }).forwarded[0]!.pool.name, 'web_pool');
  });

  test('ask the service of single sign-on before the app', () => {
    const rules = rulesOf('single sign-on by sub-requests');
    const asked = { host: 'secure.example.com' };
    const upstream = (status: number) => ({
      upstream: ({ pool }: { pool: { name: string } }) => ({
        status: pool.name.startsWith('authelia') ? status : 200,
        fields: { all: (name: string) => (name === 'location' ? ['https://login.example.com/'] : []) },
      }),
    });
    const refused = ask(rules, '/page', asked, upstream(401) as never);
    assert.equal(refused.status, 302);
    assert.equal(refused.forwarded.length, 1);
    assert.equal(ask(rules, '/page', asked, upstream(200) as never).forwarded.length, 2);
    assert.equal(ask(rules, '/internal/auth', asked).status, 404);
  });

  test('have their users read along', () => {
    const { rules, watched } = readAll(realFiles['a single-page app beside its API']!);
    const admin = rules.sites[0]!.locations.find(({ match }) => 'path' in match && match.path === '/admin')!;
    assert.deepEqual(
      admin.policy!.basicUsers!.map(({ name }) => name),
      ['admin', 'other'],
    );
    assert.ok(watched.includes(`${FOLDER}/admin.htpasswd`));
  });

  test('give gRPC what grpc_* says, and the rest what proxy_* says', () => {
    const rules = rulesOf('gRPC and HTTP of one name');
    const pools = compile(rules).pools.map(({ name, protocol, readTimeoutMs }) => [
      name,
      protocol,
      readTimeoutMs,
    ]);
    assert.deepEqual(pools, [
      ['grpc:50051', 'grpc', 3_600_000],
      ['rest:8080', 'http', 60_000],
    ]);
  });
});

describe('a folder', () => {
  test('is read in the order of its names, and only what ends with .conf', () => {
    const { rules } = readAll({
      'b.conf': 'server { server_name b.test; }',
      'B.conf': 'server { server_name big-b.test; }',
      'a.conf.bak': 'server { nonsense; }',
      '.hidden.conf': 'server { nonsense; }',
    });
    assert.deepEqual(
      rules.sites.map(({ label }) => label),
      ['big-b.test', 'b.test'],
    );
  });

  test('may include its own files, by name, by pattern, and within blocks', () => {
    const { rules, mistakes, watched } = readAll({
      'a.conf':
        'include conf.d/parts/*.inc; include /etc/nginx/conf.d/none/*.inc; map $host $a { include conf.d/map.txt; } server { location / { return 200 $a; } }',
      'parts/2.inc': 'server { server_name two.test; }',
      'parts/1.inc': 'server { server_name one.test; }',
      'map.txt': 'a.test yes; default no;',
    });
    assert.deepEqual(mistakes, []);
    assert.deepEqual(
      rules.sites.map(({ label }) => label),
      ['one.test', 'two.test', ''],
    );
    assert.equal(rules.maps![0]!.entries.length, 1);
    assert.ok(
      watched.includes(`${FOLDER}/none`) && watched.includes(`${FOLDER}/map.txt`) && watched.includes(FOLDER),
    );
  });

  test('is told of includes that are missing, circular, outside or too deep', () => {
    const said = readAll({
      'a.conf':
        'include missing.inc;\ninclude conf.d/circle.inc;\ninclude /etc/passwd;\ninclude mime.types;\ninclude $host;',
      'circle.inc': 'include conf.d/circle.inc;',
    }).mistakes.map((mistake) => describeMistake(mistake).replaceAll(`${FOLDER}/`, ''));
    assert.deepEqual(said, [
      'a.conf:1:9: "/etc/nginx/missing.inc" cannot be read: ENOENT: there is nothing of that name, is it mounted?',
      'a.conf:3:9: "/etc/passwd" lies outside of /etc/nginx: mount it there, and include it as "/etc/nginx/passwd"',
      'a.conf:5:9: include "$host" holds a variable: write the path out',
      'circle.inc:1:9: "conf.d/circle.inc" includes itself: take this include away',
    ]);
  });

  test('with includes that multiply is refused before it costs much', () => {
    const files: Record<string, string> = { 'a.conf': 'include conf.d/0.inc;' };
    for (let i = 0; i < 9; i++) files[`${i}.inc`] = `include conf.d/${i + 1}.inc;`.repeat(50);
    files['9.inc'] = '# the end';
    const { mistakes } = readAll(files);
    assert.match(mistakes.map(describeMistake).join('\n'), /more than 2000 files/);
  });

  test('is told where it cannot be listed', () => {
    const { mistakes } = readNginxFiles('/nowhere', {
      readFile: () => '',
      listFolder() {
        throw Object.assign(new Error(), { code: 'EACCES' });
      },
    });
    assert.deepEqual(mistakes.map(describeMistake), [
      '/nowhere: cannot be read: EACCES: its mode keeps us out',
    ]);
  });

  test('is not waited for where a pipe or a folder stands in the place of a file', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'nginx-folder-'));
    try {
      assert.equal(spawnSync('mkfifo', [join(folder, 'pipe.conf')]).status, 0);
      mkdirSync(join(folder, 'folder.conf'));
      await writeFile(join(folder, 'real'), 'server { server_name real.test; }');
      await symlink('real', join(folder, 'link.conf'));
      const { mistakes, rules } = readNginxFiles(folder, {
        readFile: readGuardedFileSync,
        listFolder: (path) => readdirSync(path),
      });
      assert.deepEqual(
        mistakes.map(({ place, subject }) => `${place.file!.slice(folder.length + 1)}: ${subject}`),
        ['folder.conf: cannot be read: EISDIR', 'pipe.conf: cannot be read: not a file'],
      );
      assert.deepEqual(rules.sites, []);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe('a mistake', () => {
  const said: readonly (readonly [text: string, ...mistakes: string[]])[] = [
    [
      'server {\n  proxy_pas http://a;\n}',
      'a.conf:2:3: "proxy_pas" is not a directive that is known here: was proxy_pass meant?',
    ],
    [
      'server {\n  proxy_pass http://a;\n}',
      'a.conf:2:3: proxy_pass may not stand in server: wants it in location, an if in location, limit_except',
    ],
    [
      'http {\n  server { }\n}',
      'a.conf:1:1: http is refused: files of this folder stand inside of nginx.conf, which has these blocks: remove the wrapper and keep what is in it: server, upstream and map blocks',
    ],
    [
      'server {\n  server_name a.test\n  location / { return 200; }\n}',
      'a.conf:2:3: server_name takes no block: end line 2 with ;',
    ],
    [
      'server {\n  location / {\n    proxy_pass http://a\n    proxy_buffering off;\n  }\n}',
      'a.conf:3:5: proxy_pass takes 1 argument, not 3: end line 3 with ;',
    ],
    ['server {\n  listen 80\n}', 'a.conf:2:3: "listen" has no ; behind it: end it with ; before the }'],
    ['server {\n  location / {\n', 'a.conf:2:3: the block of "location" is not closed: close it with }'],
    ['server { }\n}', 'a.conf:2:1: } closes no block: take it away, or open its block'],
    ['server { server_name "a.test; }', 'a.conf:1:22: a quote (") is not closed: close it with "'],
    [
      'server { server_name "a"b; }',
      'a.conf:1:25: "b" follows a quote: put a space or a ; behind the closing quote',
    ],
    ['\uFEFFserver { }', 'a.conf:1:1: begins with a byte order mark: save it as UTF-8 without one'],
    [
      inLocation('fastcgi_pass a:9000; fastcgi_param A b; fastcgi_index c;'),
      'a.conf:1:23: fastcgi_pass is refused: only HTTP and gRPC are spoken to upstreams: run a web server in front of the app, and proxy_pass to it',
    ],
    [
      inLocation('content_by_lua_block { ngx.say("a}") if x then { } end } return 200;'),
      'a.conf:1:23: content_by_lua_block is refused: Lua is not run: let the app or a sub-request (auth_request) decide',
    ],
    [
      inLocation('proxy_set_header X $htp_host;'),
      'a.conf:1:42: there is no variable $htp_host: define it by set or map, or take it away',
    ],
    [
      inLocation('proxy_set_header X $remote_adr;'),
      'a.conf:1:42: there is no variable $remote_adr: was $remote_addr meant?',
    ],
    [
      inLocation('proxy_pass http://unix:/run/app.sock;'),
      'a.conf:1:34: the upstream is a UNIX socket: let the app listen on a port, and write host:port',
    ],
    [
      inLocation('if ($host="a") { return 200; }'),
      'a.conf:1:23: if ($host="a") is not a condition: wants ($a), ($a = text), ($a ~ re) or (-f path), and spaces around the operator',
    ],
    [
      'server { location ~ a { proxy_pass http://a/b; } }',
      'a.conf:1:36: proxy_pass has a path ("/b") in a regular expression: take the path away, or write the whole URL with variables: …$request_uri',
    ],
    [
      'server { location / { } location / { } }',
      'a.conf:1:25: there are two location / here: put what they say into one',
    ],
    [
      'server { ssl_verify_client on; ssl_reject_handshake on; }',
      'a.conf:1:28: ssl_verify_client has no authorities to verify by: write ssl_client_certificate with a PEM file',
      'a.conf:1:32: ssl_reject_handshake is refused: a name without a certificate is refused in any case: take the server away, if it holds nothing else',
    ],
    [
      inLocation('limit_req zone=a;'),
      'a.conf:1:23: there is no zone a of limit_req_zone: define it: limit_req_zone $binary_remote_addr zone=a:10m rate=10r/s;',
    ],
    [
      inLocation('rewrite ^/(?=(a+)+$) /b;'),
      'a.conf:1:31: the regular expression "^/(?=(a+)+$)" is refused: its repetitions overlap and it looks around: it could take forever: write it without (?=…) and (?!…), or so that no repetition can take what another one does',
    ],
    [
      'upstream a { server b:1; }\nupstream a { server b:2; }',
      'a.conf:2:1: the upstream a is defined twice: give one of them another name',
    ],
  ];
  for (const [text, ...mistakes] of said)
    test(`has its place and its cure: ${mistakes[0]}`, () => assert.deepEqual(mistakesOf(text), mistakes));

  test('does not hide another one, in whatever file', () => {
    const { mistakes } = readAll({
      'b.conf': 'server { lisen 80; server_name ~(; }',
      'a.conf': 'upstream a { }\nserver { location / { proxy_read_timeout soon; gzip maybe; } }',
    });
    assert.deepEqual(
      mistakes.map(({ place }) => `${place.file!.slice(FOLDER.length + 1)}:${place.line}:${place.column}`),
      ['a.conf:1:1', 'a.conf:2:42', 'a.conf:2:48', 'b.conf:1:10', 'b.conf:1:32'],
    );
  });

  test('that is made a thousand times is told a hundred times', () => {
    assert.equal(mistakesOf('nonsense;\n'.repeat(1000)).length, 101);
  });
});

describe('names', () => {
  const domains = ['app.example.com', '*.example.org', 'lost.example.com'].map((name) => parseDomain(name));
  const judge = (text: string, isRouted: (domain: Domain) => boolean = () => false) => {
    const { uncovered, byDefault } = judgeNames(read(text).rules, domains, isRouted);
    return {
      uncovered: uncovered.map(({ subject }) => subject),
      byDefault: byDefault.map(({ subject }) => subject),
    };
  };
  const server = (names: string) => `server { listen 443 ssl; server_name ${names}; }`;

  test('without a certificate are told, and those of nobody are not', () => {
    const { uncovered } = judge(
      server(
        'app.example.com a.example.org a.b.example.org other.test _ *.example.org ~^app\\. ~^any$ lost.*',
      ),
    );
    assert.deepEqual(uncovered, [
      'no certificate covers the server_name a.b.example.org',
      'no certificate covers the server_name other.test',
    ]);
  });

  test('of domains that only the default server takes are told, unless a setting says where they go', () => {
    const text = server('app.example.com a.example.org');
    assert.deepEqual(judge(text).byDefault, [
      'lost.example.com has no server block of its own, and this one answers it as the default',
    ]);
    assert.deepEqual(judge(text, () => true).byDefault, []);
    assert.deepEqual(judge(server('app.example.com *.example.com a.example.org')).byDefault, []);
  });
});
