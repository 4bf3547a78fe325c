// The storage that replicas share: which engine, where, whom it trusts, and the key that seals what is kept there.

import type { Environment } from './environment.ts';
import { type ReadFile, readRoots } from './files.ts';
import {
  parseAddress,
  parseChoice,
  parseCount,
  parseHost,
  parseSwitch,
  quote,
  splitWords,
  ValueError,
} from './values.ts';

interface Address {
  readonly host: string;
  readonly port: number;
}

export type StorePlace = PostgresPlace | RedisPlace | S3Place;

export interface PostgresPlace extends Address {
  readonly engine: 'postgres';
  readonly database: string;
  readonly user: string;
  readonly tls: boolean;
}

export interface RedisPlace {
  readonly engine: 'redis';
  readonly nodes: readonly [Address, ...Address[]];
  readonly mode: 'single' | 'cluster' | { readonly sentinel: string };
  readonly database: number;
  readonly user: string | undefined;
  readonly tls: boolean;
}

export interface S3Place {
  readonly engine: 's3';
  readonly endpoint: string;
  readonly region: string;
  readonly bucket: string;
  readonly prefix: string;
  readonly accessKeyId: string;
  readonly tls: boolean;
}

export interface StoreSettings {
  readonly place: StorePlace;
  /** Secret: of the user, or the secret access key. */
  readonly password: string | undefined;
  /** PEM of roots, trusted in the place of the public ones. */
  readonly ca: string | undefined;
  /** Secret: of 32 bytes or more, the first seals. Undefined: the key comes from the KMS. */
  readonly keys: readonly [Buffer, ...Buffer[]] | undefined;
  /** Of the key from the KMS: this one seals, those before it open as well. */
  readonly generation: number;
}

const OTHERS = ['STORE_PASSWORD', 'STORE_CA_FILE', 'STORE_KEY', 'STORE_KEY_GENERATION'] as const;
const SCHEMES = 'postgres://, redis://, rediss://, s3://';

/** Undefined: everything is kept in files. */
export function readStore(environment: Environment, readFile: ReadFile): StoreSettings | undefined {
  const url = environment.read('STORE_URL', parseStoreUrl);
  const password = environment.read('STORE_PASSWORD', (text) => text);
  const ca = environment.read('STORE_CA_FILE', (path) => readRoots(path, readFile));
  const keys = environment.read('STORE_KEY', parseKeys);
  const generation = environment.read('STORE_KEY_GENERATION', (text) => parseCount(text, 1, 100));
  if (!environment.has('STORE_URL')) {
    for (const name of OTHERS)
      if (environment.has(name)) environment.warn(name, 'does nothing: STORE_URL is not set');
    return undefined;
  }
  if (keys !== undefined && generation !== undefined)
    environment.warn('STORE_KEY_GENERATION', 'does nothing: STORE_KEY is set, and the first key in it seals');
  if (url?.password !== undefined && password !== undefined)
    environment.warn('STORE_PASSWORD', 'is not used: STORE_URL has a password');
  if (url === undefined) return undefined;
  if (!url.place.tls) {
    const what =
      'the connection is in the clear: who is on the way sees the password, and can delay or drop what is kept';
    environment.warn('STORE_URL', `${what} (it cannot be read or changed unnoticed, it is sealed)`);
    if (ca !== undefined) environment.warn('STORE_CA_FILE', 'does nothing: the connection is in the clear');
  }
  return {
    place: url.place,
    password: url.password ?? password,
    ca,
    keys,
    generation: generation ?? 1,
  };
}

interface StoreUrl {
  readonly place: StorePlace;
  readonly password: string | undefined;
}

function parseStoreUrl(text: string): StoreUrl {
  const url = URL.parse(text);
  if (url === null) throw new ValueError('is not a URL', `wants one that begins with ${SCHEMES}`);
  const password = url.password === '' ? undefined : decoded(url.password);
  switch (url.protocol) {
    case 'postgres:':
    case 'postgresql:':
      return { place: postgresPlace(url), password };
    case 'redis:':
    case 'rediss:':
      return { place: redisPlace(url), password };
    case 's3:':
      return { place: s3Place(url), password };
    default:
      throw new ValueError(`${quote(url.protocol)} is no storage that is known`, `wants one of ${SCHEMES}`);
  }
}

function postgresPlace(url: URL): PostgresPlace {
  const { sslmode = 'verify-full' } = parametersOf(url, ['sslmode']);
  // `require` of libpq encrypts for whoever answers.
  const mode = parseChoice(sslmode, ['verify-full', 'disable']);
  const database = decoded(url.pathname.slice(1));
  if (database === '' || database.includes('/'))
    throw new ValueError('names no database', 'wants postgres://user@host/database');
  if (url.username === '') throw new ValueError('names no user', 'wants postgres://user@host/database');
  return {
    engine: 'postgres',
    ...addressOf(url, 5432),
    database,
    user: decoded(url.username),
    tls: mode !== 'disable',
  };
}

function redisPlace(url: URL): RedisPlace {
  const { nodes = '', sentinel, cluster = 'false' } = parametersOf(url, ['nodes', 'sentinel', 'cluster']);
  const isCluster = parseSwitch(cluster);
  if (sentinel !== undefined && isCluster)
    throw new ValueError('names a sentinel and a cluster', 'wants one of the two');
  const more = splitWords(nodes).map((each) => parseAddress(each, REDIS_PORT));
  if (more.length > 0 && sentinel === undefined && !isCluster)
    throw new ValueError('has nodes', 'wants sentinel=NAME or cluster=true beside them');
  const path = url.pathname.slice(1);
  const database = path === '' ? 0 : parseCount(path, 0, 10_000);
  if (isCluster && database !== 0)
    throw new ValueError(`names database ${database}`, 'a cluster has the database 0 alone');
  return {
    engine: 'redis',
    nodes: [addressOf(url, REDIS_PORT), ...more],
    mode: sentinel !== undefined ? { sentinel } : isCluster ? 'cluster' : 'single',
    database,
    user: url.username === '' ? undefined : decoded(url.username),
    tls: url.protocol === 'rediss:',
  };
}

const REDIS_PORT = 6379;

function s3Place(url: URL): S3Place {
  const { endpoint, region } = parametersOf(url, ['endpoint', 'region']);
  const wanted = 'wants s3://KEY@bucket/prefix?endpoint=https://…&region=…';
  const service = URL.parse(endpoint ?? '');
  if (service === null || !['https:', 'http:'].includes(service.protocol) || service.search !== '')
    throw new ValueError('names no endpoint', wanted);
  if (service.username !== '' || service.password !== '')
    throw new ValueError('has a user in its endpoint', wanted);
  if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(url.host)) throw new ValueError('names no bucket', wanted);
  if (url.username === '') throw new ValueError('names no access key', wanted);
  const prefix = decoded(url.pathname).replace(/^\/+|\/+$/g, '');
  if (!/^[\w.!*'()/-]*$/.test(prefix)) throw new ValueError('has a prefix of odd characters', wanted);
  return {
    engine: 's3',
    endpoint: service.href,
    region: region ?? 'us-east-1',
    bucket: url.host,
    prefix,
    accessKeyId: decoded(url.username),
    tls: service.protocol === 'https:',
  };
}

function addressOf({ hostname, port }: URL, defaultPort: number): Address {
  return port === ''
    ? { host: parseHost(hostname), port: defaultPort }
    : parseAddress(`${hostname}:${port}`, defaultPort);
}

/** A parameter that means nothing would be one that was meant otherwise. */
function parametersOf<const Name extends string>(
  url: URL,
  known: readonly Name[],
): Partial<Record<Name, string>> {
  const found = Object.fromEntries(url.searchParams);
  const odd = Object.keys(found).find((name) => !(known as readonly string[]).includes(name));
  if (odd !== undefined)
    throw new ValueError(`has a parameter ${quote(odd)}`, `wants none but ${known.join(', ')}`);
  return found as Partial<Record<Name, string>>;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new ValueError('has a % that begins no escape', 'write %25 for it');
  }
}

const KEY_BYTES = 32;

/** In hex or base64, as `openssl rand -base64 32` gives them. */
function parseKeys(text: string): readonly [Buffer, ...Buffer[]] {
  const [first, ...others] = splitWords(text).map((word) =>
    /^[0-9a-f]+$/i.test(word) && word.length === 2 * KEY_BYTES
      ? Buffer.from(word, 'hex')
      : Buffer.from(word, 'base64'),
  );
  if (first !== undefined && [first, ...others].every(({ length }) => length >= KEY_BYTES))
    return [first, ...others];
  throw new ValueError(
    `does not hold keys of ${KEY_BYTES} bytes`,
    'wants what openssl rand -base64 32 prints, or several of these, of which the first seals',
  );
}
