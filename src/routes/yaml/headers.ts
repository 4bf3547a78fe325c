// Headers on the way to the app and back: set, add, remove, and presets of security headers.

import { isSeq, type Node } from 'yaml';
import type { HeaderEdit, HeaderField, Policy } from '../../../proxy/rules/model.ts';
import { quote } from '../../config/values.ts';
import { nearest } from '../../lib/spelling.ts';
import { type Fields, isOff, MOST_ITEMS, readFields, readList, readPairs, readStrings } from './fields.ts';
import { keys } from './keys.ts';
import { type Reading, readTemplate } from './reading.ts';

/** What a level says, joined with what holds around it: the innermost word on a name holds. */
export function readHeaderPolicy(fields: Fields, outer: Policy, reading: Reading): Policy {
  const { request, reply } = readHeaders(fields.find('headers'), reading);
  const presets = fields.find('security_headers');
  const before = outer.replyHeaders ?? [];
  const usual = before.filter((edit) => edit.do === 'default');
  const edits = before.filter((edit) => edit.do !== 'default');
  const defaults = presets === undefined ? usual : readPresets(presets, reading);
  return {
    ...(request.length > 0 ? { requestHeaders: joined(outer.requestHeaders ?? [], request) } : {}),
    ...(reply.length > 0 || presets !== undefined
      ? { replyHeaders: [...defaults, ...joined(edits, reply)] }
      : {}),
  };
}

export function joined(outer: readonly HeaderEdit[], own: readonly HeaderEdit[]): HeaderEdit[] {
  const replaced = new Set(own.filter(({ do: how }) => how !== 'add').map(({ name }) => name.toLowerCase()));
  return [...outer.filter(({ name }) => !replaced.has(name.toLowerCase())), ...own];
}

function readHeaders(node: Node | undefined, reading: Reading) {
  const fields = node && readFields(node, keys.headers, '"headers"', reading.mistakes);
  const request = fields?.find('request');
  const reply = fields?.find('response');
  return {
    request: request === undefined ? [] : readEdits(request, '"request"', reading),
    reply: reply === undefined ? [] : readEdits(reply, '"response"', reading),
  };
}

export function readEdits(node: Node, subject: string, reading: Reading): HeaderEdit[] {
  const { mistakes } = reading;
  const fields = readFields(node, keys.edits, subject, mistakes);
  if (fields === undefined) return [];
  const remove = fields.find('remove');
  const removed = remove === undefined ? [] : readNames(remove, '"remove"', reading);
  return [
    ...removed.map((name): HeaderEdit => ({ do: 'remove', name, origin: mistakes.originOf(remove) })),
    ...(['set', 'add'] as const).flatMap((how) => {
      const pairs = fields.find(how);
      if (pairs === undefined) return [];
      return readHeaderFields(pairs, `"${how}"`, reading).map(
        ({ origin, ...field }): HeaderEdit => ({ do: how, ...field, origin }),
      );
    }),
  ];
}

/** A value that is a list stands for several lines of that name. */
export function readHeaderFields(
  node: Node,
  subject: string,
  reading: Reading,
): (HeaderField & { readonly origin: string })[] {
  const { mistakes } = reading;
  return readPairs(node, subject, mistakes).flatMap(({ name, key, value }) => {
    const fits = isName(name, key, reading);
    const values = isSeq(value) ? readList(value, `${quote(name)}`, MOST_ITEMS, mistakes) : [value];
    return values.flatMap((one) => {
      const template = readTemplate(one, quote(name), 'text', reading);
      if (template === undefined || !fits) return [];
      if (template.some((part) => typeof part === 'string' && /[\x00-\x08\x0a-\x1f\x7f]/.test(part))) {
        mistakes.at(
          one,
          `the value of ${quote(name)} has a line end or a control character`,
          'wants one line',
        );
        return [];
      }
      return [{ name, value: template, origin: mistakes.originOf(key) }];
    });
  });
}

export function readNames(node: Node, subject: string, reading: Reading): string[] {
  const names = readStrings(node, subject, 'X-Powered-By', reading.mistakes);
  return names.filter((name) => isName(name, node, reading));
}

/** They belong to one connection, not to the message (RFC 9110 §7.6.1), or frame it (RFC 9112 §6). */
const NOT_OURS = new Set([
  'connection',
  'content-length',
  'keep-alive',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

function isName(name: string, node: Node, { mistakes }: Reading): boolean {
  // RFC 9110 §5.1.
  if (!/^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}$/.test(name)) {
    mistakes.at(node, `${quote(name)} is no name of a header`, 'wants one as in X-Frame-Options');
    return false;
  }
  if (!NOT_OURS.has(name.toLowerCase())) return true;
  mistakes.at(node, `${quote(name)} belongs to a connection, not to what goes through it`, 'take it away');
  return false;
}

const ONE_YEAR = 31_536_000;

/** A reply that has the header itself keeps its own. */
const PRESETS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  hsts: { 'Strict-Transport-Security': `max-age=${ONE_YEAR}` },
  'hsts-subdomains': { 'Strict-Transport-Security': `max-age=${ONE_YEAR}; includeSubDomains` },
  'hsts-preload': { 'Strict-Transport-Security': `max-age=${2 * ONE_YEAR}; includeSubDomains; preload` },
  nosniff: { 'X-Content-Type-Options': 'nosniff' },
  'frames-same-origin': {
    'X-Frame-Options': 'SAMEORIGIN',
    'Content-Security-Policy': "frame-ancestors 'self'",
  },
  'frames-none': { 'X-Frame-Options': 'DENY', 'Content-Security-Policy': "frame-ancestors 'none'" },
  referrer: { 'Referrer-Policy': 'strict-origin-when-cross-origin' },
  'no-referrer': { 'Referrer-Policy': 'no-referrer' },
  isolated: {
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cross-Origin-Resource-Policy': 'same-origin',
  },
  'no-devices': { 'Permissions-Policy': 'camera=(), geolocation=(), microphone=(), payment=(), usb=()' },
};

const SETS: Readonly<Record<string, readonly string[]>> = {
  basic: ['hsts', 'nosniff', 'frames-same-origin', 'referrer'],
  strict: ['hsts-subdomains', 'nosniff', 'frames-none', 'no-referrer', 'isolated', 'no-devices'],
};

export const presetNames: readonly string[] = [...Object.keys(SETS), ...Object.keys(PRESETS)];

function readPresets(node: Node, reading: Reading): HeaderEdit[] {
  if (isOff(node)) return [];
  const { mistakes } = reading;
  const fields = new Map<string, HeaderEdit>();
  for (const name of readStrings(node, '"security_headers"', 'basic', mistakes)) {
    const presets = Object.hasOwn(SETS, name) ? SETS[name]! : [name];
    for (const preset of presets) {
      if (!Object.hasOwn(PRESETS, preset)) {
        const like = nearest(preset, presetNames);
        const cure = like === undefined ? `wants ${presetNames.join(', ')}` : `was ${like} meant?`;
        mistakes.at(node, `${quote(preset)} is no preset of "security_headers"`, cure);
        continue;
      }
      for (const [header, value] of Object.entries(PRESETS[preset]!))
        fields.set(header, {
          do: 'default',
          name: header,
          value: [value],
          origin: mistakes.originOf(node),
        });
    }
  }
  return [...fields.values()];
}
