// What answers: an upstream, a redirect, a fixed reply, files; and what is done to a request on its way to them.

import { isMap, isScalar, type Node } from 'yaml';
import { extensionOf, mediaTypes } from '../../../proxy/rules/media.ts';
import type {
  Canary,
  Content,
  Instruction,
  LocationMatch,
  Policy,
  Redirect,
  Template,
} from '../../../proxy/rules/model.ts';
import { quote } from '../../config/values.ts';
import { readAdmin } from './admin.ts';
import type { ContentDraft } from './content-draft.ts';
import {
  type Fields,
  isOn,
  readBoolean,
  readFields,
  readInteger,
  readList,
  readString,
  readStrings,
} from './fields.ts';
import { readHeaderFields } from './headers.ts';
import { keys } from './keys.ts';
import { readWhen } from './match.ts';
import { knowsClients, pathOf, patternOf, type Reading, readNamed, readTemplate } from './reading.ts';
import { type Destination, type Manner, readDestination, upstreamOf } from './upstream.ts';
import { isPlainGroup } from './upstreams.ts';

const KINDS = ['upstream', 'redirect', 'respond', 'files', 'admin'] as const;

/** The kinds that are given. More than one is a mistake, which is said here. */
export function contentKinds(fields: Fields, { mistakes }: Reading): readonly (typeof KINDS)[number][] {
  const given = KINDS.filter((kind) => fields.find(kind) !== undefined);
  const [first, second] = given;
  if (second !== undefined)
    mistakes.at(fields.find(second), `"${first}" and "${second}" are both given`, 'wants one of them');
  return given;
}

export function readContent(
  kind: (typeof KINDS)[number],
  fields: Fields,
  match: LocationMatch,
  { manner, policy: around }: { readonly manner: Manner; readonly policy: Policy },
  reading: Reading,
): ContentDraft | undefined {
  const node = fields.find(kind)!;
  refuseStrays(kind, fields, reading);
  const rewrite = readRewrites(fields.find('rewrite'), reading);
  const strip = readStrip(fields.find('strip_prefix'), match, reading);
  if (strip !== undefined && rewrite.length > 0)
    reading.mistakes.at(
      fields.find('strip_prefix'),
      '"rewrite" and "strip_prefix" are both given',
      'wants one of them',
    );
  if (kind === 'upstream') return readForwarding(node, fields, strip, rewrite, manner, reading);
  if (kind === 'admin') return readAdmin(node, fields, match, { policy: around, manner }, reading);
  if (kind === 'files') return readFiles(node, fields, strip, rewrite, match, reading);
  const content = kind === 'redirect' ? readRedirect(node, reading) : readRespond(node, reading);
  if (content === undefined) return undefined;
  return { content: () => content, destination: undefined, isPlain: false, rewrite, policy: {}, node };
}

/** What is said of a way that leads nowhere. */
function refuseStrays(kind: (typeof KINDS)[number], fields: Fields, { mistakes }: Reading): void {
  const wants = { canary: ['upstream'], strip_prefix: ['upstream', 'files'], rewrite: ['upstream', 'files'] };
  for (const [key, kinds] of Object.entries(wants)) {
    const stray = fields.find(key);
    if (stray !== undefined && !kinds.includes(kind))
      mistakes.at(stray, `"${key}" does nothing beside "${kind}"`, `goes with "${kinds.join('" or "')}"`);
  }
}

// Upstreams

function readForwarding(
  node: Node,
  fields: Fields,
  strip: string | undefined,
  rewrite: readonly Instruction[],
  manner: Manner,
  reading: Reading,
): ContentDraft | undefined {
  const destination = readDestination(node, manner, reading);
  const canaryNode = fields.find('canary');
  const canary = canaryNode && readCanary(canaryNode, destination, manner, reading);
  if (destination === undefined) return undefined;
  const simple = strip === undefined && rewrite.length === 0 && canaryNode === undefined;
  const isPlain = simple && (destination.kind === 'plain' || isPlainGroup(destination.upstream.group));
  return {
    content() {
      const { group, protocol, host } =
        destination.kind === 'named'
          ? destination.upstream
          : upstreamOf(destination.settings, reading.shared);
      return {
        kind: 'proxy',
        upstream: group.name,
        protocol,
        host,
        origin: reading.mistakes.originOf(node),
        ...(strip !== undefined && { stripPrefix: strip }),
        ...(canary !== undefined && { canary }),
      };
    },
    destination,
    isPlain,
    rewrite,
    policy: {},
    node,
  };
}

function readCanary(
  node: Node,
  main: Destination | undefined,
  manner: Manner,
  reading: Reading,
): Canary | undefined {
  const { mistakes, shared } = reading;
  const fields = readFields(node, keys.canary, '"canary"', mistakes);
  const target = fields?.require('upstream', '"canary" has no "upstream"', 'wants where the share goes');
  const share = fields?.require('percent', '"canary" has no "percent"', 'wants a share, as in percent: 5');
  if (fields === undefined || target === undefined || share === undefined) return undefined;
  const percent = readPercent(share, reading);
  const destination = readDestination(target, manner, reading);
  const keyNode = fields.find('key');
  const key = keyNode && readTemplate(keyNode, '"key"', '$cookie_session', reading);
  if (keyNode === undefined && percent !== 0) knowsClients(node, '"canary" without a "key"', reading);
  const whenNode = fields.find('when');
  const when = whenNode && readWhen(whenNode, reading);
  if (destination === undefined || percent === undefined) return undefined;
  const upstream =
    destination.kind === 'named' ? destination.upstream : upstreamOf(destination.settings, shared);
  const speaks = main?.kind === 'named' ? main.upstream.protocol : main?.settings.protocol;
  const spoken = speaks === 'auto' ? 'http' : speaks;
  if (spoken !== undefined && spoken !== upstream.protocol)
    mistakes.at(target, `speaks ${upstream.protocol}, the others ${spoken}`, 'wants one protocol');
  return {
    upstream: upstream.group.name,
    percent,
    ...(key !== undefined && { key }),
    ...(when !== undefined && { when }),
  };
}

function readPercent(node: Node, { mistakes }: Reading): number | undefined {
  const value = isScalar(node) ? node.value : undefined;
  if (typeof value === 'number' && value >= 0 && value <= 100) return Math.round(value * 100) / 100;
  mistakes.at(node, '"percent" is not a share', 'wants a number from 0 to 100, without quotes');
  return undefined;
}

// On the way

const MOST_REWRITES = 100;

/** The first that fits is done; the location stays. */
function readRewrites(node: Node | undefined, reading: Reading): Instruction[] {
  if (node === undefined) return [];
  const { mistakes } = reading;
  const items = isMap(node) ? [node] : readList(node, '"rewrite"', MOST_REWRITES, mistakes);
  return items.flatMap((item): Instruction[] => {
    const fields = readFields(item, keys.rewrite, '"rewrite"', mistakes);
    const regex = fields?.require('regex', '"rewrite" has no "regex"', 'wants one, as in ^/old/(.*)$');
    const to = fields?.require('to', '"rewrite" has no "to"', 'wants a path, as in /new/$1');
    if (regex === undefined || to === undefined) return [];
    const text = readString(regex, '"regex"', '^/old/(.*)$', mistakes);
    const pattern = text === undefined ? undefined : patternOf(text, regex, reading);
    const template = readTemplate(to, '"to"', '/new/$1', reading);
    if (pattern === undefined || template === undefined) return [];
    const [first] = template;
    if (typeof first !== 'string' ? first?.name === 'scheme' : !first.startsWith('/')) {
      mistakes.at(to, '"to" is no path', 'wants one from / on; another host is reached with "redirect"');
      return [];
    }
    return [{ do: 'rewrite', pattern, to: template, flag: 'break', origin: mistakes.originOf(item) }];
  });
}

/** true: what the path itself says. */
function readStrip(node: Node | undefined, match: LocationMatch, { mistakes }: Reading): string | undefined {
  if (node === undefined) return undefined;
  if (isOn(node)) {
    if (match.kind === 'prefix' || match.kind === 'segments') return match.path;
    mistakes.at(
      node,
      'this path has no prefix that could be stripped',
      'wants the prefix itself, as in /api',
    );
    return undefined;
  }
  const text = readString(node, '"strip_prefix"', '/api', mistakes);
  if (text === undefined || /^\/[!-~]*$/.test(text)) return text;
  mistakes.at(node, `${quote(text)} is not a path`, 'wants true, or a prefix as in /api');
  return undefined;
}

// Answers of our own

const STATUSES = [301, 302, 303, 307, 308] as const;

function readRedirect(node: Node, reading: Reading): Redirect | undefined {
  const { mistakes } = reading;
  const fields = isMap(node) ? readFields(node, keys.redirect, '"redirect"', mistakes) : undefined;
  if (isMap(node) && fields === undefined) return undefined;
  const toNode =
    fields === undefined
      ? node
      : fields.require(
          'to',
          '"redirect" has no "to"',
          'wants a URL, as in https://www.example.com$request_uri',
        );
  const to = toNode && readTemplate(toNode, '"redirect"', 'https://www.example.com$request_uri', reading);
  const statusNode = fields?.find('status');
  const status = readInteger(statusNode, '"status"', [301, 308], mistakes) ?? 302;
  const known = STATUSES.find((one) => one === status);
  if (known === undefined)
    mistakes.at(statusNode, `${status} is no redirect`, `wants ${STATUSES.join(', ')}`);
  if (toNode === undefined || to === undefined || known === undefined) return undefined;
  const [first] = to;
  if (first === undefined || (typeof first === 'string' && !/^(?:https?:\/\/|\/)/.test(first))) {
    mistakes.at(toNode, '"redirect" leads nowhere', 'wants http://, https:// or a path from / on');
    return undefined;
  }
  return { kind: 'redirect', status: known, to };
}

/** A status alone, or a mapping. */
function readRespond(node: Node, reading: Reading): Content | undefined {
  const { mistakes } = reading;
  const origin = mistakes.originOf(node);
  if (!isMap(node)) {
    const status = readInteger(node, '"respond"', [200, 599], mistakes);
    return status === undefined ? undefined : { kind: 'respond', status, contentType: PLAIN_TEXT, origin };
  }
  const fields = readFields(node, keys.respond, '"respond"', mistakes);
  if (fields === undefined) return undefined;
  const status = readInteger(fields.find('status'), '"status"', [200, 599], mistakes) ?? 200;
  const headers = fields.find('headers');
  const { body, contentType } = readBody(fields, reading);
  return {
    kind: 'respond',
    status,
    ...(headers !== undefined && {
      headers: readHeaderFields(headers, '"headers"', reading).map(({ name, value }) => ({ name, value })),
    }),
    ...(body !== undefined && { body }),
    contentType,
    origin,
  };
}

const PLAIN_TEXT = 'text/plain; charset=utf-8';

function readBody(fields: Fields, reading: Reading): { body: Template | undefined; contentType: string } {
  const { mistakes } = reading;
  const [bodyNode, fileNode, typeNode] = [fields.find('body'), fields.find('file'), fields.find('type')];
  if (bodyNode !== undefined && fileNode !== undefined)
    mistakes.at(fileNode, '"body" and "file" are both given', 'wants one of them');
  const type = typeNode && readString(typeNode, '"type"', 'text/html; charset=utf-8', mistakes);
  if (type !== undefined && !/^[\x20-\x7e]{1,256}$/.test(type))
    mistakes.at(typeNode, `${quote(type)} is no media type`, 'wants one as in text/html');
  if (fileNode === undefined) {
    const body = bodyNode && readTemplate(bodyNode, '"body"', 'all is well', reading);
    return { body, contentType: type ?? PLAIN_TEXT };
  }
  const text = readNamed(fileNode, '"file"', reading);
  const extension = extensionOf(isScalar(fileNode) ? String(fileNode.value) : '');
  return {
    // What a file holds is sent as it is: a $ in it is no variable.
    body: text === undefined ? undefined : [text],
    contentType: type ?? mediaTypes.get(extension) ?? 'application/octet-stream',
  };
}

/** The root alone, or a mapping. */
function readFiles(
  node: Node,
  outer: Fields,
  strip: string | undefined,
  rewrite: readonly Instruction[],
  match: LocationMatch,
  reading: Reading,
): ContentDraft | undefined {
  const { mistakes } = reading;
  const fields = isMap(node) ? readFields(node, keys.files, '"files"', mistakes) : undefined;
  if (isMap(node) && fields === undefined) return undefined;
  const rootNode =
    fields === undefined
      ? node
      : fields.require('root', '"files" has no "root"', 'wants a folder, as in /srv/www');
  const root = rootNode && pathOf(rootNode, '"files"', reading);
  const indexNode = fields?.find('index');
  const index = indexNode && readStrings(indexNode, '"index"', 'index.html', mistakes);
  const fallbackNode = fields?.find('fallback');
  const fallback = fallbackNode && readFallback(fallbackNode, reading);
  const listing = fields && readBoolean(fields, 'listing', mistakes);
  if (strip !== undefined && !stripsWhole(strip, match))
    mistakes.at(
      outer.find('strip_prefix'),
      'files could be reached beside the root',
      'wants true, at a path with "under", or with a "prefix" that ends with /',
    );
  if (root === undefined) return undefined;
  return {
    content: () => ({
      kind: 'files',
      origin: mistakes.originOf(node),
      ...(fallback !== undefined && { fallback }),
      ...(listing !== undefined && { listing }),
    }),
    destination: undefined,
    isPlain: false,
    rewrite,
    policy: {
      root:
        strip === undefined
          ? { path: [root] }
          : { path: [strip.endsWith('/') ? `${root}/` : root], alias: true },
      autoindex: listing === true,
      charset: 'utf-8',
      ...(index !== undefined && { index: index.map((name) => [name]) }),
    },
    node,
  };
}

/** `/static` by bytes would make `/static../x` of it a path outside. */
function stripsWhole(strip: string, match: LocationMatch): boolean {
  if (match.kind === 'segments') return strip === match.path;
  return match.kind === 'prefix' && strip === match.path && strip.endsWith('/');
}

function readFallback(node: Node, { mistakes }: Reading): string | undefined {
  const text = readString(node, '"fallback"', '/index.html', mistakes);
  if (text === undefined) return undefined;
  if (/^[^\x00-\x1f]+$/.test(text) && !text.split('/').includes('..')) return text;
  mistakes.at(node, `${quote(text)} is not a file below the root`, 'wants one as in /index.html');
  return undefined;
}
