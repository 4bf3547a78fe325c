// Which location a path belongs to.

import { type Case, oneServer, spellings } from '../case.ts';

const says = (text: string) => `{ return 200 "${text} $uri"; }`;

export const locations: readonly Case[] = [
  oneServer(
    'precedence',
    `location = / ${says('root')} location / ${says('any')} location /a ${says('a')} location ^~ /a/ ${says('final')}
     location ~ /b$ ${says('b')} location ~* ^/AB ${says('ab')} location = /a/b ${says('exact')} location /A ${says('big A')}`,
    spellings,
  ),
  oneServer(
    'no-root',
    `location /a/ ${says('a')} location = /b ${says('b')} location ~ \\.txt$ ${says('txt')}`,
    [...spellings, '/b', '/b/', '/x.txt', '/a/x.txt', '/X.TXT'],
  ),
  oneServer(
    'regex-order',
    `location ~ ^/a/(?<rest>.*)$ { return 200 "one $rest $1"; } location ~ ^/a/(.*)$ { return 200 "two $1"; } location ~* \\.(PNG|jpg)$ { return 200 "img $1"; } location / ${says('any')}`,
    [...spellings, '/x.png', '/x.JPG', '/a/x.png', '/x.png/y'],
  ),
  oneServer(
    'nested',
    `location / ${says('any')}
     location /a { location ~ b { return 200 "inner $uri"; } location /a/ { location = /a/c { return 200 deep; } return 200 "slash $uri"; } location = /ab { return 200 exact; } return 200 "a $uri"; }
     location ~ ^/a ${says('outer')} location ^~ /c { location ~ d { return 200 "cd"; } return 200 c; } location ~ ^/c { return 200 "never"; }`,
    [...spellings, '/a/c', '/c', '/cd', '/c/d', '/cx'],
  ),
  oneServer(
    'nested-in-regex',
    `location ~ ^/a { location ~ b$ { return 200 "b $uri"; } location ~ /c { return 200 "c"; } return 200 "a $uri"; } location /a/b { return 200 "prefix"; } location / ${says('any')}`,
    [...spellings, '/a/c', '/ac'],
  ),
  oneServer(
    'decoded-prefixes',
    `location "/a b" ${says('space')} location "/a%20b" ${says('percent')} location /\u00e4 ${says('umlaut')} location /q? ${says('question')} location / ${says('any')}`,
    ['/a%20b', '/a%20b/c', '/a%2520b', '/a%2520b/x', '/%E4', '/%C3%A4', '/q%3F', '/q?', '/a+b', '/q%3Fx?y'],
  ),
  oneServer(
    'internal',
    `location /i { internal; return 200 "inside $uri"; } location /to { rewrite ^/to(.*)$ /i$1 last; } location /page { error_page 404 /i/page; return 404; }
     location /try { try_files /none /i/tried; } location /n { internal; location /n/a { return 200 inner; } location ~ b$ { return 200 inner; } location = /n/c { root FOLDER/www; } } location ~ ^/re-i { internal; return 200 re; } location / { return 200 any; } location /i/open { return 200 open; }`,
    [
      '/i',
      '/i/a',
      '/to',
      '/to/a?b',
      '/page',
      '/try',
      '/re-i',
      '/',
      '/i/open',
      '/i/open/x',
      '/%69',
      '/x/../i',
      '//i',
      '/i%2Fa',
      '/n',
      '/n/a',
      '/n/b',
      '/n/c',
    ],
  ),
  oneServer(
    'named',
    `location / { try_files /none @n; } location @n { return 200 "named $uri $args $request_method"; } location /e { error_page 404 = @n; return 404; } location /p { error_page 405 @p; return 405; } location @p { proxy_pass http://UP; }`,
    [
      ...['/', '/a%20b?c', '/e', '/e/x?y=1', '/p', '/p?q=%20', '/@n', '/%40n'],
      { target: '/p', method: 'POST', body: 'hello' },
      { target: '/e', method: 'POST', body: 'hello' },
      { target: '/p/%2F//x?a', method: 'PUT', body: '' },
    ],
  ),
  oneServer(
    'slashes',
    `location /p/ { proxy_pass http://UP; } location /q/ { proxy_pass http://UP/x/; } location = /r/ { proxy_pass http://UP; } location /s/ { return 200 s; } location = /t { return 200 t; } location /t/ { proxy_pass http://UP; }
     location ^~ /u/ { proxy_pass http://UP; } location "/v w/" { proxy_pass http://UP; } location /n/ { location /n/m/ { proxy_pass http://UP; } return 200 n; }`,
    [
      ...[
        '/p',
        '/p?x=%20',
        '/p/',
        '/P',
        '/q',
        '/q/',
        '/q/a',
        '/r',
        '/r/',
        '/s',
        '/t',
        '/t/',
        '/u',
        '/u?',
        '/v%20w',
        '/v%20w/',
        '/n',
        '/n/m',
        '/n/m/',
        '/%70',
        '//p',
      ],
      { target: '/p', method: 'POST', body: 'x' },
      { target: '/q', method: 'HEAD' },
    ],
  ),
  oneServer(
    'glued',
    `location =/a ${says('exact')} location ~^/b ${says('re')} location ^~/c ${says('final')} location ~*^/D ${says('ci')} location /c/d ${says('longer')}`,
    ['/a', '/a/', '/b', '/bx', '/c', '/c/x', '/c/d', '/d', '/D', '/e'],
  ),
  oneServer(
    'quoted',
    `location ~ "^/a{2,3}$" ${says('braces')} location ~ "^/(b|c)\\.d$" ${says('dot')} location "/e;f" ${says('semicolon')} location ~ '^/g"h' ${says('quote')} location ~ ^/x\\.y\\d+$ ${says('escaped')} location ~ ^/[^/]+/z$ ${says('class')} location / ${says('any')}`,
    [
      '/aa',
      '/aaa',
      '/a',
      '/aaaa',
      '/b.d',
      '/bxd',
      '/e;f',
      '/e%3Bf',
      '/g%22h',
      '/x.y12',
      '/xzy1',
      '/q/z',
      '/q/r/z',
    ],
  ),
  oneServer(
    'slashes-and-nests',
    'location / { location /b { return 200 nested; } location ~ c$ { return 200 pattern; } return 200 any; } location /b/ { proxy_pass http://UP; } location /c/ { proxy_pass http://UP; } location /f/ { proxy_pass http://UP; } location = /f/ { add_header X-Exact e; return 200 exact; } location /d { location ~ d { return 200 inner; } return 200 d; } location /d/ { proxy_pass http://UP; } location ~ ^/e$ { return 200 e; } location /e/ { proxy_pass http://UP; }',
    ['/b', '/bx', '/b/', '/c', '/c/', '/d', '/d/', '/dx', '/e', '/e/', '/b?x', '/f', '/f/', '/f/g'],
  ),
];
