// Whether a file is taken: the reader's word beside that of Debian's nginx.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { describeMistake } from '../../../../src/config/mistake.ts';
import { createNginxJudge, type NginxJudge, read } from './reader.ts';

const inServer = (text: string) => `server { listen 8080; ${text} }`;
const inLocation = (text: string) => inServer(`location / { ${text} }`);
const UP = 'http://127.0.0.1:9';

const takenByBoth: readonly string[] = [
  '',
  '# nothing',
  inServer(''),
  inServer('server_name a.test *.b.test .c.test d.* _ "";'),
  inServer('server_name ~^(?<name>.+)\\.a\\.test$; location / { return 200 $name; }'),
  'server { server_name a.test; return 301 https://$host$request_uri; }',
  'server { listen 80 default_server; listen [::]:80 default_server; return 444; }',
  inServer(
    `location = /a { proxy_pass ${UP}/b; } location /a { proxy_pass ${UP}/; } location ^~ /c { return 204; }`,
  ),
  inServer(`location ~ \\.js$ { proxy_pass ${UP}; } location ~* "^/a{2}" { return 200 a; }`),
  inServer(`location @a { proxy_pass ${UP}; } location / { try_files $uri $uri/ @a; }`),
  inServer(
    'location /a { location /a/b { return 200; } location ~ c { return 201; } location = /a/d { return 202; } }',
  ),
  inServer(
    'location =/a { return 200; } location ~^/b { return 200; } location ^~/c { return 200; } location ~*D { return 200; }',
  ),
  inLocation(
    `proxy_pass ${UP}; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;`,
  ),
  inLocation(`proxy_pass ${UP}/a?b=c;`),
  inLocation('set $up 127.0.0.1:9; proxy_pass http://$up;'),
  inLocation('set $up http://127.0.0.1:9; proxy_pass $up$request_uri;'),
  inLocation(
    `proxy_pass ${UP}; proxy_redirect default; proxy_redirect http://a/ /b/; proxy_redirect ~^http://(.*)$ https://$1;`,
  ),
  inLocation(
    `proxy_pass ${UP}; proxy_redirect off; proxy_cookie_path / "/; Secure"; proxy_cookie_domain a.test b.test;`,
  ),
  inLocation(
    `proxy_pass ${UP}; proxy_cookie_flags ~ secure httponly samesite=lax; proxy_cookie_flags one nosecure;`,
  ),
  inLocation(
    `proxy_pass ${UP}; proxy_read_timeout 1h30m; proxy_connect_timeout 5; proxy_send_timeout 500ms;`,
  ),
  inLocation(
    `proxy_pass ${UP}; proxy_next_upstream error timeout http_502 non_idempotent; proxy_next_upstream_tries 3; proxy_next_upstream_timeout 10s;`,
  ),
  inLocation(
    `proxy_pass ${UP}; proxy_buffering off; proxy_buffers 8 4k; proxy_http_version 1.1; proxy_cache off;`,
  ),
  inLocation(
    `proxy_pass ${UP}; proxy_hide_header X-A; proxy_pass_header Server; proxy_intercept_errors on; error_page 404 = /x;`,
  ),
  inLocation(
    `proxy_pass ${UP}; proxy_method POST; proxy_pass_request_body off; proxy_set_header Content-Length "";`,
  ),
  inLocation(
    `proxy_pass https://127.0.0.1:9; proxy_ssl_server_name on; proxy_ssl_name a.test; proxy_ssl_verify off;`,
  ),
  inLocation('grpc_pass grpc://127.0.0.1:9; grpc_set_header A b; grpc_read_timeout 1h;'),
  inLocation('grpc_pass 127.0.0.1:9;'),
  'upstream a { server 127.0.0.1:1 weight=3 max_fails=2 fail_timeout=5s; server 127.0.0.1:2 backup; server 127.0.0.1:3 down; keepalive 8; } ' +
    inLocation('proxy_pass http://a/b/;'),
  'upstream a { least_conn; server 127.0.0.1; } upstream b { ip_hash; server 127.0.0.1:1; } upstream c { hash $request_uri consistent; server 127.0.0.1:1; } upstream d { random two least_conn; server 127.0.0.1:1; zone d 64k; }',
  'map $http_upgrade $connection_upgrade { default upgrade; "" close; } ' +
    inLocation(`proxy_pass ${UP}; proxy_set_header Connection $connection_upgrade;`),
  'map $host $b { hostnames; default x; *.a.test y; .b.test z; c.* w; ~^d(?<n>.)$ $n; ~*E v; \\default u; } ' +
    inLocation('return 200 $b;'),
  'map $request_method:$http_accept $c { volatile; "~GET:.*html" 1; default 0; } ' +
    inLocation('if ($c) { return 204; } return 200 "";'),
  inLocation(
    'if ($request_method = OPTIONS) { add_header A b; return 204; } if ($host != a.test) { return 403; }',
  ),
  inLocation(
    'if ($uri ~ ^/(.*)/$) { rewrite ^ /$1 permanent; } if ($uri !~* x) { set $a 1; } if (-f $request_filename) { break; } if (!-d /tmp) { return 404; }',
  ),
  inLocation(`if ($arg_a) { proxy_pass ${UP}; } if ( $cookie_b = "" ) { return 401; }`),
  inServer(
    'if ($host = a.test) { return 301 https://b.test$request_uri; } rewrite ^/a/(.*)$ /b/$1 last; set $x "a b";',
  ),
  inServer('rewrite ^ $request_uri; rewrite ^/p(/.*) $1 break; return 404;'),
  inLocation('rewrite ^/a /b?; rewrite ^/c http://a.test/d redirect; rewrite "^/e{2}" /f permanent;'),
  inLocation(
    'return 200 "a\\"b;{}"; default_type application/json; add_header A "b;c" always; add_header D $uri;',
  ),
  inLocation("return 200 'it is $uri'; # not } this\n"),
  inLocation('return https://a.test/; expires 30d;'),
  inLocation(
    'return 301 /a; expires -1; absolute_redirect off; port_in_redirect off; server_name_in_redirect on;',
  ),
  inLocation(
    'root /tmp; index a.html /b.html; autoindex on; expires modified +1h; etag off; charset utf-8; default_type text/plain;',
  ),
  inServer(
    'location /a/ { alias /tmp/; } location ~ ^/b/(.*)$ { alias /tmp/$1; } root /tmp; try_files $uri =404;',
  ),
  inServer(
    'types { text/html html htm; application/x-a a; } error_page 404 403 /404.html; error_page 500 =200 @b; error_page 401 =302 https://a.test/; location @b { return 200; } location = /404.html { internal; root /tmp; }',
  ),
  inLocation('allow 192.0.2.0/24; allow 2001:db8::/32; deny all; satisfy any; client_max_body_size 10m;'),
  inLocation('limit_except GET POST { deny all; } root /tmp;'),
  inLocation(
    'auth_request /auth; auth_request_set $user $upstream_http_x_user; proxy_set_header X-User $user; proxy_pass http://127.0.0.1:9;',
  ),
  'limit_req_zone $binary_remote_addr zone=a:10m rate=5r/s; limit_req_zone $http_x zone=b:1m rate=30r/m; limit_conn_zone $server_name zone=c:32k; limit_req_status 429; ' +
    inLocation(
      'limit_req zone=a burst=10 nodelay; limit_req zone=b burst=5 delay=2; limit_conn c 10; limit_conn_status 429;',
    ),
  inServer(
    'set_real_ip_from 10.0.0.0/8; set_real_ip_from 2001:db8::1; real_ip_header X-Forwarded-For; real_ip_recursive on;',
  ),
  'gzip on; gzip_types text/css application/json; gzip_min_length 1k; gzip_comp_level 5; gzip_vary on; gzip_proxied any;',
  'log_format j escape=json \'{"a":"$remote_addr","t":$request_time}\'; access_log /dev/null j if=$http_x; error_log /dev/null warn;',
  inServer(
    'access_log off; server_tokens off; keepalive_timeout 1h 60; client_body_timeout 10s; large_client_header_buffers 4 16k; tcp_nodelay on; sendfile off;',
  ),
  inServer(
    'merge_slashes off; underscores_in_headers on; ignore_invalid_headers off; resolver 127.0.0.11 valid=10s; resolver_timeout 5s; chunked_transfer_encoding on;',
  ),
  inServer('location "/a b" { return 200; } location /c\\ d { return 200; } location /e#f { return 200; }'),
  inLocation(`return 200 $\{host}x$is_args$args;`),
  inLocation('return\n  200\r\n  "two\n lines";'),
  inServer('location / { return 200 a"b"c; }'),
  inLocation(
    'proxy_cache_bypass $http_upgrade; proxy_no_cache $http_upgrade; proxy_ignore_client_abort on; proxy_socket_keepalive on; proxy_pass http://127.0.0.1:9;',
  ),
  'proxy_cache_path /tmp/nginx-judge-cache keys_zone=z:1m; ' +
    inLocation(
      'proxy_cache z; proxy_cache_valid 200 1m; proxy_cache_use_stale error; proxy_pass http://127.0.0.1:9;',
    ),
  `server_names_hash_bucket_size 128; map_hash_bucket_size 128; types_hash_max_size 4096; ${inServer('')}`,
];

const refusedByBoth: readonly string[] = [
  'server { listen 8080',
  'server { listen 8080; } }',
  inServer('location / { return 200 "open; }'),
  inServer('location / { return 200 "a"b; }'),
  'server { ; }',
  '{ }',
  inLocation('proxy_pass http://127.0.0.1:9\n proxy_buffering off;'),
  inLocation('proxy_pas http://127.0.0.1:9;'),
  'http { server { } }',
  'events { }',
  'worker_processes 2;',
  'proxy_pass http://127.0.0.1:9;',
  'location / { }',
  inServer(`proxy_pass ${UP};`),
  inServer('location /a { } location /a { }'),
  inServer('location /a { } location ^~ /a { }'),
  inServer('location /a { location /b { } }'),
  inServer('location = /a { location /a/b { } }'),
  inServer('location /a { location @b { return 200; } }'),
  inServer('location ? /a { }'),
  inServer('location { }'),
  inLocation(`proxy_pass ${UP}; proxy_pass ${UP};`),
  inServer(`location ~ a { proxy_pass ${UP}/b; }`),
  inServer(`location @a { proxy_pass ${UP}/; }`),
  inLocation(`if ($host) { proxy_pass ${UP}/b; }`),
  inLocation('proxy_pass 127.0.0.1:9;'),
  inLocation('proxy_pass http://;'),
  inLocation('proxy_set_header A;'),
  inLocation('proxy_set_header A $nothing_such;'),
  inLocation('return 200 $;'),
  inLocation('return text;'),
  inLocation('return 1000;'),
  inLocation('return 200 a b;'),
  inLocation('rewrite ^/(a /b;'),
  inLocation('rewrite ^/a /b forever;'),
  inLocation('if $host { return 200; }'),
  inLocation('if ($host == a) { return 200; }'),
  inLocation('if ($host = a b) { return 200; }'),
  inLocation('if (host) { return 200; }'),
  inLocation('if ($host) { proxy_set_header A b; }'),
  inServer('if ($host) { add_header A b; }'),
  inLocation('set a b;'),
  inLocation('set $host b;'),
  inLocation('limit_req zone=none;'),
  inLocation('limit_conn none 1;'),
  'limit_req_zone $a zone=b:1m rate=1r/s;',
  'limit_req_zone $host zone=b rate=1r/s;',
  'limit_req_zone $host zone=b:1k rate=1r/s;',
  'limit_conn_zone $host;',
  'map $host { a b; }',
  'map $host $a { a b c; }',
  'map $host $a { a b; a c; }',
  'map $host a { a b; }',
  'map $host $uri { a b; }',
  'map $host $a { ~( b; }',
  'upstream a { }',
  'upstream a { server 127.0.0.1:1; } upstream a { server 127.0.0.1:2; }',
  'upstream a { server 127.0.0.1:1 weight=none; }',
  'upstream a { server 127.0.0.1:1 unknown; }',
  'upstream a { server http://127.0.0.1:1; }',
  'upstream a { server 127.0.0.1:1 backup; }',
  'upstream a { hash $uri; server 127.0.0.1:1; server 127.0.0.1:2 backup; }',
  `upstream a { server 127.0.0.1:1; } ${inLocation('proxy_pass http://a:80;')}`,
  'server { listen 80 default_server; } server { listen 80 default_server; }',
  'server { listen 80; listen 80; }',
  'server { listen 99999; }',
  'server { listen 80 quickly; }',
  inServer('server_name ~(;'),
  inLocation('client_max_body_size much;'),
  inLocation('client_max_body_size 1m; client_max_body_size 2m;'),
  inLocation('proxy_read_timeout 5y;'),
  inLocation('proxy_read_timeout 5 minutes;'),
  inLocation('proxy_read_timeout soon;'),
  inLocation('proxy_buffering maybe;'),
  inLocation('allow somebody;'),
  inLocation('allow 192.0.2.0/33;'),
  inLocation('satisfy some;'),
  inLocation('limit_except BREW { deny all; }'),
  inLocation('error_page 404;'),
  inLocation('error_page 200 /a;'),
  inLocation('error_page 404 =abc /a;'),
  inLocation('try_files /a;'),
  inLocation('try_files $uri =abc;'),
  inLocation('alias /a; root /b;'),
  inServer('alias /a;'),
  inLocation('root $document_root/a;'),
  inLocation('expires sometime;'),
  inLocation('add_header A b never;'),
  inLocation('gzip_comp_level 10;'),
  inLocation('gzip_proxied sometimes;'),
  inLocation('access_log /dev/null unknown_format;'),
  inLocation('proxy_next_upstream whatever;'),
  inLocation('proxy_redirect a;'),
  inLocation('proxy_redirect default;'),
  inLocation('grpc_pass 127.0.0.1:9/a;'),
  inLocation('grpc_pass app;'),
  inServer('location @a { alias /a; }'),
  inLocation('keepalive_timeout long;'),
  inLocation('proxy_buffers 8;'),
  inLocation('proxy_buffer_size big;'),
  inLocation('proxy_ignore_headers Everything;'),
  inServer('client_header_buffer_size 1.5k;'),
  'variables_hash_max_size many;',
  inLocation('include /nowhere/to/be/found;'),
  inLocation('internal on;'),
  inLocation('fastcgi_nothing 1;'),
  inServer('listen 8080; server_tokens;'),
  '\uFEFFserver { }',
];

/** nginx takes them. */
const refusedByUs: readonly (readonly [string, because: RegExp])[] = [
  [inLocation('fastcgi_pass 127.0.0.1:9000;'), /only HTTP and gRPC/],
  [inLocation('uwsgi_pass 127.0.0.1:9000;'), /only HTTP and gRPC/],
  [inLocation('ssi on;'), /not run/],
  [inLocation('sub_filter a b;'), /bodies pass/],
  [inLocation('mirror /a;'), /twice/],
  [inLocation(`proxy_pass http://unix:/tmp/a.sock;`), /UNIX socket/],
  ['upstream a { server unix:/tmp/a.sock; }', /UNIX socket/],
  ['map $host $a { a $b; } map $host $b { a $a; }', /leads to itself/],
  ['geo $a { default 0; 10.0.0.0/8 1; }', /not looked up/],
  ['split_clients $host $a { 50% a; * b; }', /canary/],
  [inLocation(`proxy_pass ${UP}; proxy_set_body a;`), /bodies pass/],
  [inLocation('add_trailer A b;'), /trailers pass/],
  [inLocation('return 100;'), /neither a status/],
  [inLocation('try_files /a @nowhere;'), /no location @nowhere/],
  [inLocation('error_page 404 @nowhere;'), /no location @nowhere/],
  [inLocation('auth_basic a; auth_basic_user_file nowhere;'), /cannot be read/],
  [inLocation('rewrite ^/(?=(a+)+$) /b;'), /overlap/],
  [inServer('location @a { return 200; } location @a { return 200; }'), /two location @a/],
  ['limit_req_zone $host zone=b:1m rate=1;', /no rate/],
  [inServer('server_name a*b.test;'), /not a name/],
  [inLocation('proxy_cookie_flags a sweet;'), /not a flag/],
  [inLocation(`proxy_pass https://127.0.0.1:9; proxy_ssl_name $host;`), /holds variables/],
  [inLocation('proxy_pass http://127.0.0.1:9; proxy_store on;'), /not stored/],
  [inLocation('set $a 1; return 200 $request_body;'), /no variable \$request_body/],
  [
    'server { listen 80; server_name a.test; location / { return 200 a; } } server { listen 81; server_name a.test; location / { return 200 b; } }',
    /another port/,
  ],
];

/** nginx wants certificates and names that resolve; both come later here. */
const takenByUs: readonly string[] = [
  'server { listen 443 ssl; ssl_certificate /nowhere/a.pem; ssl_certificate_key /nowhere/a.key; }',
  inLocation('proxy_pass http://nobody.invalid;'),
  'upstream a { server nobody.invalid; }',
  'server { listen 8443 ssl; http2 on; }',
];

describe('a file', { concurrency: 2 }, () => {
  let nginx: NginxJudge;
  before(async () => {
    nginx = await createNginxJudge();
  });
  after(() => nginx[Symbol.asyncDispose]());

  for (const text of takenByBoth)
    test(`is taken as nginx takes it: ${text}`, async () => {
      assert.equal(await nginx.fault(text), undefined);
      assert.deepEqual(read(text).mistakes.map(describeMistake), []);
    });

  for (const text of refusedByBoth)
    test(`is refused as nginx refuses it: ${text}`, async () => {
      assert.notEqual(await nginx.fault(text), undefined);
      assert.notDeepEqual(read(text).mistakes, []);
    });

  for (const [text, because] of refusedByUs)
    test(`is refused with a reason where nginx takes it: ${text}`, async () => {
      assert.equal(await nginx.fault(text), undefined);
      assert.match(read(text).mistakes.map(describeMistake).join('\n'), because);
    });

  for (const text of takenByUs)
    test(`is taken where nginx misses what the ingress needs not: ${text}`, async () => {
      assert.notEqual(await nginx.fault(text), undefined);
      assert.deepEqual(read(text).mistakes.map(describeMistake), []);
    });
});
