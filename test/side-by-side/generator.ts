// Small files and requests made at random: locations, proxy_pass in all forms, rewrite, if, map, try_files and error_page.

import fc, { type Arbitrary } from 'fast-check';
import type { Case } from './case.ts';
import type { Ask } from './clients.ts';

const one = <T>(...values: readonly T[]): Arbitrary<T> => fc.constantFrom(...values);
const joined = (parts: Arbitrary<string>, most: number, least = 0): Arbitrary<string> =>
  fc.array(parts, { minLength: least, maxLength: most }).map((list) => list.join(' '));
/** Mostly none. */
const seldom = (part: Arbitrary<string>): Arbitrary<string> =>
  fc.oneof({ weight: 3, arbitrary: fc.constant('') }, { weight: 1, arbitrary: part });

const pattern = one(
  '^/a/(.*)$',
  '^/(a|b)',
  '\\.x$',
  'b',
  '^/a(/[^/]*)',
  '^(.*)/b$',
  '^/([^/]*)/([^/]*)',
  '.',
  '(b+)(a)?',
  '^/$',
  '^/b(?:/(.*))?$',
  ' ',
  '^/t/(.*)$',
).map((text) => `"${text}"`);

/** NAME is the case's own. */
const variable = one(
  '$uri',
  '$args',
  '$1',
  '$2',
  '$request_uri',
  '$arg_q',
  '$v0',
  '$v1',
  '$is_args',
  '$NAME_map',
  '$NAME_by_uri',
  '$request_method',
  '$http_x',
  '$host',
  '$document_uri',
);
const text = fc.array(fc.oneof(variable, one('x', '/', '-', 'a/', 'b')), { minLength: 1, maxLength: 4 });
const quotedText = text.map(
  (parts) =>
    `"${parts.map((part) => part.replace(/^\$(?=[a-zA-Z])(.*)$/, (_, name) => `\${${name}}`)).join('')}"`,
);

const condition = fc.oneof(
  one('$arg_q', '$args', '$v0', '$http_x', '$NAME_map').map((name) => `(${name})`),
  fc
    .tuple(
      one('$arg_q', '$v0', '$NAME_map', '$request_method', '$uri'),
      one('=', '!='),
      one('1', 'b', 'POST', '/a', '""', '$v1'),
    )
    .map(([name, operator, value]) => `(${name} ${operator} ${value})`),
  fc
    .tuple(one('$uri', '$arg_q', '$args', '$http_x', '$request_uri'), one('~', '~*', '!~', '!~*'), pattern)
    .map(([name, operator, value]) => `(${name} ${operator} ${value})`),
  fc
    .tuple(one('-f', '-d', '-e', '!-f', '!-e'), one('$request_filename', 'FOLDER/www$uri', 'FOLDER/www/a'))
    .map(([test, path]) => `(${test} ${path})`),
);

const replacement = fc.oneof(
  one(
    '/t/$1',
    '/b$uri',
    '/$1',
    '/a?x=$1',
    '/a/$1?',
    '$uri/z',
    '/t?q=$arg_q',
    '/t',
    '/b/$2/$1',
    '/a%20b/$1',
    '/t/$v0',
  ),
  one('https://r.test/$1', 'http://r.test$uri', '$scheme://r.test/$1?x', '/b?$args', '/b?y=$uri&$args?'),
);
const rewrite = fc
  .tuple(pattern, replacement, one('', '', 'last', 'break', 'last', 'break', 'redirect', 'permanent'))
  .map(([from, to, flag]) => `rewrite ${from} "${to}" ${flag};`);
const set = fc
  .tuple(one('$v0', '$v1', '$v0', '$args'), quotedText)
  .map(([name, value]) => `set ${name} ${value};`);
const giveBack = fc.oneof(
  quotedText.map((value) => `return 200 ${value};`),
  fc
    .tuple(one(301, 302, 307), one('/r$uri', '$request_uri', 'https://r.test$uri', '/r?$args', '$v0'))
    .map(([status, to]) => `return ${status} "${to}";`),
  one('return 404;', 'return 403;', 'return 204;', 'return 410 gone;', 'return 404 "text";'),
);
const simple = fc.oneof(
  { weight: 4, arbitrary: set },
  { weight: 4, arbitrary: rewrite },
  { weight: 1, arbitrary: fc.constant('break;') },
);
const ofServer = fc
  .tuple(condition, joined(fc.oneof(simple, giveBack), 2))
  .map(([test, body]) => `if ${test} { ${body} }`);
const added = fc
  .tuple(one('X-A', 'X-B'), quotedText, one('', 'always'))
  .map(([name, value, always]) => `add_header ${name} ${value} ${always};`);
const bareProxy = one(
  'proxy_pass http://UP;',
  'proxy_pass http://$up;',
  'proxy_pass http://$up$request_uri;',
);
const ofLocation = fc
  .tuple(condition, joined(fc.oneof(simple, simple, giveBack, added), 2), seldom(bareProxy))
  .map(([test, body, proxy]) => `if ${test} { ${body} ${proxy} }`);

const proxyInVariables = one(
  'http://$up$uri',
  'http://$up/v$uri$is_args$args',
  'http://UP/$1',
  'http://UP/v?$args',
  'http://$NAME_up/w',
  'http://$up/$v0',
).map((url) => `proxy_pass ${url};`);
const proxyWithPath = one('/', '/x/', '/x', '/x/y/', '/x%20y/', '/x?z=1', '/a//b/').map(
  (path) => `proxy_pass http://UP${path};`,
);
const tryFiles = fc
  .tuple(
    joined(one('$uri', '$uri/', '/f.txt', '$uri.x', '/dir/', '/none', '/$arg_q'), 3, 1),
    one('=404', '=403', '@n', '/a', '/b?y=1', '/t$uri', '/dir/index.html', '$uri', '/t?$args'),
  )
  .map(([paths, last]) => `try_files ${paths} ${last};`);
const errorPage = fc
  .tuple(
    one('404', '403', '404 403', '500', '410'),
    one('', '', '=', '=200', '=302'),
    one('/t', '@n', '/b?e=1', '/f.txt', 'https://e.test/x'),
  )
  .map(([codes, over, to]) => `error_page ${codes} ${over} ${to};`);

/** `isPlaced`: a path in proxy_pass takes the place of the location's. */
function contentOf(isPlaced: boolean): Arbitrary<string> {
  const anywhere = [giveBack, bareProxy, bareProxy, proxyInVariables, tryFiles, fc.constant('')];
  const withFiles = fc.tuple(tryFiles, bareProxy).map((both) => both.join(' '));
  return fc.oneof(...anywhere, withFiles, ...(isPlaced ? [proxyWithPath, proxyWithPath] : []));
}

function bodyOf(isPlaced: boolean): Arbitrary<string> {
  return fc
    .tuple(
      joined(fc.oneof(simple, simple, ofLocation), 3),
      contentOf(isPlaced),
      seldom(added),
      seldom(errorPage),
      seldom(one('internal;', 'proxy_intercept_errors on;', 'expires 1h;', 'default_type text/plain;')),
    )
    .map((parts) => parts.filter((part) => part !== '').join(' '));
}

interface Written {
  readonly key: string;
  readonly write: string;
}

function locationOf(paths: readonly string[], inner: Arbitrary<string>): Arbitrary<Written> {
  const plain = fc
    .tuple(one('', '', '', '^~ ', '= '), one(...paths), bodyOf(true), inner)
    .map(([modifier, path, body, nested]) => ({
      key: `${modifier === '= ' ? '= ' : ''}${path}`,
      write: `location ${modifier}"${path}" { ${body} ${modifier === '= ' ? '' : nested.replaceAll('PATH', path)} }`,
    }));
  const byPattern = fc
    .tuple(one('~', '~*'), pattern, bodyOf(false))
    .map(([modifier, source, body]) => ({ key: '', write: `location ${modifier} ${source} { ${body} }` }));
  return fc.oneof({ weight: 3, arbitrary: plain }, { weight: 1, arbitrary: byPattern });
}

/** Below PATH, whatever it is. */
const nestedLocation = fc
  .tuple(
    one('location "PATHb" {', 'location = "PATHb" {', 'location ~ "b" {', 'location "PATH/b/" {'),
    bodyOf(false),
  )
  .map(([begin, body]) => `${begin} ${body} }`);

const PATHS = ['/', '/a', '/a/', '/a/b', '/b', '/b/', '/ab', '/A', '/t', '/t/', '/dir/', '/a b'];

const server = fc
  .tuple(
    fc.uniqueArray(locationOf(PATHS, seldom(nestedLocation)), {
      minLength: 1,
      maxLength: 5,
      selector: ({ key, write }) => (key === '' ? write : key),
    }),
    joined(fc.oneof(simple, ofServer), 2),
    bodyOf(false),
    seldom(errorPage),
    seldom(added),
    one('', '', 'root FOLDER/www;', 'root FOLDER/www;', 'root FOLDER/www; index index.html;'),
    one(
      '1 one; b two; default $uri;',
      'default d; ~^(.)(.*)$ $2$1;',
      '"" empty; ~*A a; default ""; 1 $args;',
    ),
    one('/a 1; default 0;', '~^/a/(.*)$ $1; default "";', '~b b; /A "big $host"; default $arg_q;'),
  )
  .map(([locations, program, named, errors, headers, root, map, byUri]) => ({
    locations: locations.map(({ write }) => write).join('\n  '),
    head: [root, errors, headers, 'set $up UP; set $v0 ""; set $v1 "";', program].join('\n  '),
    // The model of a named location is never internal: nothing else leads to it.
    named: named.replace('internal;', ''),
    map,
    byUri,
  }));

const segment = one(
  'a',
  'b',
  'ab',
  'A',
  'a%20b',
  '%61',
  '..',
  '.',
  '',
  'x',
  'a%2Fb',
  '%3F',
  '%25',
  'b+c',
  'b.x',
  'dir',
  'f.txt',
  't',
  'index.html',
  '%E4%BD%A0',
  'a;b',
  '%2e%2e',
);
const target = fc
  .tuple(
    fc.array(segment, { maxLength: 4 }),
    one('', '/', ''),
    one('', '', '?q=1', '?q=b&x=%20', '?q=/a/b', '?', '?q=', '?z', '?q=a%20b'),
  )
  .map(([segments, end, query]) => `/${segments.join('/')}${end}`.replace(/^\/+$/, '/') + query);

const ask: Arbitrary<Ask> = fc
  .tuple(target, one('GET', 'GET', 'GET', 'GET', 'POST', 'HEAD'), one('', '', '1', 'ab'))
  .map(([asked, method, x]) => ({
    target: asked,
    method,
    headers: x === '' ? [] : [['X', x]],
    ...(method === 'POST' && { body: 'hello' }),
  }));

/** A map that captures while a text with captures is put together makes nginx fail ("no buffer space in script copy"). */
function withoutSharedCaptures(conf: string): string {
  return conf.replaceAll(/"[^"]*"/g, (word) =>
    /\$[12]/.test(word) ? word.replaceAll(/\$\{NAME_(?:map|by_uri)\}/g, '') : word,
  );
}

/** `count` servers, each in a file of its own, and `each` requests to each. */
export function generateCases(seed: number, count: number, each: number): Case[] {
  const made = fc.sample(fc.tuple(server, fc.array(ask, { minLength: each, maxLength: each })), {
    seed,
    numRuns: count,
  });
  return made.map(([{ locations, head, named, map, byUri }, asks], i) => {
    const name = `g${i}`;
    const conf = `map $arg_q $NAME_map { ${map} }
map $uri $NAME_by_uri { ${byUri} }
map $arg_q $NAME_up { default UP; }
server {
  listen TLS; server_name ${name}.test;
  ${head}
  ${locations}
  location @n { ${named} }
}
`;
    return { name, conf: withoutSharedCaptures(conf).replaceAll('NAME', name), asks };
  });
}

export const disk = {
  'www/f.txt': 'a file',
  'www/a': 'a',
  'www/b.x': 'b.x',
  'www/index.html': '<p>index',
  'www/dir/index.html': '<p>dir',
  'www/dir/b': 'dir/b',
  'www/t/f.txt': 't',
};
