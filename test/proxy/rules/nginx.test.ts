// The same rules, as a file to Debian's nginx and as a model to the engine: both decide alike.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { after, before, describe, test } from 'node:test';
import type { Location, Policy, RuleSet, Site } from '../../../proxy/rules/model.ts';
import { readNginxFiles } from '../../../src/routes/nginx/read.ts';
import { type NginxServer, startNginx } from '../../support/nginx.ts';
import { freePort } from '../../support/ports.ts';
import { type Asked, ask, fieldsOf, prefix, re, siteOf, t } from './driver.ts';

interface Case {
  readonly name: string;
  /** Inside of a server block; UP is where the upstream listens. */
  readonly nginx: string;
  readonly locations: readonly Location[];
  readonly site?: Partial<Site>;
  readonly set?: Partial<RuleSet>;
  readonly http?: string;
  readonly asks: readonly (string | (Asked & { readonly target: string }))[];
}

const UP = 'http://UP';
const toUp = { kind: 'proxy', upstream: 'up', protocol: 'http', host: 'UP' } as const;
const pattern = (source: string, more: Partial<Location> = {}, ignoreCase = false): Location => ({
  match: { kind: 'pattern', pattern: re(source, ignoreCase) },
  ...more,
});
const exact = (path: string, more: Partial<Location> = {}): Location => ({
  match: { kind: 'exact', path },
  ...more,
});
const named = (name: string, more: Partial<Location> = {}): Location => ({
  match: { kind: 'named', name },
  ...more,
});
const says = (text: string): Partial<Location> => ({
  rewrite: [{ do: 'return', status: 200, body: t(text) }],
});
const proxied = (path?: string): Partial<Location> => ({
  content: path === undefined ? toUp : { ...toUp, path },
  policy: { redirects: [{ kind: 'default' }] },
});

const paths = [
  '/',
  '/a',
  '/a/',
  '/ab',
  '/a/b',
  '/a%2Fb',
  '/a%20b/c',
  '/a//b',
  '/a/./b/../c',
  '/%61/b',
  '/a/%3F%23%25',
  '/a/b?x=1&y=2',
  '/a+b/c%2Bd',
  '/..',
  '/a/..;/b',
  '/a/...',
  '/a%00b',
  '/a/%E4%BD%A0',
  '/a/[b]~;:@&=c',
  '/a/b%5C%5E%7C',
  '/a?',
  '/A/B',
];

const cases: readonly Case[] = [
  {
    name: 'the order of locations',
    nginx: `
      location = / { return 200 root; } location / { return 200 any; } location /a { return 200 a; }
      location ^~ /a/ { return 200 final; } location ~ /b$ { return 200 "b $uri"; } location ~* ^/AB { return 200 ab; }`,
    locations: [
      exact('/', says('root')),
      prefix('/', says('any')),
      prefix('/a', says('a')),
      { match: { kind: 'prefix', path: '/a/', final: true }, ...says('final') },
      pattern('/b$', says('b $uri')),
      pattern('^/AB', says('ab'), true),
    ],
    asks: paths,
  },
  {
    name: 'nested locations',
    nginx: `
      location / { return 200 any; }
      location /a { location ~ b { return 200 inner; } location /a/ { return 200 slash; } location = /a/c { return 200 exact; } return 200 a; }
      location ~ ^/a { return 200 outer; }`,
    locations: [
      prefix('/', says('any')),
      prefix('/a', {
        ...says('a'),
        locations: [pattern('b', says('inner')), prefix('/a/', says('slash')), exact('/a/c', says('exact'))],
      }),
      pattern('^/a', says('outer')),
    ],
    asks: paths,
  },
  {
    name: 'a proxy without a path',
    nginx: `location / { proxy_pass ${UP}; }`,
    locations: [prefix('/', proxied())],
    asks: paths,
  },
  {
    name: 'a proxy with a path',
    nginx: `location /a/ { proxy_pass ${UP}/x/; } location /a { proxy_pass ${UP}/; } location = /ab { proxy_pass ${UP}/exact; }`,
    locations: [
      prefix('/a/', { ...proxied('/x/'), addsSlash: true }),
      prefix('/a', proxied('/')),
      exact('/ab', proxied('/exact')),
    ],
    asks: paths,
  },
  {
    name: 'a slash that is added',
    nginx: `location /a/ { proxy_pass ${UP}; } location /a%b/ { proxy_pass ${UP}; }`,
    locations: [
      prefix('/a/', { ...proxied(), addsSlash: true }),
      prefix('/a%b/', { ...proxied(), addsSlash: true }),
    ],
    asks: [...paths, '/a?q=1', '/a%25b'],
  },
  {
    name: 'a slash that is added for an exact path too, and captures that are kept',
    nginx: `location = /x/ { proxy_pass ${UP}; }
      location ~ "^/k/(.*)$" { set $before $1; rewrite ^/k/(.*)$ /l/$1; set $after $1; return 200 "$before $after $1"; }`,
    locations: [
      exact('/x/', { ...proxied(), addsSlash: true }),
      pattern('^/k/(.*)$', {
        rewrite: [
          { do: 'set', variable: 'before', value: t('$1') },
          { do: 'rewrite', pattern: re('^/k/(.*)$'), to: t('/l/$1'), flag: 'next' },
          { do: 'set', variable: 'after', value: t('$1') },
          { do: 'return', status: 200, body: t('$before $after $1') },
        ],
      }),
    ],
    asks: ['/x', '/x?q', '/x/', '/k/a%20b', '/k/a+b', '/k/ab', '/k/%C3%A9%2F&'],
  },
  {
    name: 'a proxy of variables',
    nginx: `location ~ ^/a/(.*)$ { set $up UP; proxy_pass http://$up/$1; } location / { set $up UP; proxy_pass http://$up; }
      location /ab { set $up UP; proxy_pass http://$up/fixed$is_args$args; }`,
    locations: [
      pattern('^/a/(.*)$', {
        rewrite: [{ do: 'set', variable: 'up', value: t('UP') }],
        content: { kind: 'proxy-to', url: t('http://$up/$1') },
      }),
      prefix('/', {
        rewrite: [{ do: 'set', variable: 'up', value: t('UP') }],
        content: { kind: 'proxy-to', url: t('http://$up') },
      }),
      prefix('/ab', {
        rewrite: [{ do: 'set', variable: 'up', value: t('UP') }],
        content: { kind: 'proxy-to', url: t('http://$up/fixed$is_args$args') },
      }),
    ],
    // A space or a % that goes out raw is answered with 400 by the upstream: ours goes as an escape.
    asks: paths.filter((path) => !/^\/a\/.*%/.test(path)),
  },
  {
    name: 'rewrites that end the phase and those that do not',
    nginx: `
      rewrite ^/server/(.*)$ /a/$1;
      location /a { rewrite ^/a/(.*)$ /b/$1 last; return 200 "a $uri"; }
      location /b { rewrite ^/b/(.*)$ /c/$1?new=$1 break; proxy_pass ${UP}; }
      location /d { rewrite ^/d/(.*)$ /e/$1?; rewrite ^/e/(.*) /f/$1; }
      location /f { return 200 "f $uri $args"; }
      location /loop { rewrite ^ /loop last; }
      location /r { rewrite ^/r/(.*)$ /to/$1?x=$1 redirect; }
      location /p { rewrite ^/p/(.*)$ https://b.test/$1? permanent; }
      location /s { rewrite ^/s/(.*)$ $scheme://b.test/$1 last; }
      location /g { rewrite ^ $request_uri; rewrite ^/g(/.*) $1 break; proxy_pass ${UP}$uri; }
      location /n { rewrite ^/n/(.*) /o/$1 break; proxy_pass ${UP}/ignored/; }
      location / { return 200 "any $uri $args"; }`,
    locations: [
      prefix('/a', {
        rewrite: [
          { do: 'rewrite', pattern: re('^/a/(.*)$'), to: t('/b/$1'), flag: 'last' },
          { do: 'return', status: 200, body: t('a $uri') },
        ],
      }),
      prefix('/b', {
        ...proxied(),
        rewrite: [{ do: 'rewrite', pattern: re('^/b/(.*)$'), to: t('/c/$1?new=$1'), flag: 'break' }],
      }),
      prefix('/d', {
        rewrite: [
          { do: 'rewrite', pattern: re('^/d/(.*)$'), to: t('/e/$1?'), flag: 'next' },
          { do: 'rewrite', pattern: re('^/e/(.*)'), to: t('/f/$1'), flag: 'next' },
        ],
      }),
      prefix('/f', says('f $uri $args')),
      prefix('/loop', { rewrite: [{ do: 'rewrite', pattern: re('^'), to: t('/loop'), flag: 'last' }] }),
      prefix('/r', {
        rewrite: [{ do: 'rewrite', pattern: re('^/r/(.*)$'), to: t('/to/$1?x=$1'), flag: 'redirect' }],
      }),
      prefix('/p', {
        rewrite: [
          { do: 'rewrite', pattern: re('^/p/(.*)$'), to: t('https://b.test/$1?'), flag: 'permanent' },
        ],
      }),
      prefix('/s', {
        rewrite: [{ do: 'rewrite', pattern: re('^/s/(.*)$'), to: t('$scheme://b.test/$1'), flag: 'last' }],
      }),
      prefix('/g', {
        content: { kind: 'proxy-to', url: t('http://UP$uri') },
        rewrite: [
          { do: 'rewrite', pattern: re('^'), to: t('$request_uri'), flag: 'next' },
          { do: 'rewrite', pattern: re('^/g(/.*)'), to: t('$1'), flag: 'break' },
        ],
      }),
      prefix('/n', {
        ...proxied('/ignored/'),
        rewrite: [{ do: 'rewrite', pattern: re('^/n/(.*)'), to: t('/o/$1'), flag: 'break' }],
      }),
      prefix('/', says('any $uri $args')),
    ],
    site: { rewrite: [{ do: 'rewrite', pattern: re('^/server/(.*)$'), to: t('/a/$1'), flag: 'next' }] },
    asks: [
      ...[
        '/server/x%20y?q',
        '/a/x',
        '/a/x%26y?z=1',
        '/a',
        '/b/%3Fx?y',
        '/b/a+b',
        '/d/x?gone=1',
        '/loop',
        '/r/x?y=1',
      ],
      ...[
        '/r/a%20b%26c%25?y',
        '/r/a+b',
        '/p/x?y',
        '/p/%E4%20',
        '/s/x?y',
        '/g/a%2Fb?c=%20d',
        '/n/x%20y?z',
        '/other?q=%20',
      ],
      ...['/r/x%3Fy', '/r/x%0Ay', '/r/plain'],
    ],
  },
  {
    name: 'conditions',
    nginx: `
      set $kind none; if ($http_x ~* "^(y)es$") { set $kind "yes $1"; } if ($arg_q = "1") { set $kind one; }
      if ($request_method !~ ^(GET|HEAD|POST)$) { return 405; }
      location /a { add_header X-Out out; if ($args) { add_header X-In in; set $kind "args"; } return 200 $kind; }
      location /p { if ($http_y) { add_header X-Y y; } proxy_pass ${UP}; add_header X-Out out always; }
      location /z { set $zero 00; if ($zero) { return 200 true; } return 200 false; }
      location /n { if ($arg_n != x) { return 302 /x; } return 200 x; }
      location /c { if ($uri ~ (b)) { } if ($uri ~ zzz) { } return 200 "[$1]"; }
      location / { return 200 $kind; }`,
    site: {
      rewrite: [
        { do: 'set', variable: 'kind', value: t('none') },
        {
          do: 'if',
          condition: { test: 'match', variable: 'http_x', pattern: re('^(y)es$', true) },
          body: [{ do: 'set', variable: 'kind', value: t('yes $1') }],
        },
        {
          do: 'if',
          condition: { test: 'equal', variable: 'arg_q', value: t('1') },
          body: [{ do: 'set', variable: 'kind', value: t('one') }],
        },
        {
          do: 'if',
          condition: {
            test: 'match',
            variable: 'request_method',
            pattern: re('^(GET|HEAD|POST)$'),
            not: true,
          },
          body: [{ do: 'return', status: 405 }],
        },
      ],
    },
    locations: [
      prefix('/a', {
        policy: { addHeaders: [{ name: 'X-Out', value: t('out') }] },
        rewrite: [
          {
            do: 'if',
            condition: { test: 'set', variable: 'args' },
            body: [{ do: 'set', variable: 'kind', value: t('args') }],
            policy: { addHeaders: [{ name: 'X-In', value: t('in') }] },
          },
          { do: 'return', status: 200, body: t('$kind') },
        ],
      }),
      prefix('/p', {
        content: toUp,
        policy: { addHeaders: [{ name: 'X-Out', value: t('out'), always: true }] },
        rewrite: [
          {
            do: 'if',
            condition: { test: 'set', variable: 'http_y' },
            body: [],
            policy: { addHeaders: [{ name: 'X-Y', value: t('y') }] },
          },
        ],
      }),
      prefix('/z', {
        rewrite: [
          { do: 'set', variable: 'zero', value: t('00') },
          {
            do: 'if',
            condition: { test: 'set', variable: 'zero' },
            body: [{ do: 'return', status: 200, body: t('true') }],
          },
          { do: 'return', status: 200, body: t('false') },
        ],
      }),
      prefix('/n', {
        rewrite: [
          {
            do: 'if',
            condition: { test: 'equal', variable: 'arg_n', value: t('x'), not: true },
            body: [{ do: 'return', status: 302, location: t('/x') }],
          },
          { do: 'return', status: 200, body: t('x') },
        ],
      }),
      prefix('/c', {
        rewrite: [
          {
            do: 'if',
            condition: { test: 'match', variable: 'uri', pattern: re('(b)') },
            body: [],
            policy: {},
          },
          {
            do: 'if',
            condition: { test: 'match', variable: 'uri', pattern: re('zzz') },
            body: [],
            policy: {},
          },
          { do: 'return', status: 200, body: t('[$1]') },
        ],
      }),
      prefix('/', says('$kind')),
    ],
    asks: [
      '/',
      '/?q=1',
      '/?Q=1',
      { target: '/', headers: { X: 'YES' } },
      { target: '/', method: 'PUT' },
      '/a',
      '/a?x',
      '/p?x',
      { target: '/p/q', headers: { Y: '1' } },
      '/z',
      '/n',
      '/n?n=x',
      '/c/b',
      '/c/bzzz',
    ],
  },
  {
    name: 'error pages and returns',
    nginx: `
      error_page 404 /missing; error_page 403 =200 /found?a=1; error_page 410 @gone; error_page 402 =301 https://b.test/pay;
      error_page 409 = /teapot; error_page 400 =418 @gone;
      location /missing { internal; return 200 "missing $uri $request_uri $status"; }
      location /found { return 200 "found $args"; }
      location /teapot { return 202 tea; }
      location @gone { return 200 "gone $uri $request_method"; }
      location /404 { return 404; } location /404t { return 404 text; } location /403 { return 403; }
      location /410 { return 410; } location /402 { return 402; } location /409 { return 409; } location /400 { return 400; }
      location /500 { error_page 500 /404; return 500; }
      location /401 { error_page 401 =302 https://b.test/login; auth_basic x; auth_basic_user_file /dev/null; }
      location /deny { deny all; }
      location /up { proxy_pass ${UP}; proxy_intercept_errors on; }
      location /upraw { proxy_pass ${UP}; }
      location /301 { return 301 /x$args; } location /302 { return https://b.test$uri; } location /308 { return 308 $request_uri; }
      location /204 { return 204; } location /js.js { return 200 x; } location /empty { return 200; }`,
    site: {
      policy: {
        errorPages: [
          { statuses: [404], target: { kind: 'uri', uri: t('/missing') } },
          { statuses: [403], status: 200, target: { kind: 'uri', uri: t('/found?a=1') } },
          { statuses: [410], target: { kind: 'named', name: '@gone' } },
          { statuses: [402], status: 301, target: { kind: 'url', url: t('https://b.test/pay') } },
          { statuses: [409], status: 'target', target: { kind: 'uri', uri: t('/teapot') } },
          { statuses: [400], status: 418, target: { kind: 'named', name: '@gone' } },
        ],
      },
    },
    locations: [
      prefix('/missing', { internal: true, ...says('missing $uri $request_uri $status') }),
      prefix('/found', says('found $args')),
      prefix('/teapot', { rewrite: [{ do: 'return', status: 202, body: t('tea') }] }),
      named('@gone', says('gone $uri $request_method')),
      ...[404, 403, 410, 402, 409, 400].map((status) =>
        prefix(`/${status}`, { rewrite: [{ do: 'return', status }] }),
      ),
      prefix('/404t', { rewrite: [{ do: 'return', status: 404, body: t('text') }] }),
      prefix('/500', {
        policy: { errorPages: [{ statuses: [500], target: { kind: 'uri', uri: t('/404') } }] },
        rewrite: [{ do: 'return', status: 500 }],
      }),
      prefix('/401', {
        policy: {
          basicRealm: t('x'),
          errorPages: [
            { statuses: [401], status: 302, target: { kind: 'url', url: t('https://b.test/login') } },
          ],
        },
      }),
      prefix('/deny', { policy: { addresses: [{ allow: false, range: 'all' }] } }),
      prefix('/up', { content: toUp, policy: { interceptErrors: true } }),
      prefix('/upraw', { content: toUp }),
      prefix('/301', { rewrite: [{ do: 'return', status: 301, location: t('/x$args') }] }),
      prefix('/302', { rewrite: [{ do: 'return', status: 302, location: t('https://b.test$uri') }] }),
      prefix('/308', { rewrite: [{ do: 'return', status: 308, location: t('$request_uri') }] }),
      prefix('/204', { rewrite: [{ do: 'return', status: 204 }] }),
      prefix('/js.js', says('x')),
      prefix('/empty', { rewrite: [{ do: 'return', status: 200 }] }),
    ],
    asks: [
      ...[
        '/404',
        '/404t',
        '/403',
        '/410',
        '/402',
        '/409',
        '/400',
        '/500',
        '/401',
        '/deny',
        '/missing',
        '/none',
      ],
      ...['/up?status=404', '/up?status=403', '/up?status=410', '/up?status=301', '/upraw?status=404', '/up'],
      ...['/301?q', '/302%20x', '/308?a=%20', '/204', '/js.js', '/empty'],
      { target: '/404', method: 'HEAD' },
      { target: '/404', method: 'POST' },
      { target: '/410', method: 'POST' },
    ],
  },
  {
    name: 'redirects and cookies of the upstream',
    nginx: `
      location /d/ { proxy_pass ${UP}/base/; proxy_cookie_path /base/ /d/; proxy_cookie_domain up.test d.test; }
      location /e { proxy_pass ${UP}; proxy_redirect ~^http://([^/]+)/x(.*)$ /x-$1$2; proxy_redirect default; proxy_cookie_path / "/; Secure"; }
      location /f { proxy_pass ${UP}; proxy_redirect off; proxy_cookie_flags one secure samesite=lax; proxy_cookie_flags ~ nohttponly; }
      location /h { proxy_pass ${UP}; proxy_hide_header X-One; expires 1h; add_header X-Two two; }
      location /i { proxy_pass ${UP}; expires -1; add_header Cache-Control private; }
      location /j { proxy_pass ${UP}; expires epoch; } location /k { proxy_pass ${UP}; expires max; }`,
    locations: [
      prefix('/d/', {
        addsSlash: true,
        content: { ...toUp, path: '/base/' },
        policy: {
          redirects: [{ kind: 'default' }],
          cookiePaths: [{ from: { kind: 'text', text: t('/base/') }, to: t('/d/') }],
          cookieDomains: [{ from: { kind: 'text', text: t('up.test') }, to: t('d.test') }],
        },
      }),
      prefix('/e', {
        content: toUp,
        policy: {
          redirects: [
            {
              kind: 'rule',
              from: { kind: 'pattern', pattern: re('^http://([^/]+)/x(.*)$') },
              to: t('/x-$1$2'),
            },
            { kind: 'default' },
          ],
          cookiePaths: [{ from: { kind: 'text', text: t('/') }, to: t('/; Secure') }],
        },
      }),
      prefix('/f', {
        content: toUp,
        policy: {
          redirects: [],
          cookieFlags: [
            { cookie: { kind: 'text', text: t('one') }, set: ['secure', 'samesite=lax'], remove: [] },
            { cookie: { kind: 'pattern', pattern: re('') }, set: [], remove: ['httponly'] },
          ],
        },
      }),
      ...(
        [
          [
            '/h',
            {
              hideHeaders: ['X-One'],
              expires: { value: t('1h') },
              addHeaders: [{ name: 'X-Two', value: t('two') }],
            },
          ],
          [
            '/i',
            { expires: { value: t('-1') }, addHeaders: [{ name: 'Cache-Control', value: t('private') }] },
          ],
          ['/j', { expires: { value: t('epoch') } }],
          ['/k', { expires: { value: t('max') } }],
        ] as [string, Policy][]
      ).map(([path, policy]) =>
        prefix(path, { content: toUp, policy: { redirects: [{ kind: 'default' }], ...policy } }),
      ),
    ],
    asks: ['/d', '/e', '/f', '/h', '/i', '/j', '/k'].flatMap((path) => {
      const base = path === '/d' ? '/d/' : path;
      return [
        ...['http://UP/base/q', 'http://UP/q', '/rel', 'http://UP/x/y', 'https://c.test/', '/'].map(
          (location) => `${base}?status=302&location=${location}`,
        ),
        `${base}?status=201&location=http://UP/base/made`,
        `${base}?cookie=one=1;Path=/base/sub;HttpOnly`,
        `${base}?cookie=two=2;Domain=.up.test;Path=/`,
        `${base}?one=1&cc=public`,
        `${base}?status=404&one=1`,
      ];
    }),
  },
  {
    name: 'files',
    nginx: `
      root FOLDER/www; location / { try_files $uri $uri/ /spa.html?$args; } location /plain/ { }
      location /only { try_files $uri =404; } location /to { try_files /nothing @named; } location @named { return 200 "named $uri"; }
      location /alias/ { alias FOLDER/www/plain/; } location ~ ^/re/(.*)$ { alias FOLDER/www/plain/$1; } location /spa.html { return 200 "spa $args"; }`,
    site: { policy: { root: { path: t('FOLDER/www') } } },
    locations: [
      prefix('/', {
        tryFiles: { paths: [t('$uri'), t('$uri/')], last: { kind: 'uri', uri: t('/spa.html?$args') } },
      }),
      prefix('/plain/'),
      prefix('/only', { tryFiles: { paths: [t('$uri')], last: { kind: 'status', status: 404 } } }),
      prefix('/to', { tryFiles: { paths: [t('/nothing')], last: { kind: 'named', name: '@named' } } }),
      named('@named', says('named $uri')),
      prefix('/alias/', { policy: { root: { path: t('FOLDER/www/plain/'), alias: true } } }),
      pattern('^/re/(.*)$', { policy: { root: { path: t('FOLDER/www/plain/$1'), alias: true } } }),
      prefix('/spa.html', says('spa $args')),
    ],
    asks: [
      ...[
        '/',
        '/x?q=1',
        '/plain',
        '/plain?q',
        '/plain/',
        '/plain/a.txt',
        '/plain/none',
        '/plain/sub',
        '/plain/sub/',
      ],
      ...[
        '/only',
        '/to',
        '/alias/a.txt',
        '/alias/none',
        '/alias/sub',
        '/alias/sub?q',
        '/re/a.txt',
        '/re/none',
        '/re/sub',
      ],
      { target: '/plain/a.txt', method: 'POST' },
      { target: '/plain/a.txt', method: 'PUT' },
      { target: '/plain/', method: 'PUT' },
      { target: '/plain/none', method: 'POST' },
    ],
  },
  {
    name: 'access',
    nginx: `
      location /a { deny 127.0.0.1; } location /b { allow 127.0.0.0/8; deny all; }
      location /c { limit_except GET { deny all; } return 200 c; }
      location /c2 { limit_except GET { deny all; } proxy_pass ${UP}; }
      location /d { auth_request /auth; auth_request_set $who $upstream_http_x_user; proxy_pass ${UP}; add_header X-Who $who; }
      location = /auth { internal; proxy_pass ${UP}/check$is_args$args; proxy_set_header X-Original $request_uri; }
      location /d2 { auth_request /auth401; proxy_pass ${UP}; } location = /auth401 { return 401; }
      location /d3 { auth_request /auth302; proxy_pass ${UP}; } location = /auth302 { return 302 /; }
      location /d4 { auth_request /auth403; proxy_pass ${UP}; } location = /auth403 { return 403; }
      location /e { satisfy any; deny all; auth_basic r; auth_basic_user_file FOLDER/users; proxy_pass ${UP}; }
      location /f { satisfy any; allow all; auth_basic r; auth_basic_user_file FOLDER/users; proxy_pass ${UP}; }
      location /g { auth_basic r; auth_basic_user_file FOLDER/users; proxy_pass ${UP}; add_header X-User $remote_user; }
      location /h { client_max_body_size 10; proxy_pass ${UP}; }`,
    locations: [
      prefix('/a', {
        content: { kind: 'files' },
        policy: { addresses: [{ allow: false, range: '127.0.0.1' }] },
      }),
      prefix('/b', {
        policy: {
          addresses: [
            { allow: true, range: '127.0.0.0/8' },
            { allow: false, range: 'all' },
          ],
        },
      }),
      prefix('/c', {
        ...says('c'),
        limitExcept: { methods: ['GET'], policy: { addresses: [{ allow: false, range: 'all' }] } },
      }),
      prefix('/c2', {
        content: toUp,
        limitExcept: { methods: ['GET'], policy: { addresses: [{ allow: false, range: 'all' }] } },
      }),
      prefix('/d', {
        content: toUp,
        policy: {
          authRequest: { kind: 'uri', uri: t('/auth') },
          authVariables: [{ variable: 'who', value: t('$upstream_http_x_user') }],
          addHeaders: [{ name: 'X-Who', value: t('$who') }],
        },
      }),
      exact('/auth', {
        internal: true,
        content: { kind: 'proxy-to', url: t('http://UP/check$is_args$args') },
      }),
      ...[401, 302, 403].map((status) =>
        exact(`/auth${status}`, {
          rewrite: [status === 302 ? { do: 'return', status, location: t('/') } : { do: 'return', status }],
        }),
      ),
      ...(
        [
          ['/d2', 401],
          ['/d3', 302],
          ['/d4', 403],
        ] as const
      ).map(([path, status]) =>
        prefix(path, { content: toUp, policy: { authRequest: { kind: 'uri', uri: t(`/auth${status}`) } } }),
      ),
      prefix('/e', {
        content: toUp,
        policy: {
          satisfy: 'any',
          addresses: [{ allow: false, range: 'all' }],
          basicRealm: t('r'),
          basicUsers: [{ name: 'ann', hash: 'secret' }],
        },
      }),
      prefix('/f', {
        content: toUp,
        policy: {
          satisfy: 'any',
          addresses: [{ allow: true, range: 'all' }],
          basicRealm: t('r'),
          basicUsers: [{ name: 'ann', hash: 'secret' }],
        },
      }),
      prefix('/g', {
        content: toUp,
        policy: {
          basicRealm: t('r'),
          basicUsers: [{ name: 'ann', hash: 'secret' }],
          addHeaders: [{ name: 'X-User', value: t('$remote_user') }],
        },
      }),
      prefix('/h', { content: toUp, policy: { maxBodyBytes: 10 } }),
    ],
    asks: [
      ...['/a', '/b', '/c', '/c2', '/d', '/d2', '/d3', '/d4', '/e', '/f', '/g', '/h'],
      ...['/c', '/c2'].map((target) => ({ target, method: 'POST' })),
      ...['/e', '/g'].map((target) => ({
        target,
        headers: { Authorization: `Basic ${btoa('ann:secret')}` },
      })),
      ...['/e', '/g'].map((target) => ({ target, headers: { Authorization: `Basic ${btoa('ann:wrong')}` } })),
      { target: '/g', headers: { Authorization: `Basic ${btoa('bob:secret')}` } },
      { target: '/g', headers: { Authorization: 'Bearer x' } },
    ],
  },
  {
    name: 'names of sites and maps',
    http: `map $host $name { hostnames; default other; a.test a; *.b.test b; .c.test c; d.* d; ~^(?<word>e+)\\.(.*)$ "$word $2"; }`,
    nginx: `server_name a.test *.b.test .c.test d.* ~^(?<first>e+)\\.(.*)$ _; location / { return 200 "$name $first $server_name $host"; }`,
    locations: [prefix('/', says('$name $first $server_name $host'))],
    site: {
      label: 'a.test',
      names: [
        { kind: 'exact', name: 'a.test' },
        { kind: 'any-labels', name: 'b.test' },
        { kind: 'exact', name: 'c.test' },
        { kind: 'any-labels', name: 'c.test' },
        { kind: 'any-ending', name: 'd' },
        { kind: 'pattern', pattern: re('^(?<first>e+)\\.(.*)$', true) },
      ],
    },
    set: {
      maps: [
        {
          variable: 'name',
          source: t('$host'),
          hostnames: true,
          default: t('other'),
          entries: [
            { kind: 'text', text: 'a.test', value: t('a') },
            { kind: 'text', text: '*.b.test', value: t('b') },
            { kind: 'text', text: '.c.test', value: t('c') },
            { kind: 'text', text: 'd.*', value: t('d') },
            { kind: 'pattern', pattern: re('^(?<word>e+)\\.(.*)$'), value: t('$word $2') },
          ],
        },
      ],
    },
    asks: [
      'a.test',
      'A.Test.',
      'x.b.test',
      'x.y.b.test',
      'b.test',
      'c.test',
      'y.c.test',
      'd.example',
      'ee.x.y',
      'zzz',
      'a.test:99',
    ].map((host) => ({ target: '/', host })),
  },
];

/** Answers as its query says, and tells what it was asked. */
const upstream = createServer((incoming, response) => {
  const query = new URL(`http://x${incoming.url}`).searchParams;
  const up = `127.0.0.1:${incoming.socket.localPort}`;
  const text = (name: string) => query.get(name)?.replaceAll('UP', up);
  response.statusCode = Number(query.get('status') ?? 200);
  if (incoming.url?.startsWith('/check')) response.setHeader('X-User', 'ann');
  if (text('location') !== undefined) response.setHeader('Location', text('location')!);
  if (text('cookie') !== undefined) response.setHeader('Set-Cookie', text('cookie')!);
  if (text('one') !== undefined) response.setHeader('X-One', text('one')!);
  if (text('cc') !== undefined) response.setHeader('Cache-Control', text('cc')!);
  response.end(JSON.stringify({ target: incoming.url }));
});

interface Seen {
  readonly status: number;
  readonly fields: Readonly<Record<string, string | readonly string[] | undefined>>;
  readonly body: string;
}

const watched = [
  ...[
    'location',
    'www-authenticate',
    'x-out',
    'x-in',
    'x-y',
    'x-one',
    'x-two',
    'x-who',
    'x-user',
    'set-cookie',
  ],
  ...['cache-control'],
];

describe('rules and nginx', () => {
  let nginx: NginxServer | undefined;
  let port = 0;
  let up = '';
  const ports: number[] = [];

  before(async () => {
    upstream.listen(0, '127.0.0.1');
    await once(upstream, 'listening');
    up = `127.0.0.1:${(upstream.address() as { port: number }).port}`;
    port = await freePort();
    for (const _ of cases) ports.push(await freePort());
    const blocks = cases.map(({ nginx: inside, http = '' }, i) => {
      return `${http} server { listen 127.0.0.1:${ports[i]}; ${inside.replaceAll('UP', up)} }`;
    });
    nginx = await startNginx({
      port,
      server: '',
      beside: blocks.join('\n'),
      users: 'ann:{PLAIN}secret\n',
      files: { 'plain/a.txt': 'file', 'plain/sub/index.html': 'index', 'plain/empty/x.txt': 'x' },
    });
  });
  after(async () => {
    await nginx?.stop();
    upstream.close();
  });

  for (const [i, { name, locations, site, set, asks, nginx: inside, http = '' }] of cases.entries()) {
    test(`decide alike: ${name}`, async () => {
      const written = JSON.stringify(siteOf(locations, site, set));
      await compare(JSON.parse(filled(written)) as RuleSet, asks, ports[i]!);
    });

    test(`are read from the file that nginx has, and decide alike: ${name}`, async () => {
      const text = filled(`${http} server { server_name a.test; ${inside} }`);
      const { rules, mistakes } = readNginxFiles('/conf.d', {
        readFile: (path) => (path === '/conf.d/a.conf' ? text : readFileSync(path, 'utf8')),
        listFolder: () => ['a.conf'],
      });
      assert.deepEqual(mistakes, []);
      await compare(rules, asks, ports[i]!);
    });
  }

  function filled(text: string): string {
    return text.replaceAll('FOLDER', nginx!.folder).replaceAll('UP', up);
  }

  async function compare(rules: RuleSet, asks: Case['asks'], port: number): Promise<void> {
    const files = ['plain/a.txt', 'plain/sub/index.html', 'plain/empty/x.txt'].map(
      (file) => `${nginx!.folder}/www/${file}`,
    );
    for (const asked of asks) {
      const { target, ...more } = typeof asked === 'string' ? { target: asked } : asked;
      const theirs = await fetchRaw(port, target, more);
      const ours = await decide(
        rules,
        target,
        { ...more, client: '127.0.0.1', scheme: 'http', port },
        files,
        up,
      );
      assert.deepEqual(ours, theirs, `${more.method ?? 'GET'} ${target} ${JSON.stringify(more)}`);
    }
  }

  /** What ours decides, in the form in which nginx's reply is seen. */
  async function decide(
    rules: RuleSet,
    target: string,
    asked: Asked,
    files: readonly string[],
    host: string,
  ): Promise<Seen> {
    const result = ask(rules, target, asked, {
      files,
      passwords: (hash, password) => hash.replace('{PLAIN}', '') === password,
      upstream: (forward) => {
        const query = new URL(`http://x${forward.target}`).searchParams;
        const fields: Record<string, string> = {};
        for (const [key, field] of [
          ['location', 'location'],
          ['cookie', 'set-cookie'],
          ['one', 'x-one'],
          ['cc', 'cache-control'],
        ]) {
          const value = query.get(key!)?.replaceAll('UP', host);
          if (value !== undefined) fields[field!] = value;
        }
        if (forward.target.startsWith('/check')) fields['x-user'] = 'ann';
        return { status: Number(query.get('status') ?? 200), fields: fieldsOf(fields) };
      },
    });
    const fields: Record<string, string> = {};
    const { last } = result;
    if (last.do === 'pass') {
      const query = new URL(`http://x${result.target}`).searchParams;
      for (const [key, field] of [
        ['location', 'location'],
        ['cookie', 'set-cookie'],
        ['one', 'x-one'],
        ['cc', 'cache-control'],
      ]) {
        const value = query.get(key!)?.replaceAll('UP', host);
        if (value !== undefined && !last.edits.hidden.has(field!) && !last.edits.removed.includes(field!))
          fields[field!] = value;
      }
      for (const { name, value } of last.edits.own) {
        const lower = name.toLowerCase();
        fields[lower] = fields[lower] === undefined ? value : `${fields[lower]}, ${value}`;
      }
    } else for (const { name, value } of result.fields) fields[name.toLowerCase()] = value;
    const body =
      last.do === 'pass'
        ? JSON.stringify({ target: result.target })
        : last.do === 'file'
          ? `file ${last.path.split('/').at(-1)}`
          : (result.body ?? 'page');
    return seen(result.status, fields, asked.method === 'HEAD' ? '' : body);
  }
});

function seen(status: number, fields: Seen['fields'], body: string): Seen {
  const kept = Object.fromEntries(
    watched.filter((name) => fields[name] !== undefined).map((name) => [name, fields[name]]),
  );
  const content = { file: 'file a.txt', index: 'file index.html' }[body] ?? body;
  return { status, fields: kept, body: content.startsWith('<html>') ? 'page' : content };
}

async function fetchRaw(port: number, path: string, { method = 'GET', host, headers }: Asked): Promise<Seen> {
  const outgoing = request({
    port,
    host: '127.0.0.1',
    path,
    method,
    headers: { ...(headers as Record<string, string>), Host: host ?? 'a.test' },
    agent: false,
  });
  outgoing.end();
  const [reply] = (await once(outgoing, 'response')) as [import('node:http').IncomingMessage];
  reply.setEncoding('latin1');
  let body = '';
  for await (const piece of reply) body += piece;
  const fields: Record<string, string> = {};
  for (const [name, value] of Object.entries(reply.headers)) fields[name] = [value].flat().join(', ');
  // What nginx lets out raw goes as an escape from here.
  if (fields.location !== undefined) fields.location = fields.location.replaceAll(' ', '%20');
  return seen(
    reply.statusCode!,
    fields,
    body === '' && method !== 'HEAD' && reply.statusCode === 204 ? '' : body,
  );
}
