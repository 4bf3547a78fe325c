// set, if, rewrite, return and break.

import { type Case, each, oneServer, spellings } from '../case.ts';

const texts = [
  '/r/x',
  '/r/x?y=1',
  '/r/a%20b%26c%25?y',
  '/r/a+b',
  '/r/%E4%20',
  '/r/x%3Fy',
  '/r/x%0Ay',
  '/r/',
  '/r/a%2Fb',
  '/r/%23',
  '/r/a%3Db%26?z=%20',
];
/** With a space at its end, raw in nginx's reply. */
const under = (path: string) =>
  texts.map((text) => {
    const target = text.replace('/r/', path);
    return text.endsWith('%20') ? ({ target, over: 'HTTP/1.1' } as const) : { target };
  });

export const rewriting: readonly Case[] = [
  oneServer(
    'rewrite-flags',
    `location /a/ { rewrite ^/a/(.*)$ /to/$1 last; return 200 "a $uri"; } location /b/ { rewrite ^/b/(.*)$ /to/$1 break; return 200 "never"; } location /c/ { rewrite ^/c/(.*)$ /to/$1; rewrite ^/to/(.*)$ /z/$1; }
     location /d/ { rewrite ^/d/(.*)$ /to/$1 redirect; } location /e/ { rewrite ^/e/(.*)$ /to/$1 permanent; } location /f/ { rewrite ^/f/(.*)$ https://b.test/$1; } location /g/ { rewrite ^/g/(.*)$ $scheme://b.test/$1 last; }
     location /to/ { return 200 "to $uri $args"; } location /z/ { return 200 "z $uri $args"; } location /loop { rewrite ^ /loop last; } location /never { rewrite ^/nope /x last; return 200 "still $uri"; }`,
    ['/a/', '/b/', '/c/', '/d/', '/e/', '/f/', '/g/', '/loop', '/never'].flatMap(under),
  ),
  oneServer(
    'rewrite-queries',
    `location /a/ { rewrite ^/a/(.*)$ /to?new=$1 last; } location /b/ { rewrite ^/b/(.*)$ /to?new=$1? last; } location /c/ { rewrite ^/c/(.*)$ /to/$1? last; } location /d/ { rewrite ^/d/(.*)$ /to?x=$1&u=$uri redirect; } location /e/ { rewrite ^/e/(.*)$ /to?x=$1? permanent; } location /f/ { rewrite ^/f/(.*)$ /to?$args&f=$1? last; } location /g/ { rewrite ^ /to?u=$request_uri last; } location /h/ { rewrite ^ "/to /x" redirect; }
     location /to { return 200 "to $uri [$args] $is_args $arg_new"; }`,
    ['/a/', '/b/', '/c/', '/d/', '/e/', '/f/', '/g/', '/h/'].flatMap(under),
  ),
  oneServer(
    'captures',
    `location ~ ^/a/(.*)/(.*)$ { return 200 "$1 $2 [$3]"; } location ~ ^/b/(?<name>[^/]+)(/.*)?$ { set $copy $name; return 200 "$name $2 $copy"; } location /c/ { if ($uri ~ ^/c/(.)(.*)$) { set $first $1; } rewrite ^/c/(.*)$ /d/$1; return 200 "$first"; } location /d/ { return 200 "d $1 $first $uri"; }
     location ~ ^/e/(x)?(.*)$ { set $a "[$1]"; if ($arg_q ~ (..)) { set $a "$a $1"; } return 200 "$a $2"; } location ~* ^/F/(.*)$ { return 302 /g/$1; }`,
    [
      ...[
        '/a/x/y',
        '/a/x/y/z',
        '/a/%20/%2F',
        '/b/n',
        '/b/n/rest',
        '/b/%E4/x',
        '/c/abc',
        '/c/',
        '/c/%20x',
        '/d/q',
        '/e/xyz',
        '/e/yz',
        '/e/yz?q=12',
        '/e/xz?q=1',
        '/f/a%20b?c',
        '/F/x',
      ],
    ],
  ),
  oneServer(
    'ifs',
    `set $kind none; if ($http_x ~* "^(y)es$") { set $kind "yes $1"; } if ($arg_q = "1") { set $kind one; } if ($arg_q != "") { set $given given; } if ($request_method = DELETE) { return 405; } if ($http_user_agent ~ (bot|spider)) { return 403; }
     location / { return 200 "$kind [$given]"; } location /z { set $v 00; if ($v) { return 200 true; } return 200 false; } location /0 { set $v 0; if ($v) { return 200 true; } return 200 false; } location /e { set $v ""; if ($v) { return 200 true; } return 200 false; } location /ne { if ($arg_n !~ ^[a-c]+$) { return 200 "no"; } return 200 "yes"; }
     location /nci { if ($arg_n !~* ^[a-c]+$) { return 200 "no"; } return 200 "yes"; } location /host { if ($host = ifs.test) { return 200 host; } return 200 other; } location /space { if ( $arg_a = "b c" ) { return 200 b; } if ($args ~ "b%20c") { return 200 escaped; } return 200 n; }`,
    [
      ...[
        '/',
        '/?q=1',
        '/?Q=1',
        '/?q=',
        '/?q=2',
        '/?xq=1',
        '/z',
        '/0',
        '/e',
        '/ne',
        '/ne?n=abc',
        '/ne?n=ABC',
        '/nci?n=ABC',
        '/nci?n=x',
        '/host',
        '/space',
        '/space?a=b%20c',
      ],
      { target: '/', headers: [['X', 'YES']] },
      { target: '/', headers: [['X', 'yes!']] },
      { target: '/', method: 'DELETE' },
      { target: '/z', headers: [['User-Agent', 'a spider']] },
      { target: '/host', host: 'IFS.test' },
    ],
  ),
  oneServer(
    'ifs-as-locations',
    `location /cors { if ($request_method = OPTIONS) { add_header Access-Control-Allow-Origin *; add_header Access-Control-Max-Age 60; return 204; } add_header Access-Control-Allow-Origin $http_origin always; proxy_pass http://UP; }
     location /two { add_header X-Out out; if ($arg_a) { add_header X-A a; } if ($arg_b) { add_header X-B b; } return 200 two; } location /up { if ($arg_a) { proxy_pass http://UP; } return 200 here; } location /files { root FOLDER/www; if ($arg_a) { root FOLDER/www/other; } } location /exp { expires 1h; if ($arg_no) { expires -1; } return 200 x; }
     location /page { error_page 404 /page404; if ($arg_a) { error_page 404 /other404; } return 404; } location /page404 { return 200 first; } location /other404 { return 200 second; } location /break { if ($arg_a) { set $x 1; break; } set $x 2; return 200 "x $x"; } location /rew { if ($arg_a) { rewrite ^ /two?moved last; } return 200 "not moved"; }
     location /evil { if ($arg_a) { proxy_pass http://UP; } if ($arg_b) { } root FOLDER/www; } location /nest { set $n 1; if ($arg_a) { set $n 2; rewrite ^/nest/(.*)$ /got/$1 break; } proxy_pass http://UP; } location /last { if ($arg_a) { add_header X-A a; } if ($arg_b) { } proxy_pass http://UP; }`,
    [
      ...each(['/cors', '/cors?x'], { headers: [['Origin', 'https://o.test']] }),
      ...each(['/cors'], { method: 'OPTIONS' }),
      ...[
        '/two',
        '/two?a=1',
        '/two?b=1',
        '/two?a=1&b=1',
        '/up',
        '/up?a=1',
        '/files/x.txt',
        '/files/x.txt?a=1',
        '/exp',
        '/exp?no=1',
        '/page',
        '/page?a=1',
        '/break',
        '/break?a=1',
        '/rew',
        '/rew?a=1',
        '/nest/x',
        '/nest/x?a=1',
        '/evil?a=1',
        '/evil?a=1&b=1',
        '/evil?b=1',
        '/last?a=1',
        '/last?a=1&b=1',
        '/last?b=1',
      ],
    ],
  ),
  oneServer(
    'ifs-of-files',
    `root FOLDER/www; location / { if (-f $request_filename) { return 200 "file $uri"; } if (-d $request_filename) { return 200 "folder $uri"; } if (!-e $request_filename) { return 200 "nothing $uri"; } return 200 "odd"; } location /x { if (-x FOLDER/www/file.txt) { return 200 x; } return 200 "not x"; } location /m { if (!-f $document_root/maintenance.html) { return 200 "no maintenance"; } return 503; }
     location /spa { if (!-e $request_filename) { rewrite ^(.*)$ /index.html last; } } location = /index.html { }`,
    [
      '/',
      '/file.txt',
      '/sub',
      '/sub/',
      '/none',
      '/x',
      '/m',
      '/spa',
      '/spa/deep?x',
      '/index.html',
      '/sub/../file.txt',
      '/file%2Etxt',
      '/file.txt/',
    ],
  ),
  oneServer(
    'returns',
    `location /200 { return 200; } location /200t { return 200 "text"; } location /201 { return 201 created; } location /204 { return 204; } location /301 { return 301 /x?$args; } location /302 { return 302 https://b.test$uri; } location /303 { return 303 $request_uri; } location /307 { return 307 http://c.test; } location /308 { return 308 "/a b"; } location /url { return https://d.test$uri$is_args$args; } location /scheme { return $scheme://e.test/; }
     location /400 { return 400; } location /403 { return 403 "no"; } location /404 { return 404; } location /405 { return 405; } location /418 { return 418; } location /418t { return 418 teapot; } location /429 { return 429 slow; } location /499 { return 499; } location /444 { return 444; } location /500 { return 500; } location /503 { return 503 "down"; } location /301n { return 301; } location /empty { return 200 ""; } location /304 { return 304; }
     location /js.js { return 200 "x"; } location /a.json { return 200 "{}"; } location /a.html { return 200 "<p>"; } location /a.unknown { return 200 u; } location /typed { default_type text/plain; return 200 t; } location /ctype { add_header Content-Type text/css; return 200 c; } location /charset { charset utf-8; default_type text/html; return 200 h; }`,
    [
      ...[
        '200',
        '200t',
        '201',
        '204',
        '301',
        '302',
        '303',
        '307',
        '308',
        'url',
        'scheme',
        '400',
        '403',
        '404',
        '405',
        '418',
        '418t',
        '429',
        '499',
        '444',
        '500',
        '503',
        '301n',
        'empty',
        '304',
        'js.js',
        'a.json',
        'a.html',
        'a.unknown',
        'typed',
        'ctype',
        'charset',
      ].flatMap((name) => [
        { target: `/${name}` },
        { target: `/${name}/a%20b?c=d`, method: 'POST', body: 'x' },
        { target: `/${name}`, method: 'HEAD' },
      ]),
    ],
  ),
  oneServer(
    'sets',
    `set $a "1"; set $b "$a$a"; set $c $b-$a; set $d "\${a}x"; set $args "$args&added"; location / { return 200 "$a $b $c $d"; } location /args { return 200 "$args $query_string $arg_added"; } location /over { set $a 2; return 200 "$a $b"; } location /none { return 200 "[$later]"; } location /later { set $later l; rewrite ^ /none last; } location /upargs { proxy_pass http://UP; } location /upargs2 { set $args x=1; proxy_pass http://UP/p; } location /upargs3 { set $args ""; proxy_pass http://UP; }`,
    [
      '/',
      '/args',
      '/args?x=1',
      '/over',
      '/none',
      '/later',
      '/upargs?x=2',
      '/upargs2?y',
      '/upargs3?z',
      ...spellings.slice(0, 12),
    ],
  ),
  oneServer(
    'escapes',
    `location /q { return 200 "a\\"b\\\\c\\td"; } location /s { return 200 'it\\'s "x"'; } location /n { return 200 "a\\nb"; } location /h { return 200 a#b; } location /sp { return 200 a\\ b; } location /lines { return 200 "one
two"; } location ~ ^/re\\.(x|y)$ { return 200 $1; } location /semi { return 200 "a;b{c}"; }`,
    ['/q', '/s', '/n', '/h', '/sp', '/lines', '/re.x', '/re.y', '/rex', '/semi'],
  ),
  oneServer(
    'break-after-rewrite',
    'rewrite ^/a/(.*)$ /b/$1; if ($arg_s) { break; } location /b/ { proxy_pass http://UP/x/; } location /c/ { rewrite ^/c/(.*)$ /b/$1; if ($arg_l) { break; } proxy_pass http://UP/y/; } location /d/ { break; proxy_pass http://UP/z/; }',
    ['/a/x', '/a/x?s=1', '/b/x', '/b/x?s=1', '/c/x', '/c/x?l=1', '/c/x?l=1&s=1', '/d/x', '/a/x%20y?s=1'],
  ),
];
