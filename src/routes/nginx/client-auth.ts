// Which servers ask clients for a certificate (ssl_verify_client and kin), and by which authorities it is judged.

import type { ClientAuth } from '../../../proxy/rules/model.ts';
import { isRevocationList } from '../../config/files.ts';
import { quote } from '../../config/values.ts';
import { readPem } from './forwarding.ts';
import type { Word } from './lexer.ts';
import { given, type Level, type Reading } from './reading.ts';
import { readCount } from './values.ts';

const MODES = {
  __proto__: null as never,
  on: 'require',
  optional: 'optional',
  optional_no_ca: 'unverified',
} as const;
/** nginx's. */
const USUAL_DEPTH = 1;

/** `outer`: the http level. */
export function readClientAuth(level: Level, outer: Level, reading: Reading): ClientAuth | undefined {
  const value = (name: string) => level.value(name) ?? outer.value(name);
  const verify = value('ssl_verify_client');
  if (verify === undefined || verify.text === 'off') return undefined;
  const mode = MODES[verify.text as 'on'] as ClientAuth['mode'] | undefined;
  if (mode === undefined)
    return reading.refuse(
      verify,
      `${quote(verify.text)} is no way to verify clients`,
      'wants on, off, optional or optional_no_ca',
    );
  const pems = [value('ssl_client_certificate'), value('ssl_trusted_certificate')];
  const authorities = pems.flatMap((word) => (word && readPem(word, true, reading)) ?? []);
  if (pems.every((word) => word === undefined) && mode !== 'unverified')
    return reading.refuse(
      verify,
      'ssl_verify_client has no authorities to verify by',
      'write ssl_client_certificate with a PEM file',
    );
  const depth = value('ssl_verify_depth');
  const crl = value('ssl_crl');
  return given<ClientAuth>({
    mode,
    authorities: authorities.join('\n'),
    depth: depth === undefined ? USUAL_DEPTH : readDepth(depth, reading),
    crl: crl && readCrl(crl, reading),
  }) as ClientAuth;
}

function readDepth(word: Word, reading: Reading): number | undefined {
  return (
    readCount(word.text, 100) ??
    reading.refuse(word, `${quote(word.text)} is not a number of authorities`, 'wants a whole number')
  );
}

function readCrl(word: Word, reading: Reading): string | undefined {
  const text = reading.readNamed(word);
  if (text === undefined || isRevocationList(text)) return text;
  return reading.refuse(
    word,
    `${quote(word.text)} holds no list of revoked certificates`,
    'wants a PEM file',
  );
}
