// root, alias, index, try_files, types and what else says which files answer and as what.

import type { FilePolicy, TryFiles } from '../../../proxy/rules/model.ts';
import { quote } from '../../config/values.ts';
import type { Directive } from './blocks.ts';
import { given, type Level, type Reading } from './reading.ts';
import { readCount } from './values.ts';

/** What relative paths begin at, as in nginx's image. */
const PREFIX = '/etc/nginx/';

export function readFilePolicy(level: Level, reading: Reading): FilePolicy {
  const types = level.all('types');
  const index = level.all('index').flatMap(({ args }) => args);
  return given<FilePolicy>({
    root: readRoot(level, reading),
    index: index.length === 0 ? undefined : index.map((word) => reading.template(word)),
    autoindex: level.isOn('autoindex'),
    types:
      types.length === 0
        ? undefined
        : readTypes(
            types.flatMap(({ block }) => block!),
            reading,
          ),
    defaultType: level.value('default_type')?.text,
    charset: readCharset(level, reading),
    etag: level.isOn('etag'),
  });
}

function readRoot(level: Level, reading: Reading): FilePolicy['root'] {
  const root = level.one('root');
  const alias = level.one('alias');
  if (root !== undefined && alias !== undefined)
    return reading.refuse(alias.name, 'alias stands beside root', 'wants one of them');
  const word = (root ?? alias)?.args[0];
  if (word === undefined) return undefined;
  if (/\$\{?(document_root|realpath_root)\b/.test(word.text))
    return reading.refuse(word, 'a root cannot be told by itself', 'write the path out');
  const path = word.text.startsWith('/') || word.text.startsWith('$') ? word.text : PREFIX + word.text;
  return { path: reading.template(word, path), ...(alias !== undefined && { alias: true }) };
}

function readTypes(lines: readonly Directive[], reading: Reading): Record<string, string> {
  const types: Record<string, string> = {};
  for (const { name, args, block } of lines) {
    if (block !== undefined)
      reading.refuse(name, `${quote(name.text)} has a block among types`, 'wants a type and its extensions');
    if (args.length === 0)
      reading.refuse(name, `${quote(name.text)} has no extensions`, 'write them behind it');
    for (const { text } of args) types[text.toLowerCase()] = name.text;
  }
  return types;
}

function readCharset(level: Level, reading: Reading): string | undefined {
  const word = level.value('charset');
  if (word === undefined || word.text === 'off') return undefined;
  if (word.text.includes('$')) return reading.refuse(word, 'the charset holds variables', 'write its name');
  return word.text;
}

export function readTryFiles(level: Level, reading: Reading): TryFiles | undefined {
  const directive = level.one('try_files');
  if (directive === undefined) return undefined;
  const last = directive.args.at(-1)!;
  const paths = directive.args.slice(0, -1).map((word) => reading.template(word));
  if (last.text.startsWith('@')) reading.leadsTo(last);
  if (last.text.startsWith('@')) return { paths, last: { kind: 'named', name: last.text } };
  if (!last.text.startsWith('=')) return { paths, last: { kind: 'uri', uri: reading.template(last) } };
  const status = readCount(last.text.slice(1), 999);
  if (status === undefined || status < 200)
    return reading.refuse(last, `${quote(last.text)} is not a status`, 'wants one as in =404');
  return { paths, last: { kind: 'status', status } };
}
