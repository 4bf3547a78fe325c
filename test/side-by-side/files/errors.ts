// error_page and what it leads to.

import { type Case, oneServer, say } from '../case.ts';

const statuses = [400, 401, 402, 403, 404, 405, 408, 409, 410, 413, 418, 429, 500, 502, 503, 504];

export const errors: readonly Case[] = [
  oneServer(
    'error-pages',
    `error_page 404 /missing; error_page 403 =200 /found?a=1; error_page 410 @gone; error_page 402 =301 https://b.test/pay; error_page 409 = /teapot; error_page 418 =400 @gone; error_page 500 502 503 504 /50x.html; error_page 401 https://login.test/; error_page 429 =307 /x;
     ${statuses.map((status) => `location /${status} { return ${status}; } location /t${status} { return ${status} "text ${status}"; }`).join(' ')}
     location /missing { internal; return 200 "missing $uri $request_uri $status"; } location /found { return 200 "found $args"; } location /teapot { return 202 tea; } location @gone { return 200 "gone $uri $request_method"; } location = /50x.html { root FOLDER/www; internal; } location /x { return 200 "x $request_method"; } location /deny { deny all; } location /up { proxy_pass http://UP; } location /icept { proxy_intercept_errors on; proxy_pass http://UP; }`,
    [
      ...statuses.flatMap((status) => [
        `/${status}`,
        `/t${status}?q`,
        { target: `/${status}`, method: 'POST', body: 'x' },
        { target: `/${status}`, method: 'HEAD' },
        { target: '/up', headers: [say({ status, body: 'theirs' })] },
        {
          target: '/icept',
          headers: [
            say({
              status,
              body: 'theirs',
              fields: [
                ['WWW-Authenticate', 'Basic realm="up"'],
                ['X-Theirs', '1'],
              ],
            }),
          ],
        },
      ]),
      '/deny',
      '/nothing',
      '/50x.html',
      '/missing',
    ],
  ),
  oneServer(
    'error-inheritance',
    `error_page 404 /a; location / { return 404; } location /own { error_page 403 /b; return 404; } location /same { error_page 404 /b; return 404; } location /both { error_page 404 /a; error_page 404 /b; return 404; } location = /a { return 200 a; } location = /b { return 200 b; }
     location /loop { error_page 404 /loop2; return 404; } location /loop2 { return 404; } location /rec { recursive_error_pages on; error_page 404 /rec2; return 404; } location /rec2 { recursive_error_pages on; error_page 500 /b; return 500; } location /rec3 { recursive_error_pages on; error_page 404 /rec3; return 404; } location /vars { error_page 404 /v-$arg_x; return 404; } location /v- { return 200 "$uri"; } location /url { error_page 404 =302 https://c.test$request_uri; return 404; }`,
    ['/', '/own', '/same', '/both', '/loop', '/rec', '/rec3', '/vars', '/vars?x=1', '/url?q=%20', '/a'],
  ),
  oneServer(
    'error-headers',
    `add_header X-Always a always; add_header X-Ok o; error_page 404 /page; error_page 403 @named; location / { return 404; } location /403 { add_header X-Loc l always; return 403; } location /page { add_header X-Page p; return 200 page; } location @named { add_header X-Named n always; return 200 named; } location /plain { return 500; } location /up { proxy_pass http://UP; proxy_intercept_errors on; } location /raw { proxy_pass http://UP; } location /gone { return 410 text; }`,
    [
      ...['/', '/403', '/plain', '/gone'],
      ...['/up', '/raw'].flatMap((target) =>
        [200, 204, 301, 400, 404, 403, 500].map((status) => ({
          target,
          headers: [
            say({
              status,
              fields: [
                ['X-Theirs', 't'],
                ['Content-Type', 'text/x'],
              ],
            }),
          ],
        })),
      ),
    ],
  ),
  oneServer(
    'error-proxied',
    `proxy_intercept_errors on; error_page 404 = @fallback; error_page 500 /static500.txt; error_page 503 = /other; location / { proxy_pass http://UP; } location @fallback { proxy_pass http://UP; proxy_set_header X-Fallback 1; } location /static500.txt { root FOLDER/www; } location /other { proxy_pass http://UP/other-app; }`,
    [404, 500, 503, 502, 301].flatMap((status) => [
      { target: '/first/x?y=1', headers: [['X-Say-first', say({ status })[1]] as const] },
      {
        target: '/first/x%2Fy',
        method: 'POST',
        body: 'hello',
        headers: [['X-Say-first', say({ status })[1]] as const],
      },
      { target: '/first/x', method: 'HEAD', headers: [['X-Say-first', say({ status })[1]] as const] },
    ]),
  ),
  oneServer(
    'error-down',
    'error_page 502 504 /sorry.html; error_page 500 =503 /sorry.html; location / { proxy_pass http://DOWN; } location /five { return 500; } location = /sorry.html { root FOLDER/www; } location /json { error_page 502 @json; proxy_pass http://DOWN; } location @json { default_type application/json; return 503 "{\\"down\\":true}"; } location /bare { error_page 502 =200 /bare2; proxy_pass http://DOWN; } location = /bare2 { return 204; }',
    [
      '/',
      '/a?b',
      '/five',
      '/json',
      '/bare',
      { target: '/', method: 'POST', body: 'x' },
      { target: '/', method: 'HEAD' },
    ],
  ),
  oneServer(
    'error-whole',
    'error_page 404 /404.html; location / { root FOLDER/www; } location = /404.html { root FOLDER/www; internal; } location /d/ { root FOLDER/www; error_page 403 = /empty; } location = /empty { return 200 "no list"; }',
    [
      '/none',
      '/none/x.css',
      '/404.html',
      '/file.txt',
      '/d/',
      { target: '/none', method: 'POST', body: 'x' },
      { target: '/none', headers: [['Range', 'bytes=0-3']] },
      { target: '/none', headers: [['If-Modified-Since', 'Mon, 01 Jan 2035 00:00:00 GMT']] },
    ],
  ),
  oneServer(
    'error-bad-requests',
    'error_page 400 /bad; add_header X-Uri "[$uri] $args" always; location = /bad { return 200 "bad $uri"; } location / { return 200 fine; }',
    ['/%', '/a%zz', '/..', '/a/../../b', '/a%00?x=1', '/fine', '/%2e%2e/x'],
  ),
];
