// The fields of a request on its way to the upstream: which of the client's stay behind, and which rules add.

import { percent } from './bytes.ts';
import type { Field, RequestHeaders, Run } from './compiled.ts';

export interface RequestFields {
  /** Lower-case names of which none of the client's passes. */
  readonly removed: ReadonlySet<string>;
  /** In the order of the rules. Neither Host nor what frames a message is among them. */
  readonly own: readonly Field[];
  /** Undefined: the client's. */
  readonly host: string | undefined;
  /** Whether the rules ask for an upgrade. */
  readonly upgrade: boolean;
}

/** Framing and the connection are the relay's own (RFC 9112 §6, RFC 9110 §7.6.1): rules cannot set them. */
const framing: ReadonlySet<string> = new Set([
  'connection',
  'content-length',
  'expect',
  'http2-settings',
  'keep-alive',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/** `more`: of a sub-request's reply, which wins over both. */
export function requestFields(
  run: Run,
  headers: RequestHeaders,
  more: readonly Field[] = NONE,
): RequestFields {
  const own: Field[] = [];
  let host: string | undefined;
  let upgradeTo = '';
  let connection = '';
  for (const { do: how, name, lower, value, field } of headers.own) {
    if (how === 'default' && run.facts.headers.all(lower).length > 0) continue;
    if (field !== undefined && lower !== 'host' && !framing.has(lower)) {
      own.push(field);
      continue;
    }
    const text = value(run);
    if (text === '') continue;
    if (lower === 'host') host = safeValue(text);
    else if (!framing.has(lower)) own.push({ name, value: safeValue(text) });
    else if (lower === 'upgrade') upgradeTo = text;
    else if (lower === 'connection') connection = text;
  }
  const upgrade = upgradeTo !== '' && /(?:^|,)\s*upgrade\s*(?:,|$)/i.test(connection);
  if (more.length === 0) return { removed: headers.removed, own, host, upgrade };
  const winning = new Set(more.map(({ name }) => name.toLowerCase()));
  return {
    removed: new Set([...headers.removed, ...winning]),
    own: [
      ...own.filter(({ name }) => !winning.has(name.toLowerCase())),
      ...more.filter(({ value }) => value !== ''),
    ],
    host,
    upgrade,
  };
}

const NONE: readonly Field[] = [];

/** Controls would end the line (RFC 9110 §5.5): they go as escapes. */
export function safeValue(text: string): string {
  if (!/[\x00-\x08\n-\x1f\x7f]/.test(text)) return text;
  return text.replaceAll(/[\x00-\x08\n-\x1f\x7f]/g, (byte) => percent[byte.charCodeAt(0)]!);
}
