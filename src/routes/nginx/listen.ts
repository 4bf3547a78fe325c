// listen directives: they say which servers belong together, and nothing of where we listen.

import { isIPv4, isIPv6 } from 'node:net';
import { quote } from '../../config/values.ts';
import type { Directive } from './blocks.ts';
import type { Word } from './lexer.ts';
import type { Level, Reading } from './reading.ts';

export interface Listen {
  readonly word: Word;
  /** `*:443`, `[::]:443`, `192.0.2.1:80`: servers of one address are chosen by name. */
  readonly address: string;
  readonly isDefault: boolean;
  readonly isTls: boolean;
}

const OPTIONS =
  /^(default_server|default|ssl|http2|spdy|quic|proxy_protocol|bind|deferred|reuseport|(setfib|fastopen|backlog)=-?\d+|(rcvbuf|sndbuf)=\d+[kmg]?|accept_filter=\w+|ipv6only=(on|off)|so_keepalive=(on|off|[\w:]+)|multipath)$/i;

/** Without any, nginx listens on port 80. */
export function readListens(level: Level, reading: Reading): Listen[] {
  const directives = level.all('listen');
  if (directives.length === 0)
    return [{ word: level.directives[0]?.name ?? NOWHERE, address: '*:80', isDefault: false, isTls: false }];
  const seen = new Set<string>();
  return directives.flatMap((directive) => {
    const listen = readListen(directive, reading);
    if (listen === undefined) return [];
    if (seen.has(listen.address))
      reading.refuse(listen.word, `the server listens on ${listen.address} twice`, 'wants one of them');
    seen.add(listen.address);
    return [listen];
  });
}

const NOWHERE: Word = { text: '', file: '', line: 1, column: 1 };

function readListen({ args }: Directive, reading: Reading): Listen | undefined {
  const [where, ...options] = args as [Word, ...Word[]];
  for (const option of options)
    if (!OPTIONS.test(option.text))
      return reading.refuse(
        option,
        `${quote(option.text)} is no parameter of listen`,
        'wants ssl, default_server, http2 and the like',
      );
  const has = (name: string) => options.some(({ text }) => text === name);
  const address = readAddress(where.text);
  if (address === undefined)
    return reading.refuse(
      where,
      `${quote(where.text)} is no address to listen on`,
      'wants 443, 192.0.2.1:443 or [::]:443',
    );
  return {
    word: where,
    address,
    isDefault: has('default_server') || has('default'),
    isTls: has('ssl') || has('quic') || address.endsWith(':443'),
  };
}

function readAddress(text: string): string | undefined {
  if (text.startsWith('unix:')) return text;
  const found = /^(?:(\[[^\]]+\]|[^:]+?)(?::(\d{1,5}))?|(\d{1,5}))$/.exec(
    /^\d{1,5}$/.test(text) ? `*:${text}` : text,
  );
  if (found === null) return undefined;
  const [, host = '*', port = '80'] = found;
  if (Number(port) < 1 || Number(port) > 65_535) return undefined;
  const known =
    host === '*' || isIPv4(host) || isIPv6(host.replace(/^\[|\]$/g, '')) || /^[a-z][\w.-]*$/i.test(host);
  return known ? `${host === '0.0.0.0' ? '*' : host}:${port}` : undefined;
}
