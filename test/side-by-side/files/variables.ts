// Variables, maps and fields of replies.

import { type Case, oneServer, say } from '../case.ts';

const headers = [
  ['Cookie', 'one=1; Two=2; three=a=b'],
  ['X-Some-Field', 'some'],
  ['User-Agent', 'agent/1'],
  ['Referer', 'https://r.test/'],
  ['X-Forwarded-For', '9.9.9.9'],
] as const;

export const variables: readonly Case[] = [
  oneServer(
    'request-variables',
    `location / { return 200 "$host|$http_host|$request_uri|$uri|$document_uri|$args|$query_string|$is_args|$request_method|$scheme|$https|$server_port|$server_name"; } location /h { return 200 "$http_x_some_field|$http_user_agent|$http_referer|$http_none|$http_cookie|$cookie_one|$cookie_two|$cookie_Three|$cookie_none"; } location /a { return 200 "$arg_x|$arg_X|$arg_long_name|$arg_none|$arg_y"; } location /p { return 200 "$proxy_add_x_forwarded_for|$remote_addr|$realip_remote_addr|$remote_user"; }
     location /f { root FOLDER/www; return 200 "$document_root|$request_filename|$realpath_root"; } location /r { return 200 "$request|$server_protocol"; }`,
    [
      ...[
        '/',
        '/x%20y?z=%20&w',
        '/h',
        '/a?x=1&y=%20',
        '/a?X=2&x=3',
        '/a?xx=1&x',
        '/a?long_name=l&x=',
        '/a',
        '/p',
        '/f',
        '/f/x',
        '/r?q',
        '/?a=1&a=2',
      ].map((target) => ({ target, headers })),
      {
        target: '/h',
        headers: [
          ['Cookie', 'a=b'],
          ['Cookie', 'one=2'],
        ],
      },
      {
        target: '/h',
        headers: [
          ['X-Some-Field', '1'],
          ['X-Other', '2'],
        ],
      },
    ],
  ),
  oneServer(
    'reply-variables',
    `location / { proxy_pass http://UP; add_header X-Vars "$upstream_http_x_one|$upstream_status|$upstream_addr|$sent_http_content_type|$status|$upstream_cookie_c|$upstream_http_none" always; add_header X-Sent $sent_http_x_one; }`,
    [
      '/',
      {
        target: '/',
        headers: [
          say({
            fields: [
              ['X-One', '1'],
              ['Set-Cookie', 'c=d; Path=/'],
            ],
          }),
        ],
      },
      { target: '/', headers: [say({ status: 404, fields: [['X-One', '1']] })] },
      { target: '/', headers: [say({ fields: [['Content-Type', 'text/own']] })] },
    ],
  ),
  oneServer(
    'maps',
    'location / { return 200 "$maps_kind|$maps_number|$maps_method|$maps_pair|$maps_words|$maps_nested|$maps_volatile|$maps_empty"; }',
    [
      ...['a', 'A', 'b', 'xa', 'x-9', 'y-12-z', '', '~tilde', 'default', 'hostnames', 'long'].map((k) => ({
        target: `/?k=${k}`,
      })),
      '/',
      { target: '/?k=a', method: 'POST', body: '' },
      { target: '/?k=a', headers: [['Accept', 'text/html']] },
    ],
    `map $arg_k $maps_kind { default none; a first; b second; ~^x(.*)$ "x $1"; ~*^Y-(?<maps_digits>\\d+) "y $maps_digits"; "" empty; \\default literal; "\\~tilde" tilde; long "$uri $host"; }
map $arg_k $maps_number { a 1; ~9 9; }
map $request_method $maps_method { default other; GET get; POST post; }
map $request_method:$http_accept $maps_pair { default no; ~^GET:.*text/html html; "GET:" bare; }
map $arg_k $maps_words { a "two words"; b 'quo"ted'; default "$arg_k-$request_method"; }
map $maps_kind $maps_nested { first "nested $maps_number"; default $maps_kind; }
map $arg_k $maps_volatile { volatile; default v; a w; }
map "" $maps_empty { default d; "" e; }`,
  ),
  oneServer(
    'host-maps',
    'server_name x.host-maps.test y.host-maps.test host-maps.example; location / { return 200 "$hm_name $hm_plain"; } location /up { proxy_pass http://$hm_up; }',
    [
      'host-maps.test',
      'x.host-maps.test',
      'y.host-maps.test',
      'host-maps.example',
      'X.HOST-MAPS.test',
    ].flatMap((host) => [
      { target: '/', host },
      { target: '/up', host },
    ]),
    `map $host $hm_name { hostnames; default other; host-maps.test exact; *.host-maps.test wild; host-maps.* ending; x.host-maps.test x; }
map $host $hm_plain { default other; host-maps.test exact; .host-maps.test dot; *.host-maps.test star; }
map $host $hm_up { default UP; y.host-maps.test DOWN; }`,
  ),
  oneServer(
    'added-headers',
    `add_header X-Server s; location / { return 200 x; } location /own { add_header X-Own o; return 200 x; } location /none { add_header X-Empty ""; return 200 x; } location /vars { add_header X-Vars "$uri|$arg_a|$http_x" always; return 200 x; } location /twice { add_header X-A 1; add_header X-A 2; add_header x-a 3; return 200 x; } location /404 { add_header X-A 1; add_header X-B 2 always; return 404; } location /301 { add_header X-A 1; return 301 /x; } location /up { add_header X-A added; add_header Content-Type text/own; add_header Set-Cookie c=1; proxy_pass http://UP; }
     location /in { add_header X-Outer o; location /in/ner { return 200 x; } location /in/own { add_header X-I i; return 200 x; } } location /hsts { add_header Strict-Transport-Security "max-age=1; includeSubDomains" always; proxy_pass http://UP; } location /cc { add_header Cache-Control no-store; proxy_pass http://UP; } location /loc { add_header Location /other; return 200 x; } location /etag { add_header ETag '"x"'; add_header Last-Modified ""; root FOLDER/www; try_files /file.txt =404; }`,
    [
      ...[
        '/',
        '/own',
        '/none',
        '/vars',
        '/vars/%20?a=%20b',
        '/twice',
        '/404',
        '/301',
        '/in',
        '/in/ner',
        '/in/own',
        '/loc',
        '/etag',
      ].map((target) => ({ target, headers: [['X', 'x y']] as const })),
      ...['/up', '/hsts', '/cc'].flatMap((target) =>
        [200, 204, 302, 304, 400, 404, 500].map((status) => ({
          target,
          headers: [
            say({
              status,
              fields: [
                ['X-A', 'theirs'],
                ['Cache-Control', 'public'],
                ['Strict-Transport-Security', 'max-age=0'],
                ['Set-Cookie', 't=1'],
              ],
            }),
          ],
        })),
      ),
    ],
  ),
];
