// nginx files of a 1.x image: a domain that they would have sent elsewhere stops the start, with the line to write.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Config, ConfigError, readConfig } from '../../../src/config/config.ts';
import { describeMistake } from '../../../src/config/mistake.ts';
import { describeRoutes } from '../../../src/routes/plan.ts';

const CONF_D = '/etc/nginx/conf.d';
const base = { GATEWAY_DOMAIN: 'gateway.example.net', CLOUDFLARE_API_TOKEN: 'v1.0-0123456789abcdef' };

function read(env: Record<string, string>, files: Record<string, string>): Config {
  const all: Record<string, string> = {};
  for (const [name, text] of Object.entries(files))
    all[name.startsWith('/') ? name : `${CONF_D}/${name}`] = text;
  const missing = (path: string) => Object.assign(new Error(path), { code: 'ENOENT', path });
  return readConfig(
    { ...base, ...env },
    (path) => {
      const text = all[path];
      if (text === undefined) throw missing(path);
      return text;
    },
    (folder) => {
      const inside = Object.keys(all).filter((path) => path.startsWith(`${folder}/`));
      if (inside.length === 0) throw missing(folder);
      return inside.map((path) => path.slice(folder.length + 1));
    },
  );
}

function mistakesOf(env: Record<string, string>, files: Record<string, string>): string[] {
  try {
    read(env, files);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.mistakes.map(describeMistake);
  }
  return [];
}

/** As the 1.x image's own example of several domains has it. */
const server = (name: string, upstream: string, more = '') => `# ${name}
server {
    listen 443 ssl;
    http2 on;
    server_name ${name};
    ssl_certificate /etc/letsencrypt/live/${name}/fullchain.pem;
    ssl_certificate_key /etc/letsencrypt/live/${name}/privkey.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    location / {
        proxy_pass ${upstream};
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "upgrade";
    }
    location /evidences/ { alias /evidences/; autoindex on; }
${more}}
`;

test('a second domain that nginx files send elsewhere stops the start with the ROUTING_MAP line to write', () => {
  assert.deepEqual(
    mistakesOf(
      { DOMAIN: 'app.example.com', TARGET_ENDPOINT: 'http://app:80', DOMAINS: 'api.example.com' },
      { 'api.conf': server('api.example.com', 'http://api:8080') },
    ),
    [
      'NGINX_CONF_DIR: /etc/nginx/conf.d: nginx files are not read, and TARGET_ENDPOINT would serve what they send elsewhere: api.example.com (api.conf:5): write ROUTING_MAP: api.example.com=http://api:8080',
    ],
  );
});

test('DOMAINS with nginx files alone is one mistake, with every route in one line', () => {
  assert.deepEqual(
    mistakesOf(
      { DOMAINS: 'app.example.com\napi.example.com' },
      {
        'a.conf': server('app.example.com', 'http://app-main:80'),
        'b.conf': server('api.example.com', 'http://app-api:80/'),
      },
    ),
    [
      'NGINX_CONF_DIR: /etc/nginx/conf.d: nginx files are not read, and nothing else says where these go: app.example.com (a.conf:5), api.example.com (b.conf:5): write ROUTING_MAP: app.example.com=http://app-main:80,api.example.com=http://app-api:80',
    ],
  );
});

test('the line to write is one that works, whether or not the files stay mounted', () => {
  const files = {
    'a.conf': server('app.example.com', 'http://app-main:80'),
    'b.conf': `${server('api.example.com', 'grpc://unused')}`.replace(
      'proxy_pass grpc://unused',
      'grpc_pass rpc:50051',
    ),
  };
  const env = { DOMAINS: 'app.example.com\napi.example.com' };
  const map = /write ROUTING_MAP: (\S+)$/.exec(mistakesOf(env, files)[0]!)![1]!;
  const config = read({ ...env, ROUTING_MAP: map }, files);
  assert.deepEqual(describeRoutes(config.routes), {
    'app.example.com': 'http://app-main:80',
    'api.example.com': 'grpc://rpc:50051',
  });
  assert.deepEqual(
    config.warnings.map(({ variable, warning }) => `${variable}: ${warning}`),
    [`NGINX_CONF_DIR: ${CONF_D}/a.conf is not read`, `NGINX_CONF_DIR: ${CONF_D}/b.conf is not read`],
  );
});

test('what was written by the 1.x image itself for its one domain does not stop a start', () => {
  const env = { DOMAIN: 'app.example.com', TARGET_ENDPOINT: 'http://app:80' };
  const files = { 'default.conf': server('app.example.com', 'http://app:80') };
  assert.deepEqual(describeRoutes(read(env, files).routes), { 'app.example.com': 'http://app:80' });
});

test('the default.conf that nginx ships does not stop a start, nor is it spoken of', () => {
  const shipped = `server {
    listen       80;
    listen  [::]:80;
    server_name  localhost;

    #access_log  /var/log/nginx/host.access.log  main;

    location / {
        root   /usr/share/nginx/html;
        index  index.html index.htm;
    }

    error_page   500 502 503 504  /50x.html;
    location = /50x.html {
        root   /usr/share/nginx/html;
    }
}
`;
  const nameless =
    'server { listen 80 default_server; root /var/www/html; location / { try_files $uri =404; } }';
  const env = { DOMAIN: 'app.example.com', TARGET_ENDPOINT: 'http://app:80' };
  for (const text of [shipped, nameless, 'server { server_name _; return 444; }', '', '# nothing\n']) {
    assert.deepEqual(read(env, { 'default.conf': text }).warnings, [], text);
  }
});

test('a file that says more than one upstream is told with its place, and that ROUTES_FILE is what to write', () => {
  const mistakes = mistakesOf(
    {
      DOMAIN: 'app.example.com',
      TARGET_ENDPOINT: 'http://app:80',
      DOMAINS: 'api.example.com www.example.com',
    },
    {
      'api.conf': server(
        'api.example.com',
        'http://api:8080',
        '    location /v1/ { proxy_pass http://v1:80; }\n    add_header X-A b;\n',
      ),
      'www.conf':
        'server {\n  server_name www.example.com;\n  return 301 https://app.example.com$request_uri;\n}\n',
      'x.conf': server('app.example.com', 'http://other:80'),
    },
  );
  assert.deepEqual(mistakes, [
    'NGINX_CONF_DIR: /etc/nginx/conf.d: nginx files are not read, and TARGET_ENDPOINT would serve what they send elsewhere: app.example.com (x.conf:5): write ROUTING_MAP: app.example.com=http://other:80',
    'NGINX_CONF_DIR: /etc/nginx/conf.d/api.conf:5: nginx files are not read, and this one says more of api.example.com than one upstream: location /v1/ (line 19), add_header (line 20): write ROUTES_FILE: hosts, path prefixes, upstreams, timeouts; what it has no key for is left to the app',
    'NGINX_CONF_DIR: /etc/nginx/conf.d/www.conf:2: nginx files are not read, and this one says more of www.example.com than one upstream: return (line 3): write ROUTES_FILE: hosts, path prefixes, upstreams, timeouts; what it has no key for is left to the app',
  ]);
});

test('they are told together with all other mistakes', () => {
  const mistakes = mistakesOf(
    { DOMAIN: 'app.example.com', TARGET_ENDPOINT: 'http://app:80', DOMAINS: 'api.example.com', PORT: 'x' },
    { 'api.conf': server('api.example.com', 'http://api:8080') },
  );
  assert.equal(mistakes.length, 2);
  assert.match(mistakes[0]!, /^NGINX_CONF_DIR: /);
  assert.match(mistakes[1]!, /^PORT: /);
});

test('a name that is not among the domains is to be added, and a map that is there is added to', () => {
  const [mistake] = mistakesOf(
    { DOMAIN: 'app.example.com', ROUTING_MAP: 'app.example.com=http://app:80' },
    { 'api.conf': server('api.example.com', 'http://api:8080', '    client_max_body_size 100m;\n') },
  );
  assert.match(
    mistake!,
    /: add to ROUTING_MAP: api\.example\.com=http:\/\/api:8080; add api\.example\.com to DOMAINS; set CLIENT_MAX_BODY_SIZE=100m, for all domains$/,
  );
});

test('upstream blocks, variables, several names and quotes are seen through', () => {
  const text = `
upstream "backend" { server app:3000; keepalive 32; }
map $http_upgrade $connection_upgrade { default upgrade; '' close; }
server {
  listen 443 ssl; server_name a.example.com b.example.com .example.org;
  set $up http://dynamic:81; # a ; in a comment { does nothing
  location / { proxy_pass http://backend$request_uri; }
}
server { listen 443 ssl; server_name "c.example.com"; set $up "http://dynamic:81"; location / { proxy_pass $up; } }
server { listen 80; server_name a.example.com; return 301 https://$host$request_uri; }
`;
  const [mistake, ...others] = mistakesOf(
    { DOMAINS: 'a.example.com b.example.com c.example.com example.org *.example.org' },
    { 'a.conf': text },
  );
  assert.deepEqual(others, []);
  assert.match(
    mistake!,
    /write ROUTING_MAP: a\.example\.com=http:\/\/app:3000,b\.example\.com=http:\/\/app:3000,example\.org=http:\/\/app:3000,\*\.example\.org=http:\/\/app:3000,c\.example\.com=http:\/\/dynamic:81$/,
  );
});

test('an expression in place of a name, and a pool of servers, are not guessed at', () => {
  const mistakes = mistakesOf(
    { DOMAINS: 'a.example.com', TARGET_ENDPOINT: 'http://app:80' },
    {
      'a.conf': 'server { server_name ~^x-\\d{1,3}\\.example\\.com$; location / { proxy_pass http://x; } }\n',
      'b.conf':
        'upstream pool { server a:1; server b:1; }\nserver { server_name a.example.com; location / { proxy_pass http://pool; } }\n',
    },
  );
  assert.equal(mistakes.length, 2);
  assert.match(
    mistakes[0]!,
    /a\.conf:1: server_name "~\^x-.*" is an expression, and no names: write the names/,
  );
  assert.match(mistakes[1]!, /b\.conf:2: .*than one upstream: proxy_pass \(line 2\): write ROUTES_FILE/);
});

test('a server for every other name is one more way to a wrong app', () => {
  const env = { DOMAIN: 'app.example.com', TARGET_ENDPOINT: 'http://app:80' };
  const files = {
    'default.conf': 'server { listen 443 ssl; server_name _; location / { proxy_pass http://web:80; } }',
  };
  assert.deepEqual(mistakesOf(env, files), [
    `NGINX_CONF_DIR: ${CONF_D}/default.conf:1: nginx files are not read, and this one sends every other name to http://web:80: set TARGET_ENDPOINT=http://web:80, or take the file's mount away`,
  ]);
  assert.deepEqual(mistakesOf({ ...env, TARGET_ENDPOINT: 'http://web' }, files), []);
  assert.deepEqual(mistakesOf({ ...env, ROUTING_MAP: 'app.example.com=app:1' }, files), []);
});

test('a file that cannot be read, or is no nginx file, is told with its place', () => {
  const env = { DOMAIN: 'app.example.com', TARGET_ENDPOINT: 'http://app:80' };
  for (const [text, said] of [
    ['server {\n  server_name a.example.com;\n', /a\.conf:1: the block "server" is not closed: /],
    ['}\n', /a\.conf:1: closes a block that is not open: /],
    ['server_name a.example.com', /a\.conf:1: "server_name" has no semicolon behind it: /],
    ['{'.repeat(100), /a\.conf:1: is nested too deeply: /],
    ['x'.repeat(300_000), /a\.conf:1: is larger than 256 KiB: /],
  ] as const) {
    const mistakes = mistakesOf(env, { 'a.conf': text });
    assert.equal(mistakes.length, 1);
    assert.match(mistakes[0]!, said);
  }
});

test('what a file without names says is named in a warning', () => {
  const env = { DOMAIN: 'app.example.com', TARGET_ENDPOINT: 'http://app:80' };
  const { warnings } = read(env, { 'limits.conf': 'client_max_body_size 100m;\ngzip on;\n' });
  assert.deepEqual(
    warnings.map(({ warning }) => warning),
    [
      `${CONF_D}/limits.conf is not read, and what it says beyond routes does nothing: gzip (line 2)`,
      'nginx files are not read: set CLIENT_MAX_BODY_SIZE=100m in their place',
    ],
  );
});

test('another folder is read if it is named and must exist, and "none" reads nothing', () => {
  const env = { DOMAIN: 'app.example.com', TARGET_ENDPOINT: 'http://app:80', DOMAINS: 'api.example.com' };
  const text = server('api.example.com', 'http://api:8080');
  assert.deepEqual(mistakesOf({ ...env, NGINX_CONF_DIR: 'none' }, { 'api.conf': text }), []);
  assert.equal(mistakesOf({ ...env, NGINX_CONF_DIR: '/conf' }, { '/conf/api.conf': text }).length, 1);
  assert.deepEqual(mistakesOf({ ...env, NGINX_CONF_DIR: '/nowhere' }, {}), [
    'NGINX_CONF_DIR: /nowhere: cannot be read: ENOENT: there is nothing of that name, is it mounted?',
  ]);
  assert.deepEqual(mistakesOf(env, { 'readme.txt': text, 'api.conf.bak': text }), []);
});

test('several domains with TARGET_ENDPOINT alone go on as they did, and it can be said where each goes', () => {
  const config = read(
    { DOMAIN: 'app.example.com', DOMAINS: 'api.example.com', TARGET_ENDPOINT: 'app:80' },
    {},
  );
  assert.deepEqual(describeRoutes(config.routes), {
    'app.example.com': 'app:80',
    'api.example.com': 'app:80',
  });
  assert.deepEqual(config.warnings, []);
});
