// One replica as an automaton: the program's own code, which runs until it asks for something, and goes on when it is answered.

import { createHash } from 'node:crypto';
import { setImmediate as turn } from 'node:timers/promises';
import { openAccount } from '../../../acme/account.ts';
import { AcmeProblem, AcmeTransportError } from '../../../acme/answer.ts';
import type { AcmeResponse } from '../../../acme/ca-http.ts';
import type { Challenge, Solver } from '../../../acme/issuer.ts';
import { createManager } from '../../../acme/manager.ts';
import { createIssuer } from '../../../acme/obtain.ts';
import type { Sealing } from '../../../acme/sealing.ts';
import { refuseIfLost } from '../../../acme/storage/leases.ts';
import type { LocalCopy } from '../../../acme/storage/local-copy.ts';
import { MANIFEST } from '../../../acme/storage/manifest.ts';
import { createSealed } from '../../../acme/storage/sealed.ts';
import { type Engine, type Lease, StorageError, type WriteOptions } from '../../../acme/storage.ts';
import { createStore, type Store } from '../../../acme/store.ts';
import { createTlsAlpn01Solver } from '../../../acme/tls-alpn01.ts';
import type { Session, Transport } from '../../../acme/transport.ts';
import type { Clock } from '../../../src/lib/clock.ts';
import { parseDomain } from '../../../src/lib/domain.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { keyNamed, nameOfCsr, nameOfKey, START, supplyKeys } from './keys.ts';

export const DOMAIN = 'a.example';
export const CA = 'https://ca.example';

/** What a replica waits for. `token` is that of the lease under which it writes. */
export type Ask =
  | { readonly what: 'read'; readonly name: string }
  | { readonly what: 'list'; readonly folder: string }
  | { readonly what: 'create'; readonly name: string; readonly text: string; readonly token: string }
  | {
      readonly what: 'replace';
      readonly name: string;
      readonly text: string;
      readonly version: string;
      readonly token: string;
    }
  /** Whatever is there: no sound storage has it. */
  | { readonly what: 'put'; readonly name: string; readonly text: string; readonly token: string }
  | { readonly what: 'lease'; readonly token: string }
  | { readonly what: 'release'; readonly token: string }
  | { readonly what: 'ca'; readonly path: string; readonly key: string; readonly payload: unknown }
  | { readonly what: 'sleep'; readonly ms: number };

export type Answer =
  | { readonly value: unknown }
  /** No answer came in time: it may have happened. */
  | { readonly silence: true }
  | { readonly leaseLost: true }
  | { readonly problem: string; readonly status: number };

/** An answer to the ask of this place in the list, or the news that the lease is lost. */
export type Happening = { readonly ask: number; readonly answer: Answer } | 'told';

/** How the storage writes. */
export type Writing =
  /** Each write names the version that it takes the place of. */
  | 'by version'
  /** It looks whether the version is still there, and then writes: the mistake of many a storage for certificates. */
  | 'look, then put'
  /** It relies on the lease, and writes over whatever is there. */
  | 'unfenced';

export interface Behaviour {
  readonly writing: Writing;
  /** Whether the CA wants to see a challenge answered. */
  readonly validates: boolean;
  /** What a mistake in the protocol would be. */
  readonly mistake?: ((store: Store) => Store) | undefined;
}

/** A replica after a certain history. The same history always leads to the same node. */
export interface Node {
  readonly id: number;
  readonly identity: string;
  readonly asks: readonly Ask[];
  /** The token of the lease under which it believes to work. */
  readonly lease: string | undefined;
  /** Name of the key of the certificate that it serves. */
  readonly served: string | undefined;
  readonly parent: Node | undefined;
  readonly happening: Happening | undefined;
  readonly children: Map<string, Node>;
  live: Running | undefined;
}

export interface Automaton {
  /** A process that has just been started, under a name of its own. */
  start(identity: string): Promise<Node>;
  after(node: Node, happening: Happening): Promise<Node>;
  readonly nodes: number;
  /** How often a process had to be run again from its start. */
  readonly reruns: number;
  close(): void;
}

/**
 * A process cannot be copied. But what it does next depends on nothing but its history, so a process that is needed a
 * second time is run again and told the same history.
 */
export function createAutomaton(behaviour: Behaviour): Automaton {
  const starts = new Map<string, Node>();
  let nodes = 0;
  let reruns = 0;
  let current: Running | undefined;
  const keys = supplyKeys(() => current!.nextKey());

  async function run<T>(one: Running, act: () => T): Promise<T> {
    current = one;
    const done = act();
    // Whatever the program can do without an answer has been done when the event loop comes round.
    await turn();
    current = undefined;
    return done;
  }

  function nodeOf(live: Running, parent: Node | undefined, happening: Happening | undefined): Node {
    nodes += 1;
    const { identity, served } = live;
    const asks = live.asks();
    const lease = leaseAfter(parent, happening);
    return { id: nodes, identity, asks, lease, served, parent, happening, children: new Map(), live };
  }

  async function rerun(node: Node): Promise<Running> {
    reruns += 1;
    const history: Happening[] = [];
    for (let each = node; each.parent !== undefined; each = each.parent) history.push(each.happening!);
    const fresh = new Running(node.identity, behaviour);
    await run(fresh, () => fresh.begin());
    for (const happening of history.reverse()) await run(fresh, () => fresh.happens(happening));
    if (JSON.stringify(fresh.asks()) !== JSON.stringify(node.asks))
      throw new Error(`the replica does not do the same again: ${JSON.stringify([fresh.asks(), node.asks])}`);
    return fresh;
  }

  return {
    async start(identity) {
      const known = starts.get(identity);
      if (known !== undefined) return known;
      const fresh = new Running(identity, behaviour);
      await run(fresh, () => fresh.begin());
      const made = nodeOf(fresh, undefined, undefined);
      starts.set(identity, made);
      return made;
    },
    async after(node, happening) {
      const id = JSON.stringify(happening);
      const known = node.children.get(id);
      if (known !== undefined) return known;
      const live = node.live ?? (await rerun(node));
      node.live = undefined;
      await run(live, () => live.happens(happening));
      const made = nodeOf(live, node, happening);
      node.children.set(id, made);
      return made;
    },
    get nodes() {
      return nodes;
    },
    get reruns() {
      return reruns;
    },
    close: () => keys.restore(),
  };
}

function leaseAfter(parent: Node | undefined, happening: Happening | undefined): string | undefined {
  if (parent === undefined || happening === undefined || happening === 'told') return undefined;
  const ask = parent.asks[happening.ask]!;
  if (ask.what === 'release') return undefined;
  if (ask.what === 'lease') return 'value' in happening.answer ? ask.token : undefined;
  return parent.lease;
}

interface Pending {
  readonly ask: Ask;
  settle(answer: Answer): void;
}

class Running {
  readonly identity: string;
  served: string | undefined;
  readonly #behaviour: Behaviour;
  readonly #pending: Pending[] = [];
  #lost = new AbortController();
  #slept = 0;
  #keys = 0;
  #seals = 0;
  #leases = 0;

  constructor(identity: string, behaviour: Behaviour) {
    this.identity = identity;
    this.#behaviour = behaviour;
  }

  asks(): Ask[] {
    return this.#pending.map(({ ask }) => ask);
  }

  nextKey(): string {
    this.#keys += 1;
    return `${this.identity}.${this.#keys}`;
  }

  happens(happening: Happening): void {
    if (happening === 'told') {
      this.#lost.abort(new StorageError('lease-lost', 'the lease was lost'));
      return;
    }
    const [pending] = this.#pending.splice(happening.ask, 1);
    pending!.settle(happening.answer);
  }

  begin(): void {
    void this.#live();
  }

  async #live(): Promise<void> {
    const clock: Clock = {
      now: () => new Date(START + this.#slept),
      sleep: async (ms, signal) => {
        signal?.throwIfAborted();
        await this.#ask({ what: 'sleep', ms }, signal);
        this.#slept += ms;
      },
    };
    const storage = createSealed({
      engine: this.#engine(),
      sealing: this.#sealing(),
      copy: emptyCopy(),
      log: silentLog,
    });
    const { mistake = (same: Store) => same } = this.#behaviour;
    const plain = await createStore({ stateDir: '/none', directoryUrl: `${CA}/dir`, clock, storage });
    const store = mistake(plain);
    const transport = this.#transport();
    const manager = createManager({
      wanted: [[parseDomain(DOMAIN)]],
      store,
      connect: async (signal) => {
        const account = await openAccount({ transport, store }, signal);
        const solver = solverOver(store, clock);
        return { account, issuer: createIssuer({ transport, account, solver, store, clock }) };
      },
      prepare: async () => {},
      deploy: async (_, fresh) => {
        this.served = nameOfKey(fresh.key);
      },
      intervalMs: 3_600_000,
      clock,
      random: () => 0.5,
    });
    await manager.run(new AbortController().signal);
  }

  #ask(ask: Ask, signal?: AbortSignal): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const pending: Pending = {
        ask,
        settle(answer) {
          if ('value' in answer) resolve(answer.value);
          else reject(errorOf(ask, answer));
        },
      };
      this.#pending.push(pending);
      signal?.addEventListener('abort', () => {
        const at = this.#pending.indexOf(pending);
        if (at === -1) return;
        this.#pending.splice(at, 1);
        reject(signal.reason);
      });
    });
  }

  #engine(): Engine {
    const own = new Map([[MANIFEST, { text: sealedText(1, 'manifest', '{}'), version: '1' }]]);
    const ask = (what: Ask) => {
      if ('name' in what && isOwn(what.name)) return Promise.resolve(answeredFrom(own, what));
      return this.#ask(what);
    };
    const write = async (
      name: string,
      bytes: Uint8Array,
      version: string | undefined,
      options?: WriteOptions,
    ) => {
      refuseIfLost(options?.lease);
      const token = options?.lease?.token ?? '';
      const text = Buffer.from(bytes).toString();
      const { writing } = this.#behaviour;
      const change =
        version === undefined ? { what: 'create' as const } : { what: 'replace' as const, version };
      if (writing === 'by version' || isOwn(name))
        return ask({ ...change, name, text, token }) as Promise<string | undefined>;
      if (writing === 'look, then put') {
        const there = (await ask({ what: 'read', name })) as { version: string } | undefined;
        if (there?.version !== version) return undefined;
      }
      return ask({ what: 'put', name, text, token }) as Promise<string>;
    };
    return {
      place: (name) => name,
      async read(name) {
        const found = (await ask({ what: 'read', name })) as { text: string; version: string } | undefined;
        return found && { bytes: Buffer.from(found.text), version: found.version };
      },
      create: (name, bytes, options) => write(name, bytes, undefined, options),
      replace: (name, bytes, version, options) => write(name, bytes, version, options),
      remove: async (name) => own.delete(name),
      list: async (folder) => (await ask({ what: 'list', folder })) as string[],
      lease: (name, signal, work) => this.#lease(name, signal, work),
      watch: () => () => {},
      async setAside(name) {
        throw new Error(`${name} makes no sense`);
      },
      prove: async () => [],
      close: async () => {},
    };
  }

  async #lease<T>(name: string, signal: AbortSignal, work: (lease: Lease) => Promise<T>): Promise<T> {
    this.#leases += 1;
    const token = `${this.identity}/${this.#leases}`;
    await this.#ask({ what: 'lease', token });
    const lost = new AbortController();
    this.#lost = lost;
    try {
      return await work({
        name,
        token,
        isHeld: () => !lost.signal.aborted,
        signal: AbortSignal.any([signal, lost.signal]),
      });
    } finally {
      if (!lost.signal.aborted) await this.#ask({ what: 'release', token }).catch(() => {});
    }
  }

  /** What is sealed shows, and cannot be altered in the model; that no two seals are the same bytes is as it is. */
  #sealing(): Sealing {
    return {
      isCurrent: () => true,
      seal: (name, { counter, bytes }) => {
        if (name !== MANIFEST) this.#seals += 1;
        const seal = name === MANIFEST ? 'manifest' : `${this.identity}:${this.#seals}`;
        return Buffer.from(sealedText(counter, seal, bytes?.toString() ?? null));
      },
      open(_name, sealed) {
        const { counter, text } = JSON.parse(sealed.toString()) as { counter: number; text: string | null };
        return { counter, bytes: text === null ? undefined : Buffer.from(text) };
      },
    };
  }

  #transport(): Transport {
    return {
      directoryUrl: `${CA}/dir`,
      directory: async () => ({
        newNonce: `${CA}/nonce`,
        newAccount: `${CA}/new-account`,
        newOrder: `${CA}/new-order`,
        renewalInfo: `${CA}/renewal-info`,
        meta: {},
      }),
      get: () => Promise.reject(new Error('nothing is fetched without a signature')),
      session: (pem): Session => {
        const key = nameOfKey(pem);
        return {
          jwk: { kty: key },
          thumbprint: createHash('sha256').update(key).digest('base64url'),
          sign: () => ({}),
          post: async (url, payload, { signal }) => {
            signal.throwIfAborted();
            return (await this.#ask(
              { what: 'ca', path: url.slice(CA.length), key, payload: withKeyNames(payload) },
              signal,
            )) as AcmeResponse;
          },
        };
      },
      clockSkewMs: () => 0,
      close: async () => {},
    };
  }
}

function solverOver(store: Store, clock: Clock): Solver {
  const real = createTlsAlpn01Solver({ serve: () => {}, store, clock });
  // The certificate for the handshake comes from other threads, and nothing depends on it here.
  return {
    ...real,
    async present({ domain, keyAuthorization }: Challenge) {
      await store.shareChallenge(domain, keyAuthorization);
      if ((await store.sharedChallenge(domain)) !== keyAuthorization)
        throw new StorageError('overtaken', 'the challenge in the store is another one');
    },
    wait: async () => {},
  };
}

function emptyCopy(): LocalCopy {
  const known = new Map<string, Parameters<LocalCopy['keep']>[1] & { sealed: Buffer }>();
  return {
    seen: (name) => known.get(name),
    read: (name) => known.get(name),
    list: () => [],
    keep(name, content, sealed) {
      if ((known.get(name)?.counter ?? 0) < content.counter) known.set(name, { ...content, sealed });
    },
    flush: async () => {},
  };
}

/**
 * What a replica is told as it wants to hear it, for itself alone: that conflicts are conflicts, and the manifest, which is
 * written some time after each record and on which no order depends. Both are tested elsewhere.
 */
function isOwn(name: string): boolean {
  return name.startsWith('probe/') || name === MANIFEST;
}

function sealedText(counter: number, seal: string, text: string | null): string {
  return JSON.stringify({ counter, seal, text });
}

function answeredFrom(own: Map<string, { text: string; version: string }>, ask: Ask): unknown {
  if (ask.what === 'read') return own.get(ask.name);
  if (ask.what !== 'create' && ask.what !== 'replace') return undefined;
  const there = own.get(ask.name);
  if (there?.version !== (ask.what === 'create' ? undefined : ask.version)) return undefined;
  const version = String(Number(there?.version ?? 0) + 1);
  own.set(ask.name, { text: ask.text, version });
  return version;
}

function withKeyNames(payload: object | null): unknown {
  const { csr } = (payload ?? {}) as { csr?: string };
  return csr === undefined ? payload : { csr: nameOfCsr(csr) };
}

function errorOf(ask: Ask, answer: Exclude<Answer, { value: unknown }>): Error {
  if ('leaseLost' in answer) return new StorageError('lease-lost', 'another replica has the lease');
  if ('problem' in answer) {
    const { problem: type, status } = answer;
    const fields = { type, status, detail: type, subproblems: [], retryAfterMs: undefined };
    return new AcmeProblem('the request', fields);
  }
  if (ask.what === 'ca') return new AcmeTransportError('ca-timeout', 'no answer came from the CA');
  return new StorageError('unavailable', 'no answer came from the store');
}

/** What a replica that was there before has left: its account, and a certificate that is due. */
export const BEFORE = { account: 'before.account', certificate: 'before.certificate' } as const;
keyNamed(BEFORE.account);
keyNamed(BEFORE.certificate);
