// Which server a host belongs to, and what is known of it there.

import { type Case, each, oneServer, spellings } from '../case.ts';

const HOSTS = [
  'names.test',
  'NAMES.Test',
  'names.test.',
  'names.test:8443',
  'x.wild.test',
  'x.y.wild.test',
  'wild.test',
  'dot.test',
  'x.dot.test',
  'ending.test',
  'ending.example',
  'ending.a.b',
  'long.x.wild.test',
  'e1.re.test',
  'e22.re.test',
  'exact.re.test',
  'nobody.test',
];

const names: Case = {
  name: 'names',
  conf: `
server { listen TLS; server_name names.test; location / { return 200 "exact $host $server_name $http_host"; } }
server { listen TLS; server_name *.wild.test; location / { return 200 "wild $host $server_name"; } }
server { listen TLS; server_name *.x.wild.test; location / { return 200 "longer $host $server_name"; } }
server { listen TLS; server_name .dot.test; location / { return 200 "dot $host $server_name"; } }
server { listen TLS; server_name ending.*; location / { return 200 "ending $host $server_name"; } }
server { listen TLS; server_name ~^(?<first>e)(\\d+)\\.re\\.test$; location / { return 200 "re $first $2 $server_name"; } }
server { listen TLS; server_name ~^(?<other>[a-z0-9]+)\\.re\\.test$; location / { return 200 "other $other $1"; } }
server { listen TLS; server_name exact.re.test; location / { return 200 "before the patterns"; } }`,
  asks: HOSTS.map((host) => ({ target: '/', host })),
};

/** First in the alphabet, so that it is there before all others; it says so itself as well. */
const byDefault: Case = {
  name: 'a-default',
  conf: `server { listen TLS default_server; server_name a-default.test _ ""; location / { return 200 "default $host $server_name"; } location = /to { return 302 /there; } }`,
  asks: [
    ...['unknown.test', 'a-default.test', 'other.unknown.test'].flatMap((host) => [
      { target: '/', host },
      { target: '/to?x', host },
    ]),
  ],
};

const several = oneServer(
  'several',
  `server_name more.several.test *.several.test; location / { return 200 "$server_name $host"; } location = /r { return 301 /x; }`,
  ['several.test', 'more.several.test', 'z.several.test'].flatMap((host) => [
    { target: '/', host },
    { target: '/r', host },
  ]),
);

const nameInRedirect = oneServer(
  'server-name-in-redirect',
  `server_name_in_redirect on; location /a { return 301 /b; } location /c { port_in_redirect off; return 302 /d$is_args$args; }
   location /e { absolute_redirect off; return 307 /f; } location /g/ { proxy_pass http://UP; } location /h/ { absolute_redirect off; proxy_pass http://UP; }`,
  ['/a', '/c', '/c?x=1', '/e', '/g', '/g?y', '/g/', '/h', '/h?q=%20'].flatMap((target) => [
    { target },
    { target, host: 'SERVER-name-in-redirect.test' },
    { target, host: 'server-name-in-redirect.test:99' },
  ]),
);

const unmerged = oneServer(
  'unmerged',
  `merge_slashes off; location / { return 200 "any $uri"; } location /a/b { return 200 "ab $uri"; } location /a//b { return 200 "a//b $uri"; }`,
  [...spellings, '/a///b', '/a//../b', '//', '///a', '/a//./b', '/a/%2Fb', '/a%2F%2Fb'],
);

const merged = oneServer(
  'merged',
  `location / { return 200 "any $uri $args $request_uri"; } location /a/b { return 200 "ab $uri"; }`,
  [
    ...spellings,
    '/a///b',
    '/a//../b',
    '//',
    '///a',
    '/a//./b',
    '/a/%2Fb',
    '/a%2F%2Fb',
    '/a/.%2e/b',
    '/a%2f..%2fb',
  ],
);

const methods = oneServer(
  'methods',
  `location / { return 200 "$request_method $uri"; } location /up { proxy_pass http://UP; } location /file { root FOLDER/www; }`,
  ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH', 'PROPFIND', 'MKCOL', 'PURGE'].flatMap(
    (method) => each(['/', '/up', '/file.txt', '/file'], { method }),
  ),
);

const serverProgram = oneServer(
  'server-program',
  `set $a "$host"; if ($arg_x = 1) { return 403; } if ($uri ~ ^/old/(.*)$) { return 301 /new/$1; } rewrite ^/re/(.*)$ /a/$1 last; rewrite ^/br/(.*)$ /a/$1 break; rewrite ^/next/(.*)$ /re2/$1; rewrite ^/re2/(.*)$ /a/two/$1;
   location /a { return 200 "a $uri $args $a"; } location / { return 200 "any $uri"; } location /br { return 200 br; }`,
  [
    ...[
      '/',
      '/a',
      '/?x=1',
      '/a?x=1',
      '/a?x=2',
      '/old/b',
      '/old/b%20c',
      '/old/',
      '/re/x?y',
      '/br/x?y',
      '/next/q',
      '/re2/q',
    ],
    ...['/re/%3Fa', '/re/a%2Fb', '/next/%25'],
  ],
);

const nothing: Case = {
  name: 'nothing',
  conf: 'server { listen TLS; server_name nothing.test; root FOLDER/nowhere; }',
  asks: ['/', '/a', '/a/', { target: '/', method: 'POST' }, { target: '/', method: 'PUT' }],
};

const returning: Case = {
  name: 'returning',
  conf: `server { listen TLS; server_name returning.test; return 301 https://b.test$request_uri; }
server { listen TLS; server_name gone.returning.test; return 410; }
server { listen TLS; server_name closed.returning.test; return 444; }
server { listen TLS; server_name text.returning.test; default_type text/plain; return 200 "ok $uri\\n"; }
server { listen TLS; server_name json.returning.test; default_type application/json; return 503 '{"error":"$host"}'; }`,
  asks: ['', 'gone.', 'closed.', 'text.', 'json.'].flatMap((before) =>
    each(['/', '/a/b?c=d', '/%20?x', '/x.html'], { host: `${before}returning.test` }),
  ),
};

export const servers: readonly Case[] = [
  byDefault,
  names,
  several,
  nameInRedirect,
  unmerged,
  merged,
  methods,
  serverProgram,
  nothing,
  returning,
];
