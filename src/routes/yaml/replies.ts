// What browsers may ask across origins, and how replies are compressed.

import { isSeq, type Node } from 'yaml';
import type { Compress, Policy, TextOrPattern } from '../../../proxy/rules/model.ts';
import { quote } from '../../config/values.ts';
import {
  isOff,
  isOn,
  readBoolean,
  readChoice,
  readFields,
  readList,
  readSeconds,
  readSize,
  readStrings,
} from './fields.ts';
import { readNames } from './headers.ts';
import { keys } from './keys.ts';
import { patternOf, type Reading } from './reading.ts';

const METHODS = ['GET', 'HEAD', 'POST'];

export function readCors(node: Node, reading: Reading): Policy {
  if (isOff(node)) return { cors: false };
  const { mistakes } = reading;
  const fields = readFields(node, keys.cors, '"cors"', mistakes);
  const originsNode = fields?.require(
    'origins',
    '"cors" has no "origins"',
    'wants a list of them, as in https://app.example.com',
  );
  if (fields === undefined || originsNode === undefined) return {};
  const origins = readOrigins(originsNode, reading);
  const [methods, headers, expose] = [fields.find('methods'), fields.find('headers'), fields.find('expose')];
  const credentials = readBoolean(fields, 'credentials', mistakes);
  const maxAgeSeconds = readSeconds(fields, 'max_age', mistakes);
  if (credentials === true && origins.some((one) => one.kind === 'text' && one.text === '*'))
    mistakes.at(
      originsNode,
      "any origin could ask with the visitor's credentials",
      'wants the origins that may, or no "credentials"',
    );
  return {
    cors: {
      origins,
      methods: methods === undefined ? METHODS : readMethods(methods, '"methods"', reading),
      ...(headers !== undefined && { headers: readNames(headers, '"headers"', reading) }),
      ...(expose !== undefined && { expose: readNames(expose, '"expose"', reading) }),
      ...(credentials !== undefined && { credentials }),
      ...(maxAgeSeconds !== undefined && { maxAgeSeconds }),
    },
  };
}

function readOrigins(node: Node, reading: Reading): TextOrPattern[] {
  return readStrings(node, '"origins"', 'https://app.example.com', reading.mistakes).flatMap(
    (text): TextOrPattern[] => {
      if (text.startsWith('~')) {
        const pattern = patternOf(text.slice(1), node, reading);
        return pattern === undefined ? [] : [{ kind: 'pattern', pattern }];
      }
      // As browsers send it (RFC 6454 §6.1): no path, lower case.
      if (text === '*' || /^[a-z][a-z0-9+.-]*:\/\/[^/\s?#A-Z]+$/.test(text)) return [{ kind: 'text', text }];
      reading.mistakes.at(
        node,
        `${quote(text)} is not an origin`,
        'wants scheme and host in lower case without a path, as in https://app.example.com, "*", or ~ and an expression',
      );
      return [];
    },
  );
}

/** In upper case, as they are sent. */
export function readMethods(node: Node, subject: string, { mistakes }: Reading): string[] {
  return readStrings(node, subject, 'GET', mistakes).filter((method) => {
    if (/^[A-Z][A-Z-]{0,31}$/.test(method)) return true;
    mistakes.at(node, `${quote(method)} is no method`, 'wants upper case, as in GET');
    return false;
  });
}

const ENCODINGS = ['zstd', 'br', 'gzip'] as const;
/** What is text, or as good as. */
const TYPES = [
  'text/html',
  'text/css',
  'text/plain',
  'text/xml',
  'text/javascript',
  'text/markdown',
  'text/csv',
  'application/javascript',
  'application/json',
  'application/ld+json',
  'application/manifest+json',
  'application/problem+json',
  'application/xml',
  'application/rss+xml',
  'application/atom+xml',
  'application/xhtml+xml',
  'application/wasm',
  'image/svg+xml',
  'font/ttf',
  'font/otf',
];
const USUAL: Compress = { encodings: ENCODINGS, types: TYPES, minBytes: 1024, vary: true, viaProxies: true };

/** true, a list of encodings, or a mapping. */
export function readCompress(node: Node, reading: Reading): Policy {
  if (isOff(node)) return { compress: false };
  if (isOn(node)) return { compress: USUAL };
  const { mistakes } = reading;
  if (isSeq(node)) return { compress: { ...USUAL, encodings: readEncodings(node, reading) } };
  const fields = readFields(node, keys.compress, '"compress"', mistakes);
  if (fields === undefined) return {};
  const [encodings, types, least] = [fields.find('encodings'), fields.find('types'), fields.find('min_size')];
  return {
    compress: {
      ...USUAL,
      ...(encodings !== undefined && { encodings: readEncodings(encodings, reading) }),
      ...(types !== undefined && { types: readTypes(types, reading) }),
      ...(least !== undefined && { minBytes: readSize(least, '"min_size"', mistakes) ?? USUAL.minBytes }),
    },
  };
}

function readEncodings(node: Node, { mistakes }: Reading): (typeof ENCODINGS)[number][] {
  const items = readList(node, '"encodings"', ENCODINGS.length, mistakes);
  return items.flatMap((item) => readChoice(item, 'encoding', ENCODINGS, mistakes) ?? []);
}

function readTypes(node: Node, { mistakes }: Reading): string[] {
  return readStrings(node, '"types"', 'text/html', mistakes).filter((type) => {
    if (type === '*' || /^[a-z0-9!#$&^_.+-]+\/[a-z0-9!#$&^_.+-]+$/.test(type)) return true;
    mistakes.at(
      node,
      `${quote(type)} is no media type`,
      'wants lower case without parameters, as in text/html',
    );
    return false;
  });
}
