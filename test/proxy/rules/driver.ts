// Carries out the steps of a run of rules without a socket: a disk that is a list of paths, an upstream that is a function.

import { createHash } from 'node:crypto';
import { compile } from '../../../proxy/rules/compile.ts';
import type { CompiledRules, Facts, Field, Fields, Reply } from '../../../proxy/rules/compiled.ts';
import { createBuckets, createSeats } from '../../../proxy/rules/limits.ts';
import type { Location, RuleSet, Site, Template } from '../../../proxy/rules/model.ts';
import { isPatternFault, readPattern } from '../../../proxy/rules/pattern.ts';
import { beginRun, type Watcher } from '../../../proxy/rules/run.ts';
import type { Forward, Resumable, Step } from '../../../proxy/rules/step.ts';
import { parseTemplate } from '../../../proxy/rules/template.ts';

/** Templates as files write them. */
export function t(text: string): Template {
  const read = parseTemplate(text);
  if ('fault' in read) throw new Error(read.fault);
  return read;
}

export function re(source: string, ignoreCase = false) {
  const read = readPattern(source, ignoreCase);
  if (isPatternFault(read)) throw new Error(`${source}: ${read.fault}`);
  return read;
}

/** One site that takes every host, with an upstream `up` in front of it. */
export function siteOf(
  locations: readonly Location[],
  more: Partial<Site> = {},
  set: Partial<RuleSet> = {},
): RuleSet {
  return {
    upstreams: [{ name: 'up', servers: [{ host: '127.0.0.1', port: 8080 }] }],
    ...set,
    sites: [
      { names: [{ kind: 'exact', name: 'a.test' }], isDefault: true, label: 'a.test', locations, ...more },
    ],
  };
}

export const toUp = { kind: 'proxy', upstream: 'up', protocol: 'http', host: 'up' } as const;

export function prefix(path: string, more: Partial<Location> = {}): Location {
  return { match: { kind: 'prefix', path }, ...more };
}

export interface Asked {
  readonly method?: string;
  readonly host?: string;
  readonly headers?: Readonly<Record<string, string | readonly string[]>>;
  readonly client?: string;
  readonly scheme?: 'http' | 'https';
  readonly port?: number;
  readonly contentLength?: number;
  readonly protocol?: Facts['protocol'];
  readonly tls?: Facts['tls'];
}

export interface World {
  /** Paths of files; folders are what they lie in. */
  readonly files?: readonly string[];
  /** Default: 200 without fields. Undefined: no reply. */
  readonly upstream?: (request: Forward) => Reply | undefined;
  readonly passwords?: (hash: string, password: string) => boolean;
  readonly charge?: (step: Step & { do: 'charge' }) => { readonly waitMs: number } | 'requests' | 'seats';
  readonly watcher?: Watcher;
}

export interface Result {
  /** What the last step was. */
  readonly last: Step | { readonly do: 'no-site' };
  readonly forwarded: readonly Forward[];
  readonly waitedMs: number;
  readonly status: number;
  readonly fields: readonly Field[];
  readonly body: string | undefined;
  /** Of the last forward. */
  readonly target: string | undefined;
}

export function fieldsOf(record: Readonly<Record<string, string | readonly string[]>>): Fields {
  const lower = new Map(
    Object.entries(record).map(([name, value]) => [name.toLowerCase(), [value].flat() as string[]]),
  );
  return { all: (name) => lower.get(name) ?? [] };
}

export function factsOf(target: string, asked: Asked): Facts {
  const host = asked.host ?? 'a.test';
  const scheme = asked.scheme ?? 'https';
  return {
    method: asked.method ?? 'GET',
    target,
    host,
    protocol: asked.protocol ?? 'HTTP/1.1',
    scheme,
    headers: fieldsOf({ Host: host, ...asked.headers }),
    headerBytes: 100,
    contentLength: asked.contentLength ?? -1,
    clientAddress: asked.client ?? '192.0.2.7',
    clientPort: 4711,
    serverAddress: '198.51.100.1',
    serverPort: asked.port ?? (scheme === 'https' ? 443 : 80),
    tls: asked.tls,
    connection: 1,
    connectionRequests: 1,
    startedAt: 0,
    requestId: () => createHash('md5').update(target).digest('hex'),
  };
}

export function ask(
  rules: CompiledRules | RuleSet,
  target: string,
  asked: Asked = {},
  world: World = {},
): Result {
  const compiled = 'find' in rules ? rules : compile(rules);
  const run = beginRun(compiled, factsOf(target, asked), world.watcher);
  const forwarded: Forward[] = [];
  let waitedMs = 0;
  if (run === undefined)
    return {
      last: { do: 'no-site' },
      forwarded,
      waitedMs,
      status: 0,
      fields: [],
      body: undefined,
      target: undefined,
    };
  const drive = (one: Resumable, first: Step): { readonly step: Step; readonly reply: Reply | undefined } => {
    let step = first;
    let reply: Reply | undefined;
    for (let steps = 0; steps < 1_000; steps++) {
      switch (step.do) {
        case 'look':
          step = one.looked(isThere(world.files ?? [], step.kind, step.path));
          break;
        case 'charge':
          step = one.charged(world.charge?.(step) ?? { waitMs: 0 });
          break;
        case 'wait':
          waitedMs += step.ms;
          step = one.waited();
          break;
        case 'check':
          step = one.checked(
            step.hash !== undefined && (world.passwords ?? ((a, b) => a === b))(step.hash, step.password),
          );
          break;
        case 'ask': {
          const inner = drive(step.run, step.run.start());
          step = one.answered(replyOf(inner.step, inner.reply));
          break;
        }
        case 'forward': {
          forwarded.push(step);
          reply = world.upstream === undefined ? { status: 200, fields: fieldsOf({}) } : world.upstream(step);
          step = reply === undefined ? one.failed(502) : one.replied(reply);
          break;
        }
        default:
          return { step, reply };
      }
    }
    throw new Error('no end after a thousand steps');
  };
  const { step, reply } = drive(run, run.start());
  return {
    last: step,
    forwarded,
    waitedMs,
    status: 'status' in step ? step.status : 0,
    fields: fieldsIn(step),
    body: step.do === 'own' ? step.body : undefined,
    target: step.do === 'pass' && reply !== undefined ? forwarded.at(-1)?.target : undefined,
  };
}

/** What a sub-request came to. */
function replyOf(step: Step, reply: Reply | undefined): Reply | undefined {
  if (step.do === 'pass') return reply;
  if (step.do === 'own') return { status: step.status, fields: fieldsOf({}) };
  return step.do === 'file' ? { status: 200, fields: fieldsOf({}) } : undefined;
}

function isThere(files: readonly string[], kind: string, path: string): boolean {
  const bare = path.replaceAll(/\/+/g, '/');
  const isFile = files.includes(bare);
  const folder = bare.endsWith('/') ? bare : `${bare}/`;
  const isFolder = files.some((file) => file.startsWith(folder));
  if (kind === 'file' || kind === 'executable') return isFile;
  return kind === 'directory' ? isFolder : isFile || isFolder;
}

export function fieldOf({ fields }: Result, name: string): string | undefined {
  return fields.find((field) => field.name.toLowerCase() === name.toLowerCase())?.value;
}

/** Limits as one process counts them, with a clock that the test moves. */
export function limitsOf(rules: CompiledRules) {
  const clock = { now: 0 };
  const buckets = createBuckets(rules.requestZones);
  const seats = createSeats();
  const charge: NonNullable<World['charge']> = (step) => {
    const verdict = buckets.charge(step.charges, clock.now);
    if (!verdict.passes) return 'requests';
    return seats.take(step.seats, 0) ? { waitMs: verdict.waitMs } : 'seats';
  };
  return { clock, charge, seats };
}

function fieldsIn(step: Step | { readonly do: 'no-site' }): readonly Field[] {
  if (step.do === 'pass') return step.edits.own;
  if (step.do === 'file') return step.fieldsWith([]);
  return step.do === 'own' ? step.fields : [];
}
