// Files before Debian's nginx and before the ingress: ranges, conditions, methods and encodings get the same.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { oneServer } from './case.ts';
import type { Ask } from './clients.ts';
import { compare } from './compare.ts';
import { MODIFIED, type Stage, startStage } from './stage.ts';

const digits = '0123456789'.repeat(10);
const seconds = (by: number) => new Date(MODIFIED.getTime() + by * 1000).toUTCString();
const modified = seconds(0);
const tag = `"${(MODIFIED.getTime() / 1000).toString(16)}-${digits.length.toString(16)}"`;

const ranges = [
  'bytes=0-0',
  'bytes=0-',
  'bytes=-1',
  'bytes=-0',
  'bytes=-1000',
  'bytes=99-',
  'bytes=100-',
  'bytes=101-200',
  'bytes=50-1000',
  'bytes=5-2',
  'bytes=0-2',
  'bytes= 1 - 3',
  'BYTES=1-3',
  'bytes=1-3,5-7',
  'bytes=1-3, 5-7, -2',
  'bytes=1-3,200-300',
  'bytes=200-300,1-3',
  'bytes=200-300,400-',
  'bytes=0-49,50-99',
  'bytes=0-60,40-99',
  'bytes=0-1,0-1',
  'bytes=5-2,1-3',
  'bytes=0-99',
  'bytes=',
  'bytes=-',
  'bytes=a-b',
  'bytes=1-3;5-7',
  'bytes=1',
  'bytes 1-3',
  'seconds=1-3',
  'bytes=1-3,',
  'bytes=0-0,2-2,4-4,6-6',
];

const conditions: readonly (readonly (readonly [string, string])[])[] = [
  ...[modified, seconds(1), seconds(-1), seconds(86_400), 'never', '', 'Monday, 01-Jan-24 00:00:00 GMT'].map(
    (date) => [['If-Modified-Since', date]] as const,
  ),
  ...[modified, seconds(1), seconds(-1)].map((date) => [['If-Unmodified-Since', date]] as const),
  ...[tag, `W/${tag}`, '"x"', `"x", ${tag}`, `"x" , W/${tag}`, '*', tag.slice(1, -1), ''].flatMap((tags) => [
    [['If-None-Match', tags]] as const,
    [['If-Match', tags]] as const,
  ]),
  [
    ['If-None-Match', tag],
    ['If-Modified-Since', seconds(-1)],
  ],
  [
    ['If-None-Match', '"x"'],
    ['If-Modified-Since', modified],
  ],
  [
    ['If-Match', tag],
    ['If-Unmodified-Since', seconds(-1)],
  ],
  [
    ['If-Match', '"x"'],
    ['If-None-Match', tag],
  ],
];

const rangeConditions = [tag, `W/${tag}`, '"x"', modified, seconds(1), seconds(-1), 'never', ''];
const encodings = ['gzip', 'br, gzip;q=0.5', 'identity', '*;q=0', ''];

const asks: readonly Ask[] = [
  ...ranges.flatMap((range) =>
    ['GET', 'HEAD'].map((method) => ({
      target: '/digits.txt',
      method,
      headers: [['Range', range]] as const,
    })),
  ),
  ...conditions.flatMap((headers) => [
    { target: '/digits.txt', headers },
    { target: '/digits.txt', method: 'HEAD', headers },
    { target: '/digits.txt', headers: [...headers, ['Range', 'bytes=1-3']] as const },
  ]),
  ...rangeConditions.flatMap((condition) => [
    {
      target: '/digits.txt',
      headers: [
        ['If-Range', condition],
        ['Range', 'bytes=1-3'],
      ] as const,
    },
    { target: '/digits.txt', headers: [['If-Range', condition]] as const },
  ]),
  ...encodings.map((encoding) => ({
    target: '/page.html',
    headers: [['Accept-Encoding', encoding]] as const,
  })),
  ...['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'].flatMap((method) =>
    ['/digits.txt', '/empty.txt', '/folder', '/folder/', '/none'].map((target) => ({ target, method })),
  ),
  ...['bytes=0-', 'bytes=-1', 'bytes=0-0'].map((range) => ({
    target: '/empty.txt',
    headers: [['Range', range]] as const,
  })),
  ...['/digits.txt?v=1', '/big.bin', '/folder/index.html'].flatMap((target) => [
    { target },
    { target, headers: [['Range', 'bytes=2-5,7-8']] as const },
    { target, headers: [['Range', 'bytes=-7']] as const },
  ]),
  { target: '/aged/digits.txt', headers: [['Range', 'bytes=1-3']] },
  { target: '/aged/digits.txt', headers: [['If-None-Match', tag]] },
  { target: '/aged/digits.txt', headers: [['Range', 'bytes=200-']] },
  { target: '/aged/digits.txt', headers: [['If-Match', '"x"']] },
  { target: '/own-page/digits.txt', headers: [['If-Match', '"x"']] },
];

const oneCase = oneServer(
  'files',
  `root FOLDER/www; location / { } location /aged/ { alias FOLDER/www/; expires 1h; add_header X-Sometimes 1; }
   location /own-page/ { alias FOLDER/www/; error_page 412 =200 /page.html; }`,
  asks,
);

describe('files by nginx and by the ingress', () => {
  let stage: Stage;
  before(async () => {
    stage = await startStage({
      files: { 'files.conf': oneCase.conf },
      hosts: ['files.test'],
      disk: {
        'www/digits.txt': digits,
        'www/page.html': '<p>page</p>'.repeat(50),
        'www/empty.txt': '',
        'www/folder/index.html': '<p>folder</p>',
        'www/big.bin': 'abcdefgh'.repeat(40_000),
      },
    });
  });
  after(() => stage?.[Symbol.asyncDispose]());

  test('200 requests and more are asked', () => assert.ok(asks.length >= 200, `${asks.length}`));
  for (const protocol of ['HTTP/1.1', 'HTTP/2'] as const)
    test(`are sent alike, in whole and in parts: ${protocol}`, async () => {
      for (const ask of asks)
        await compare(stage, { host: 'files.test', ...ask }, oneCase.conf, protocol, new Set());
    });
});
