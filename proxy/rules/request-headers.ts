// The fields of a request on its way to the upstream: which of the client's stay behind, and which rules add.

import { percent } from './bytes.ts';
import type { Field, RequestHeaders, Run } from './compiled.ts';
import { FieldNames, saidBits } from './field-names.ts';

export interface RequestFields {
  /** Lower-case names of which none of the client's passes. */
  readonly removed: FieldNames;
  /** In the order of the rules. Neither Host nor what frames a message is among them. */
  readonly own: readonly Field[];
  /** Undefined: the client's. */
  readonly host: string | undefined;
  /** What of what we say of a request the rules have said, or removed: bits of saidBit(). */
  readonly says: number;
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

/** `lower`: in lower case. */
export function isFraming(lower: string): boolean {
  return framing.has(lower);
}

/** `more`: of a sub-request's reply, which wins over both. */
export function requestFields(
  run: Run,
  headers: RequestHeaders,
  more: readonly Field[] = NONE,
): RequestFields {
  const own: Field[] = [];
  let { says } = headers;
  let host: string | undefined;
  let upgradeTo = '';
  let connection = '';
  for (const edit of headers.own) {
    const { lower } = edit;
    if (edit.do === 'default' && run.facts.headers.all(lower).length > 0) continue;
    if (edit.field !== undefined && lower !== 'host' && !edit.framing) {
      own.push(edit.field);
      says |= edit.says;
      continue;
    }
    const text = edit.value(run);
    if (text === '') continue;
    if (lower === 'host') host = safeValue(text);
    else if (!edit.framing) {
      own.push({ name: edit.name, value: safeValue(text) });
      says |= edit.says;
    } else if (lower === 'upgrade') upgradeTo = text;
    else if (lower === 'connection') connection = text;
  }
  const upgrade = upgradeTo !== '' && /(?:^|,)\s*upgrade\s*(?:,|$)/i.test(connection);
  if (more.length === 0) return { removed: headers.removed, own, host, says, upgrade };
  const winning = new Set(more.map(({ name }) => name.toLowerCase()));
  return {
    removed: new FieldNames([...headers.removed, ...winning]),
    own: [
      ...own.filter(({ name }) => !winning.has(name.toLowerCase())),
      ...more.filter(({ value }) => value !== ''),
    ],
    host,
    says: says | saidBits(winning),
    upgrade,
  };
}

const NONE: readonly Field[] = [];

/** Controls would end the line (RFC 9110 §5.5): they go as escapes. */
export function safeValue(text: string): string {
  if (isSafe(text)) return text;
  return text.replaceAll(/[\x00-\x08\n-\x1f\x7f]/g, (byte) => percent[byte.charCodeAt(0)]!);
}

function isSafe(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if ((code < 32 && code !== 9) || code === 127) return false;
  }
  return true;
}
