// What goes to the upstream, and what becomes of its reply.

import { basic, type Case, each, oneServer, say, spellings } from '../case.ts';

const locationsOf = (base: string) => [
  ...[
    'http://UP/base/x',
    'http://UP/base',
    'http://UP/',
    'http://UP',
    'http://other.test/x',
    '/x',
    'x',
    '//c.test/y',
    'http://up.test/old/1',
    'https://UP/base/',
  ].map((location) => ({ target: base, headers: [say({ status: 302, fields: [['Location', location]] })] })),
  { target: base, headers: [say({ status: 201, fields: [['Location', 'http://UP/base/made']] })] },
  { target: base, headers: [say({ fields: [['Refresh', '5; url=http://UP/base/r']] })] },
];

const cookies = [
  'one=1; Path=/base/sub; HttpOnly',
  'two=2; Domain=.up.test; Path=/',
  'three=3; path=/other; Secure',
  'four=4',
  'five=5; Domain=UP.test; SameSite=None',
  'one=1; Path=/base/; Path=/x',
].map((cookie) => ({ target: '/c/x', headers: [say({ fields: [['Set-Cookie', cookie]] })] }));

export const proxying: readonly Case[] = [
  oneServer('proxy', 'location / { proxy_pass http://UP; }', [
    ...spellings,
    ...each(['/', '/a?b'], { method: 'POST', body: 'hello' }),
    ...each(['/'], { method: 'PUT', body: '' }),
    ...each(['/'], { method: 'DELETE' }),
    {
      target: '/',
      headers: [
        ['X-One', '1'],
        ['X-One', '2'],
        ['x_under', '3'],
        ['X-Empty', ''],
      ],
    },
    {
      target: '/',
      headers: [
        ['Cookie', 'a=b; c=d'],
        ['Authorization', 'Bearer x'],
        ['Accept', 'text/html'],
      ],
    },
    {
      target: '/',
      headers: [
        ['X-Forwarded-For', '9.9.9.9'],
        ['X-Real-IP', '8.8.8.8'],
        ['Forwarded', 'for=7'],
      ],
    },
    {
      target: '/',
      headers: [
        ['Range', 'bytes=0-1'],
        ['If-None-Match', '"x"'],
        ['Cache-Control', 'no-cache'],
      ],
    },
    ...[100, 199].map((status) => ({ target: `/x${status}` })),
    ...[200, 201, 202, 204, 206, 301, 304, 400, 401, 403, 404, 418, 429, 500, 502, 503, 599].map(
      (status) => ({
        target: '/',
        headers: [say({ status, body: 'text' })],
      }),
    ),
    {
      target: '/',
      headers: [
        say({
          fields: [
            ['Server', 'app'],
            ['X-Pad', 'x'],
            ['X-Accel-Expires', '1'],
            ['X-Accel-Buffering', 'no'],
            ['X-Powered-By', 'y'],
            ['Date', 'Mon, 01 Jan 2024 00:00:00 GMT'],
          ],
        }),
      ],
    },
    {
      target: '/',
      headers: [
        say({
          fields: [
            ['Set-Cookie', 'a=1'],
            ['Set-Cookie', 'b=2'],
            ['Vary', 'Accept'],
            ['Vary', 'Origin'],
          ],
        }),
      ],
    },
  ]),
  oneServer(
    'proxy-path',
    `location /a/ { proxy_pass http://UP/x/; } location /a { proxy_pass http://UP/; } location = /ab { proxy_pass http://UP/exact?y=1; } location / { proxy_pass http://UP/deep/er; } location /A/ { proxy_pass http://UP/x%20y/; }`,
    [...spellings, '/ab?x', '/a/x y'.replace(' ', '%20'), '/a/%2e', '/A/%41?%41', '/x/%25', '/x?/../y'],
  ),
  oneServer(
    'proxy-variables',
    `set $up UP; location / { proxy_pass http://$up; } location ~ ^/b/(.*)$ { proxy_pass http://UP/$1; } location /c { proxy_pass http://$up/fixed$is_args$args; } location /d { proxy_pass http://$up$request_uri; } location /e { proxy_pass http://$up$uri$is_args$args; } location /f { set $whole http://UP/g?h; proxy_pass $whole; } location /h { proxy_pass http://UP/i$arg_p; }`,
    [
      ...spellings,
      ...[
        '/b/x',
        '/b/x?y=1',
        '/b/',
        '/c',
        '/c/x?y=%20',
        '/d/a%2Fb?c',
        '/d//x',
        '/e/x?y',
        '/e/plain',
        '/f/x?y',
        '/h?p=/q',
        '/h',
      ],
    ],
  ),
  oneServer(
    'proxy-after-rewrite',
    `location /a/ { rewrite ^/a/(.*)$ /x/$1 break; proxy_pass http://UP; } location /b/ { rewrite ^/b/(.*)$ /x/$1 break; proxy_pass http://UP/ignored/; } location /c/ { rewrite ^/c/(.*)$ /d/$1 last; } location /d/ { proxy_pass http://UP/e/; }
     location /g { rewrite ^ $request_uri; rewrite ^/g(/.*)$ $1 break; proxy_pass http://UP$uri; } location /h { rewrite ^/h /i?j=k break; proxy_pass http://UP; } location /k { rewrite ^/k /l? break; proxy_pass http://UP; } location / { proxy_pass http://UP; }`,
    [
      ...spellings,
      ...[
        '/b/x?y',
        '/b/%20',
        '/c/x?y',
        '/c/a%2Fb',
        '/d',
        '/g/a%2Fb?c=d',
        '/g/x',
        '/h?m=n',
        '/h',
        '/k?m=n',
        '/a/x%23y?z',
        '/a/%E4',
        '/c/%3Fx',
      ],
    ],
  ),
  oneServer(
    'set-header',
    `proxy_set_header X-Outer outer; proxy_set_header X-Uri $uri; proxy_set_header Host $host;
     location / { proxy_pass http://UP; } location /b { proxy_set_header X-Inner inner; proxy_pass http://UP; } location /c { proxy_set_header Host fixed.test; proxy_set_header Accept-Encoding ""; proxy_set_header X-Twice 1; proxy_set_header x-twice 2; proxy_set_header X-Arg $arg_a; proxy_pass http://UP; }
     location /e { proxy_set_header Authorization ""; proxy_set_header Cookie $http_x_cookie; proxy_set_header User-Agent $http_user_agent; proxy_pass http://UP; } location /f { location /f/g { proxy_pass http://UP; } proxy_set_header X-F f; }`,
    [
      ...['/', '/a%20b', '/b', '/c', '/c?a=1', '/e', '/f/g'].flatMap((target) => [
        { target },
        {
          target,
          headers: [
            ['Accept-Encoding', 'gzip'],
            ['X-Outer', 'client'],
            ['X-Twice', 'client'],
            ['x-inner', 'client'],
            ['Cookie', 'a=b'],
            ['X-Cookie', 'c=d'],
            ['User-Agent', 'test'],
            ['Authorization', 'Bearer t'],
          ] as const,
        },
        {
          target,
          headers: [
            ['X-Forwarded-For', '9.9.9.9, 8.8.8.8'],
            ['X-Forwarded-Proto', 'http'],
            ['X-Real-IP', '7.7.7.7'],
          ] as const,
        },
      ]),
    ],
  ),
  oneServer(
    'forwarded-for',
    `location / { proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Forwarded-Port $server_port; proxy_pass http://UP; }`,
    [
      '/',
      {
        target: '/a',
        headers: [
          ['X-Forwarded-For', '9.9.9.9, 8.8.8.8'],
          ['X-Forwarded-Proto', 'http'],
          ['X-Real-IP', '7.7.7.7'],
        ],
      },
      {
        target: '/b',
        headers: [
          ['X-Forwarded-For', '9.9.9.9'],
          ['X-Forwarded-For', '8.8.8.8'],
          ['X-Forwarded-Host', 'evil.test'],
        ],
      },
    ],
  ),
  oneServer(
    'pass-nothing',
    `location /a { proxy_pass_request_headers off; proxy_set_header X-Set set; proxy_pass http://UP; } location /b { proxy_pass_request_body off; proxy_set_header Content-Length ""; proxy_pass http://UP; } location /c { proxy_method POST; proxy_pass http://UP; } location /d { proxy_method $arg_m; proxy_pass http://UP; }`,
    [
      ...['/a', '/b', '/c', '/d?m=PUT', '/d'].flatMap((target) => [
        {
          target,
          headers: [
            ['X-Client', 'c'],
            ['Cookie', 'a=b'],
          ] as const,
        },
        { target, method: 'POST', body: 'hello', headers: [['Content-Type', 'text/plain']] as const },
        { target, method: 'HEAD' },
      ]),
    ],
  ),
  oneServer('underscores', 'location / { proxy_pass http://UP; }', [
    {
      target: '/',
      headers: [
        ['x_under', '1'],
        ['X-Fine', '2'],
        ['x.dot', '3'],
        ['x~odd', '4'],
      ],
    },
  ]),
  oneServer(
    'underscores-on',
    'underscores_in_headers on; location / { proxy_pass http://UP; } location /v { return 200 "$http_x_under"; }',
    each(['/', '/v'], {
      headers: [
        ['x_under', '1'],
        ['X-Fine', '2'],
        ['x.dot', '3'],
      ],
    }),
  ),
  oneServer('invalid-kept', 'ignore_invalid_headers off; location / { proxy_pass http://UP; }', [
    {
      target: '/',
      headers: [
        ['x_under', '1'],
        ['X-Fine', '2'],
        ['x.dot', '3'],
        ['x~odd', '4'],
      ],
    },
  ]),
  oneServer(
    'redirects',
    `location /base/ { proxy_pass http://UP/base/; } location /root { proxy_pass http://UP; } location /off { proxy_redirect off; proxy_pass http://UP/base/; } location /rule { proxy_pass http://UP/base/; proxy_redirect http://up.test/ /new/; proxy_redirect ~^http://other\\.test(.*)$ https://$host$1; proxy_redirect default; } location /vars { set $u UP; proxy_pass http://$u; } location /text { proxy_pass http://UP; proxy_redirect http://$proxy_host/ /p/; }`,
    ['/base/', '/root', '/off', '/rule', '/vars', '/text'].flatMap(locationsOf),
  ),
  oneServer(
    'cookies',
    `location /c { proxy_pass http://UP; proxy_cookie_path /base/ /front/; proxy_cookie_domain up.test $host; proxy_cookie_flags one secure samesite=strict nohttponly; proxy_cookie_flags ~^t httponly; }
     location /d { proxy_pass http://UP; proxy_cookie_path / "/; Secure"; } location /e { proxy_pass http://UP; proxy_cookie_path ~^/([a-z]+)/ /x/$1/; proxy_cookie_domain ~\\.?up.test$ e.test; } location /f { proxy_pass http://UP; proxy_cookie_flags ~ secure; }`,
    ['/c', '/d', '/e', '/f'].flatMap((target) => cookies.map((ask) => ({ ...ask, target }))),
  ),
  oneServer(
    'hidden',
    `location / { proxy_pass http://UP; proxy_hide_header X-Powered-By; proxy_hide_header Vary; } location /p { proxy_pass http://UP; proxy_pass_header Server; proxy_pass_header X-Pad; proxy_pass_header X-Accel-Expires; }`,
    each(['/', '/p'], {
      headers: [
        say({
          fields: [
            ['Server', 'app'],
            ['X-Pad', 'x'],
            ['x-powered-by', 'y'],
            ['Vary', 'Accept'],
            ['X-Accel-Expires', '0'],
            ['X-Other', 'o'],
          ],
        }),
      ],
    }),
  ),
  oneServer(
    'inherited',
    `proxy_hide_header X-A; proxy_set_header X-S server; add_header X-Added server;
     location /a { proxy_pass http://UP; location /a/b { proxy_hide_header X-B; add_header X-More more; proxy_pass http://UP; } location /a/c { return 200 c; } location /a/d { root FOLDER/www; } }
     location /e { proxy_set_header X-L location; if ($arg_i) { set $i 1; } proxy_pass http://UP; }`,
    ['/a', '/a/b', '/a/c', '/a/d', '/e', '/e?i=1'].map((target) => ({
      target,
      headers: [
        say({
          fields: [
            ['X-A', '1'],
            ['X-B', '2'],
          ],
        }),
      ],
    })),
  ),
  oneServer(
    'body-size',
    `location / { proxy_pass http://UP; client_max_body_size 5; } location /unlimited { client_max_body_size 0; proxy_pass http://UP; } location /k { client_max_body_size 1k; proxy_pass http://UP; } location /return { client_max_body_size 5; return 200 r; } location /page { client_max_body_size 5; error_page 413 /too-large; proxy_pass http://UP; } location = /too-large { return 200 "too large"; }`,
    ['/', '/unlimited', '/k', '/return', '/page'].flatMap((target) =>
      ['', '12345', '123456', 'x'.repeat(1024), 'x'.repeat(1025)].map((body) => ({
        target,
        method: 'POST',
        body,
      })),
    ),
  ),
  oneServer(
    'groups',
    `location / { proxy_pass http://groups_one; } location /x/ { proxy_pass http://groups_one/y/; } location /v { set $g groups_one; proxy_pass http://$g/z; } location /down { proxy_pass http://DOWN; } location /both { proxy_pass http://groups_both; } location /page { error_page 502 = @page; proxy_pass http://DOWN; } location @page { return 200 "down $uri $status"; }`,
    [
      ...['/', '/x/a%20b', '/v', '/v/w?x', '/down', '/both', '/both?x', '/page'],
      { target: '/both', method: 'POST', body: 'hello' },
      { target: '/', headers: [say({ status: 302, fields: [['Location', 'http://groups_one/a']] })] },
      { target: '/x/', headers: [say({ status: 302, fields: [['Location', 'http://groups_one/y/a']] })] },
    ],
    'upstream groups_one { server UP; } upstream groups_both { server DOWN backup; server UP; }',
  ),
  oneServer(
    'credentials',
    'location / { proxy_pass http://UP; proxy_set_header Authorization $http_authorization; proxy_set_header X-User $remote_user; }',
    ['ann:secret', 'bob:', ':x', 'a:b:c'].map((text) => ({
      target: '/',
      headers: [basic(text.slice(0, text.indexOf(':')), text.slice(text.indexOf(':') + 1))],
    })),
  ),
];
