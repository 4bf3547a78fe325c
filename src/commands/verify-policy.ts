// A policy file: what a reader expects of a host, as YAML; every mistake with its line and column.

import { createHash } from 'node:crypto';
import { dirname, resolve } from 'node:path';
import type { Expected, KeyProvider, TrustedSystem } from '../../evidence/verify/index.ts';
import { type TcbStatus, tcbStatuses } from '../../evidence/verify/tcb-info.ts';
import { describeMistake, type Mistake } from '../config/mistake.ts';
import { quote } from '../config/values.ts';
import { parseYaml } from '../routes/yaml/document.ts';
import {
  type Fields,
  readFields,
  readInteger,
  readList,
  readString,
  readStrings,
} from '../routes/yaml/fields.ts';
import { createMistakes, type Mistakes } from '../routes/yaml/mistakes.ts';
import { readNamedBytes, readNamedFile } from './named-file.ts';

type Node = Fields['node'];

const keys = {
  file: ['app', 'systems', 'tcb', 'key_providers', 'caa', 'ct'],
  app: ['id', 'compose'],
  system: ['mrtd', 'rtmr0', 'rtmr1', 'rtmr2', 'image'],
  tcb: ['states', 'advisories'],
  keyProvider: ['name', 'id'],
  caa: ['account', 'methods'],
  ct: ['sources', 'known'],
} as const;

const SHAPE = {
  empty: 'wants what you expect, as in "app:" with "compose:" below it',
  other: 'wants YAML 1.2 in the shape that docs/verification.md shows',
};
const MOST_ENTRIES = 100;
const MOST_SOURCES = 16;

/** Throws an Error with every mistake on a line of its own. */
export function readPolicyFile(path: string): Expected {
  const { expected, mistakes } = readPolicy(readNamedFile('--policy', path), path);
  if (mistakes.length > 0) throw new Error(mistakes.map(describeMistake).join('\n'));
  return expected;
}

interface Reading {
  readonly mistakes: Mistakes;
  /** Where relative paths begin. */
  readonly folder: string;
}

/** The shape is that of docs/policy.schema.json. */
export function readPolicy(text: string, path: string): { expected: Expected; mistakes: readonly Mistake[] } {
  const mistakes = createMistakes(text, path);
  const root = parseYaml(text, mistakes, SHAPE);
  const fields = root && readFields(root, keys.file, 'the policy', mistakes);
  const expected = fields === undefined ? {} : readExpected(fields, { mistakes, folder: dirname(path) });
  return { expected, mistakes: mistakes.sorted() };
}

function readExpected(fields: Fields, reading: Reading): Expected {
  const section = (key: keyof typeof keys & string) => {
    const node = fields.find(key);
    return node && readFields(node, keys[key], `"${key}"`, reading.mistakes);
  };
  const list = <T>(key: string, read: (node: Node) => T | undefined): T[] | undefined => {
    const node = fields.find(key);
    if (node === undefined) return undefined;
    return readList(node, `"${key}"`, MOST_ENTRIES, reading.mistakes).flatMap((item) => read(item) ?? []);
  };
  return {
    ...readApp(section('app'), reading),
    ...readTcb(section('tcb'), reading),
    systems: list('systems', (node) => readSystem(node, reading)),
    keyProviders: list('key_providers', (node) => readKeyProvider(node, reading)),
    caa: readCaa(section('caa'), reading),
    ct: readCt(section('ct'), reading),
  };
}

function readApp(fields: Fields | undefined, reading: Reading): Pick<Expected, 'appId' | 'composeHash'> {
  return {
    appId: fields && readHex(fields, 'id', 20, reading),
    composeHash: fields && readCompose(fields.find('compose'), reading),
  };
}

/** A hash, or the file itself, from the policy's folder on. */
function readCompose(node: Node | undefined, { mistakes, folder }: Reading): string | undefined {
  const text = node && readString(node, '"compose"', 'app-compose.json', mistakes);
  if (node === undefined || text === undefined) return undefined;
  if (/^[0-9a-f]{64}$/i.test(text)) return text.toLowerCase();
  try {
    const bytes = readNamedBytes('compose', resolve(folder, text));
    return createHash('sha256').update(bytes).digest('hex');
  } catch (error) {
    mistakes.at(node, (error as Error).message, 'wants the file that is deployed, or its SHA-256 in hex');
    return undefined;
  }
}

function readHex(fields: Fields, key: string, bytes: number, { mistakes }: Reading): string | undefined {
  const node = fields.find(key);
  const text = node && readString(node, `"${key}"`, 'ab'.repeat(bytes), mistakes);
  if (text === undefined) return undefined;
  if (text.length === bytes * 2 && /^[0-9a-f]+$/i.test(text)) return text.toLowerCase();
  mistakes.at(node, `"${key}" is ${quote(text)}`, `wants ${bytes} bytes in hex, in quotes if all are digits`);
  return undefined;
}

function readSystem(node: Node, reading: Reading): TrustedSystem | undefined {
  const fields = readFields(node, keys.system, 'a system', reading.mistakes);
  if (fields === undefined) return undefined;
  const register = (key: string) => readHex(fields, key, 48, reading);
  const [rtmr0, rtmr1, rtmr2] = [register('rtmr0'), register('rtmr1'), register('rtmr2')];
  return {
    mrtd: register('mrtd'),
    rtmrs: {
      ...(rtmr0 !== undefined && { 0: rtmr0 }),
      ...(rtmr1 !== undefined && { 1: rtmr1 }),
      ...(rtmr2 !== undefined && { 2: rtmr2 }),
    },
    image: readHex(fields, 'image', 32, reading),
  };
}

function readKeyProvider(node: Node, { mistakes }: Reading): KeyProvider | undefined {
  const fields = readFields(node, keys.keyProvider, 'a key provider', mistakes);
  const named = fields?.require('name', 'a key provider without a name', 'wants "name:", as in kms');
  const name = named && readString(named, '"name"', 'kms', mistakes);
  const given = fields?.find('id');
  const id = given && readString(given, '"id"', '3059…', mistakes);
  if (id !== undefined && !/^([0-9a-f]{2})+$/i.test(id))
    mistakes.at(given, `"id" is ${quote(id)}`, 'wants hex');
  return name === undefined ? undefined : { name, id: id?.toLowerCase() };
}

function readTcb(fields: Fields | undefined, { mistakes }: Reading): Pick<Expected, 'tcb' | 'advisories'> {
  const states = fields?.find('states');
  const advisories = fields?.find('advisories');
  return {
    tcb: states && readStates(states, mistakes),
    advisories: advisories && readStrings(advisories, '"advisories"', 'INTEL-SA-00837', mistakes),
  };
}

/** What is revoked is never allowed. */
const allowable: readonly TcbStatus[] = tcbStatuses.filter((status) => status !== 'Revoked');

function readStates(node: Node, mistakes: Mistakes): TcbStatus[] {
  return readStrings(node, '"states"', 'UpToDate', mistakes).flatMap((text) => {
    const status = allowable.find((one) => one === text);
    if (status === undefined)
      mistakes.at(
        node,
        `${quote(text)} is no state that can be allowed`,
        `wants some of ${allowable.join(', ')}`,
      );
    return status ?? [];
  });
}

function readCaa(fields: Fields | undefined, { mistakes }: Reading): Expected['caa'] {
  if (fields === undefined) return undefined;
  const account = fields.find('account');
  const methods = fields.find('methods');
  const uri = account && readString(account, '"account"', 'https://ca.example/acme/acct/1', mistakes);
  if (uri !== undefined && !/^https?:\/\/\S+$/.test(uri))
    mistakes.at(account, `"account" is ${quote(uri)}`, 'wants the URL of an ACME account');
  return {
    account: uri,
    methods: methods && readStrings(methods, '"methods"', 'dns-01', mistakes),
  };
}

function readCt(fields: Fields | undefined, { mistakes }: Reading): Expected['ct'] {
  if (fields === undefined) return undefined;
  const known = fields.find('known');
  return {
    sources: readInteger(fields.find('sources'), '"sources"', [1, MOST_SOURCES], mistakes),
    known: known && readKnown(known, mistakes),
  };
}

function readKnown(node: Node, mistakes: Mistakes): string[] {
  return readStrings(node, '"known"', '04d2…', mistakes).filter((text) => {
    if (/^[0-9a-f]+$/i.test(text)) return true;
    mistakes.at(
      node,
      `${quote(text)} is not hex`,
      'wants serial numbers, or the SHA-256 of keys or certificates',
    );
    return false;
  });
}
