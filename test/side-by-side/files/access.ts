// Who may come in, how often, and what only the server itself leads to.

import { basic, type Case, each, oneServer, say } from '../case.ts';

const right = basic('ann', 'secret');
const logins = [
  undefined,
  right,
  basic('ann', 'wrong'),
  basic('bob', 'sha'),
  basic('bob', 'no'),
  basic('cid', 'crypted'),
  basic('eve', 'secret'),
  basic('ann', ''),
  ['Authorization', 'Bearer x'],
  ['Authorization', 'Basic !!!'],
  ['authorization', `basic ${Buffer.from('ann:secret').toString('base64')}`],
] as const;
const withLogins = (target: string) =>
  logins.map((login) => ({ target, headers: login === undefined ? [] : [login] }));

export const access: readonly Case[] = [
  oneServer(
    'addresses',
    `location /a { deny 127.0.0.1; } location /b { allow 127.0.0.0/8; deny all; return 200 never-judged; } location /c { allow 127.0.0.0/8; deny all; proxy_pass http://UP; } location /d { deny all; return 200 "before"; } location /e { allow 10.0.0.0/8; deny all; proxy_pass http://UP; } location /f { deny 10.0.0.0/8; proxy_pass http://UP; } location /g { allow all; deny all; proxy_pass http://UP; } location /h { deny ::1; allow ::/0; deny all; proxy_pass http://UP; }
     location /i { deny all; location /i/j { allow all; proxy_pass http://UP; } proxy_pass http://UP; } location /k { deny all; location /k/l { proxy_pass http://UP; } }`,
    ['/a', '/b', '/c', '/d', '/e', '/f', '/g', '/h', '/i', '/i/j', '/k', '/k/l', '/%63', '//e', '/x/../e'],
  ),
  oneServer(
    'passwords',
    `location / { auth_basic "staff only"; auth_basic_user_file FOLDER/users; proxy_pass http://UP; add_header X-User "$remote_user" always; proxy_set_header X-User $remote_user; } location /open { auth_basic off; proxy_pass http://UP; } location /ret { auth_basic r; auth_basic_user_file FOLDER/users; return 200 "return comes first"; } location /var { set $realm $arg_r; auth_basic "$realm"; auth_basic_user_file FOLDER/users; proxy_pass http://UP; } location /page { error_page 401 /login; auth_basic r; auth_basic_user_file FOLDER/users; proxy_pass http://UP; } location = /login { auth_basic off; return 200 "log in"; }`,
    [
      ...['/', '/open', '/ret', '/page', '/var?r=x', '/var?r=off'].flatMap(withLogins),
      { target: '/', headers: [right, right], over: 'HTTP/1.1' },
      { target: '/', method: 'POST', body: 'hello', headers: [right] },
    ],
  ),
  oneServer(
    'satisfying',
    `auth_basic r; auth_basic_user_file FOLDER/users; location /any-denied { satisfy any; deny all; proxy_pass http://UP; } location /any-allowed { satisfy any; allow all; proxy_pass http://UP; } location /all-denied { deny all; proxy_pass http://UP; } location /all-allowed { allow all; proxy_pass http://UP; } location /three { satisfy any; deny all; auth_request /auth/x; proxy_pass http://UP; } location /auth/ { auth_basic off; internal; proxy_pass http://UP; }`,
    [
      ...['/any-denied', '/any-allowed', '/all-denied', '/all-allowed'].flatMap((target) => [
        { target },
        { target, headers: [right] },
        { target, headers: [basic('ann', 'no')] },
      ]),
      ...[200, 401, 403, 500].flatMap((status) => [
        { target: '/three', headers: [['X-Say-auth', say({ status })[1]] as const] },
        { target: '/three', headers: [['X-Say-auth', say({ status })[1]] as const, right] },
      ]),
    ],
  ),
  oneServer(
    'questions',
    `location / { auth_request /auth; auth_request_set $who $upstream_http_x_user; auth_request_set $code $upstream_status; proxy_set_header X-Who $who; add_header X-Who $who always; add_header X-Code $code always; proxy_pass http://UP; }
     location = /auth { internal; proxy_pass http://UP/auth/check$is_args$args; proxy_pass_request_body off; proxy_set_header Content-Length ""; proxy_set_header X-Original-URI $request_uri; proxy_set_header X-Original-Method $request_method; } location /off { auth_request off; proxy_pass http://UP; } location /s401 { auth_request /r401; proxy_pass http://UP; } location = /r401 { return 401; } location /s403 { auth_request /r403; return 200 "return comes first"; } location = /r403 { return 403; } location /s204 { auth_request /r204; proxy_pass http://UP; } location = /r204 { return 204; } location /s404 { auth_request /none; proxy_pass http://UP; } location = /none { return 404; }
     location /login { error_page 401 =302 https://login.test/?to=$request_uri; auth_request /r401; proxy_pass http://UP; } location /page { error_page 401 = @login; auth_request /r401; proxy_pass http://UP; } location @login { return 302 /sign-in; } location /file { auth_request /auth; root FOLDER/www; } location /down { auth_request /rdown; proxy_pass http://UP; } location = /rdown { proxy_pass http://DOWN; }`,
    [
      ...['/', '/a%20b?c=d', '/file.txt'].flatMap((target) =>
        [200, 201, 204, 301, 302, 400, 401, 403, 404, 500, 503].map((status) => ({
          target,
          headers: [
            [
              'X-Say-auth',
              say({
                status,
                fields: [
                  ['X-User', 'ann'],
                  ['WWW-Authenticate', 'Bearer realm="a"'],
                  ['Set-Cookie', 's=1'],
                ],
              })[1],
            ] as const,
            ['Cookie', 'k=v'] as const,
          ],
        })),
      ),
      ...['/off', '/s401', '/s403', '/s204', '/s404', '/login?x=1', '/page', '/down', '/auth'],
      { target: '/', method: 'POST', body: 'hello', headers: [['Content-Type', 'text/plain']] },
      { target: '/', method: 'HEAD' },
    ],
  ),
  oneServer(
    'excepting',
    `location /a { limit_except GET { deny all; } proxy_pass http://UP; } location /b { limit_except GET POST { auth_basic r; auth_basic_user_file FOLDER/users; } proxy_pass http://UP; } location /c { limit_except POST { deny all; } return 200 c; } location /d { limit_except GET { proxy_pass http://UP; } return 200 never; } location /e { limit_except GET { allow 127.0.0.1; deny all; } proxy_pass http://UP; }`,
    ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS'].flatMap((method) =>
      each(['/a', '/b', '/c', '/d', '/e'], { method }),
    ),
  ),
  oneServer(
    'often',
    `limit_req_status 429; location /a { limit_req zone=often_a; proxy_pass http://UP; } location /b { limit_req zone=often_b burst=2 nodelay; proxy_pass http://UP; } location /c { limit_req zone=often_a; limit_req zone=often_b burst=1 nodelay; proxy_pass http://UP; } location /d { limit_req zone=often_d; return 200 "return comes first"; } location /e { limit_req zone=often_e burst=1 nodelay; error_page 429 /slow; proxy_pass http://UP; } location = /slow { return 200 "slow down"; } location /f { limit_req zone=often_f; limit_req_status 503; proxy_pass http://UP; }`,
    [
      '/a?k=1',
      '/a?k=1',
      '/a?k=2',
      '/a',
      '/a',
      '/b?k=1',
      '/b?k=1',
      '/b?k=1',
      '/b?k=1',
      '/b?k=2',
      '/c?k=3',
      '/c?k=3',
      '/c?k=1',
      '/d?k=1',
      '/d?k=1',
      '/e?k=1',
      '/e?k=1',
      '/e?k=1',
      '/e?k=1',
      '/f?k=1',
      '/f?k=1',
    ],
    ['a', 'b', 'd', 'e', 'f']
      .map(
        (name) =>
          `map $arg_k $often_${name} { "" ""; default $server_protocol$arg_k; } limit_req_zone $often_${name} zone=often_${name}:1m rate=1r/m;`,
      )
      .join('\n'),
  ),
  oneServer(
    'real-address',
    `set_real_ip_from 127.0.0.0/8; set_real_ip_from 10.0.0.0/8; real_ip_header X-Forwarded-For; location / { proxy_set_header X-Addr "$remote_addr $realip_remote_addr"; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_pass http://UP; } location /rec { real_ip_recursive on; proxy_set_header X-Addr $remote_addr; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_pass http://UP; } location /deny { real_ip_recursive on; deny 9.9.9.9; allow all; proxy_set_header X-Forwarded-For x; proxy_pass http://UP; } location /v { return 200 "$remote_addr"; }`,
    ['/', '/rec', '/deny', '/v'].flatMap((target) =>
      [
        '9.9.9.9',
        '9.9.9.9, 10.0.0.1',
        '10.0.0.2, 10.0.0.1',
        'junk',
        '9.9.9.9, junk',
        '9.9.9.9:80',
        '[2001:db8::1]:80',
        '2001:db8::1',
        '1.2.3.4,9.9.9.9',
        '',
        '999.1.1.1',
      ].map((value) => ({
        target,
        headers: [['X-Forwarded-For', value]] as const,
      })),
    ),
  ),
  oneServer(
    'real-address-untrusted',
    'set_real_ip_from 10.0.0.0/8; real_ip_header X-Real-IP; location / { proxy_set_header X-Addr "$remote_addr $realip_remote_addr"; proxy_set_header X-Real-IP $remote_addr; proxy_pass http://UP; }',
    [{ target: '/' }, { target: '/', headers: [['X-Real-IP', '9.9.9.9']] }],
  ),
  oneServer(
    'accelerated',
    `location / { proxy_pass http://UP; } location /files/ { internal; alias FOLDER/www/; add_header X-Files f; } location /inner/ { internal; proxy_pass http://UP/deep/; } location @named { return 200 "named $uri"; } location /open { return 200 "open $uri $args $request_method"; } location /ignored { proxy_ignore_headers X-Accel-Redirect; proxy_pass http://UP; }`,
    [
      ...[
        '/files/file.txt',
        '/files/none',
        '/files/sub/',
        '/files/sub/index.html',
        '/files/../open',
        '/open?x=1',
        '/open/%20y',
        '@named',
        '/inner/x',
        '/files/%66ile.txt',
        'relative',
        '',
      ].flatMap((to) => [
        {
          target: '/x',
          headers: [
            say({
              fields: [
                ['X-Accel-Redirect', to],
                ['Content-Type', 'application/x-own'],
                ['Content-Disposition', 'attachment; filename="a"'],
                ['X-Theirs', 't'],
                ['Set-Cookie', 'a=1'],
                ['Cache-Control', 'private'],
                ['ETag', '"up"'],
                ['Last-Modified', 'Mon, 01 Jan 2024 00:00:00 GMT'],
              ],
            }),
          ],
        },
      ]),
      {
        target: '/x',
        method: 'POST',
        body: 'hello',
        headers: [say({ status: 404, fields: [['X-Accel-Redirect', '/open']] })],
      },
      { target: '/x', method: 'HEAD', headers: [say({ fields: [['X-Accel-Redirect', '/files/file.txt']] })] },
      { target: '/ignored', headers: [say({ fields: [['X-Accel-Redirect', '/files/file.txt']] })] },
      '/files/file.txt',
      '/inner/x',
    ],
  ),
];
