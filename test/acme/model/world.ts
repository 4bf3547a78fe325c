// The world of a few replicas: one store, one CA, and all that can go wrong, as states and what may come next in each.

import { certificateFor, keyNamed, START } from './keys.ts';
import { type Answer, type Ask, type Automaton, BEFORE, CA, DOMAIN, type Node } from './replica.ts';

/** How often each may still happen. */
export interface Faults {
  /** A replica is killed, and another process with empty memory takes its place. */
  readonly crashes: number;
  /** The store gives the lease of a replica away, which may learn of it at any time later, or never. */
  readonly losses: number;
  /** A request is not answered; whether it was carried out is open. */
  readonly silences: number;
  /** A request that was not answered is carried out at any time later. */
  readonly stragglers: number;
  /** A replica wakes up and looks again. */
  readonly wakes: number;
  /** Another replica goes on although the one before could have: most races need few of these. */
  readonly switches: number;
}

export interface Scene {
  readonly replicas: number;
  /** Whether there is an account, and a certificate that is due. */
  readonly begins: 'empty' | 'due';
  /** Whether the store itself refuses what is written under a lost lease. */
  readonly guards: boolean;
  readonly validates: boolean;
  readonly faults: Faults;
}

interface Stored {
  readonly version: number;
  readonly text: string;
}

interface Order {
  readonly account: string;
  readonly replaces: string | undefined;
  readonly authorization: 'pending' | 'valid' | 'invalid';
  /** Name of the key that it was finalized with. */
  readonly key: string | undefined;
}

export interface State {
  readonly records: ReadonlyMap<string, Stored>;
  /** Names all that is in them. */
  readonly content: string;
  /** The token of the lease at the store. */
  readonly holder: string | undefined;
  /** Leases that were given away without a word to those who had them. */
  readonly lost: readonly string[];
  /** Keys of accounts at the CA. */
  readonly accounts: readonly string[];
  readonly orders: readonly Order[];
  readonly late: readonly Ask[];
  readonly replicas: readonly Node[];
  /** The place of the replica that did something last. */
  readonly turn: number;
  readonly left: Faults;
  /** How many processes were started. */
  readonly born: number;
}

export interface Step {
  readonly says: string;
  to(): Promise<State>;
}

/** What never may be. */
export class Violation extends Error {
  override readonly name = 'Violation';
}

/** Members of `State` but for the replicas. */
type Surroundings = Omit<State, 'replicas'>;

export async function beginning(scene: Scene, automaton: Automaton): Promise<State> {
  const identities = Array.from({ length: scene.replicas }, (_, i) => `r${i + 1}`);
  const replicas = await Promise.all(identities.map((each) => each)).then(async (all) => {
    const started: Node[] = [];
    for (const identity of all) started.push(await automaton.start(identity));
    return started;
  });
  const records = new Map<string, Stored>();
  const accounts: string[] = [];
  if (scene.begins === 'due') {
    accounts.push(BEFORE.account);
    const chain = await certificateFor(BEFORE.certificate, DOMAIN, 70, 0);
    const certificate = { name: DOMAIN, chain, key: keyNamed(BEFORE.certificate).pem };
    const account = {
      key: keyNamed(BEFORE.account).pem,
      url: `${CA}/account/0`,
      publicKey: { kty: BEFORE.account },
    };
    const put = (name: string, value: unknown) =>
      records.set(`ca.example/dir/${name}`, {
        version: 1,
        text: JSON.stringify({ counter: 1, seal: `before ${name}`, text: JSON.stringify(value) }),
      });
    put('account.json', account);
    put(`certificates/${DOMAIN}.json`, certificate);
  }
  return {
    records,
    content: contentName(records),
    holder: undefined,
    lost: [],
    accounts,
    orders: [],
    late: [],
    replicas,
    turn: 0,
    left: scene.faults,
    born: scene.replicas,
  };
}

/** All that may happen next. */
export function steps(scene: Scene, automaton: Automaton, state: State): Step[] {
  const found: Step[] = [];
  const spent = (which: keyof Faults) => ({ ...state.left, [which]: state.left[which] - 1 });
  // Those that have done nothing are alike: they begin in their order.
  const goesOnFreely = !state.replicas[state.turn]!.asks.some(
    (ask) => ask.what !== 'sleep' && isPossible(ask, state),
  );
  const begun = state.replicas.map(({ parent }) => parent !== undefined);

  for (const [i, node] of state.replicas.entries()) {
    const goesOn = async (around: Surroundings, happening: Parameters<Automaton['after']>[1]) => {
      const next = await automaton.after(node, happening);
      const { left } = around;
      const after = { ...around, replicas: state.replicas.with(i, next) };
      if (happening === 'told' || i === state.turn) return after;
      return { ...after, turn: i, left: { ...left, switches: left.switches - (goesOnFreely ? 0 : 1) } };
    };
    if (!begun[i] && begun.slice(0, i).includes(false)) continue;
    const maySwitch = i === state.turn || goesOnFreely || state.left.switches > 0;
    for (const [at, ask] of maySwitch ? node.asks.entries() : []) {
      const says = `${node.identity}: ${wordsOf(ask)}`;
      if (!isPossible(ask, state)) continue;
      const around = ask.what === 'sleep' ? { ...state, left: spent('wakes') } : state;
      found.push({
        says,
        async to() {
          const [after, answer] = await carryOut(ask, around, scene);
          return goesOn(after, { ask: at, answer });
        },
      });
      if (ask.what === 'sleep') continue;
      const silent = { ask: at, answer: { silence: true } } as const;
      if (state.left.silences > 0) {
        const left = spent('silences');
        found.push({ says: `${says} (never arrives)`, to: () => goesOn({ ...state, left }, silent) });
        if (changes(ask))
          found.push({
            says: `${says} (answer lost)`,
            to: async () => goesOn((await carryOut(ask, { ...state, left }, scene))[0], silent),
          });
      }
      if (state.left.stragglers > 0 && changes(ask)) {
        const left = spent('stragglers');
        const late = [...state.late, ask];
        found.push({ says: `${says} (arrives late)`, to: () => goesOn({ ...state, left, late }, silent) });
      }
    }
    const token = node.lease;
    if (token !== undefined && state.lost.includes(token)) {
      const lost = state.lost.filter((each) => each !== token);
      found.push({
        says: `${node.identity}: learns that its lease is lost`,
        to: () => goesOn({ ...state, lost }, 'told'),
      });
    }
    if (state.left.crashes > 0 && begun[i]) {
      const left = spent('crashes');
      const born = state.born + 1;
      // Nobody renews its lease: it ends by itself.
      const holder = token !== undefined && state.holder === token ? undefined : state.holder;
      const lost = state.lost.filter((each) => each !== token);
      found.push({
        says: `${node.identity}: is killed, r${born} starts in its place`,
        async to() {
          const fresh = await automaton.start(`r${born}`);
          return { ...state, left, born, holder, lost, replicas: state.replicas.with(i, fresh) };
        },
      });
    }
  }
  if (state.left.losses > 0 && state.holder !== undefined) {
    const { holder } = state;
    found.push({
      says: `the store gives away the lease ${holder}`,
      to: async () => ({
        ...state,
        left: spent('losses'),
        holder: undefined,
        lost: [...state.lost, holder],
      }),
    });
  }
  for (const [at, ask] of state.late.entries())
    found.push({
      says: `late: ${wordsOf(ask)}`,
      to: async () =>
        (await carryOut(ask, { ...state, late: state.late.toSpliced(at, 1) }, scene))[0] as State,
    });
  return found;
}

/** Two states with one name have the same future. */
export function nameOf(state: State): string {
  const { crashes, losses, silences, stragglers, wakes, switches } = state.left;
  return [
    state.content,
    state.holder,
    state.lost.join(),
    state.accounts.join(),
    state.orders.map((order) => interned(JSON.stringify(order))).join(),
    state.late.map((ask) => interned(JSON.stringify(ask))).join(),
    state.replicas.map(({ id }) => id).join(),
    `${state.turn}${crashes}${losses}${silences}${stragglers}${wakes}.${switches}`,
  ].join(';');
}

function contentName(records: ReadonlyMap<string, Stored>): string {
  const each = [...records].map(([name, { version, text }]) => interned(`${name} ${version} ${text}`));
  return each.sort((a, b) => a - b).join();
}

const names = new Map<string, number>();
function interned(text: string): number {
  const known = names.get(text);
  if (known !== undefined) return known;
  names.set(text, names.size);
  return names.size - 1;
}

/** Throws Violation. `spent`: the faults that have happened so far. */
export function judge(state: State, before: State, scene: Scene): void {
  const { faults } = scene;
  const { left } = state;
  const explained =
    faults.crashes -
    left.crashes +
    (faults.losses - left.losses) +
    (faults.silences - left.silences) +
    (faults.stragglers - left.stragglers);
  const finalized = state.orders.filter(({ key }) => key !== undefined).map(({ key }) => key!);
  if (new Set(finalized).size > 1)
    throw new Violation(`two keys for one certificate generation: ${finalized.join(', ')}`);
  if (state.accounts.length > 1) throw new Violation(`two accounts: ${state.accounts.join(', ')}`);
  if (state.orders.length > 1 + explained)
    throw new Violation(`${state.orders.length} orders, and ${explained} faults to explain more than one`);
  if (state.records === before.records) return;
  for (const [name, { text, version }] of state.records) {
    const there = before.records.get(name);
    if (there?.version === version) continue;
    if (countOf(text) !== countOf(there?.text) + 1)
      throw new Violation(
        `lost update: change ${countOf(text)} of ${name} is written over change ${countOf(there?.text)}`,
      );
  }
  judgeOrderRecord(state, before);
}

/** What a replica has placed and stored is there until its certificate is, or until it has failed: or it is ordered anew. */
function judgeOrderRecord(state: State, before: State): void {
  const name = `ca.example/dir/orders/${DOMAIN}.json`;
  const placed = orderIn(before.records.get(name));
  if (placed?.url === undefined || orderIn(state.records.get(name))?.url === placed.url) return;
  const order = before.orders[Number(placed.url.slice(`${CA}/order/`.length))];
  if (order?.authorization === 'invalid') return;
  const certificate = contentOf(before.records.get(`ca.example/dir/certificates/${DOMAIN}.json`)) as
    | { key?: string }
    | undefined;
  if (certificate?.key === placed.key) return;
  throw new Violation(
    `the placed order ${placed.url} is gone from the store before its certificate is there`,
  );
}

function orderIn(stored: Stored | undefined): { url?: string; key: string } | undefined {
  return contentOf(stored) as { url?: string; key: string } | undefined;
}

function contentOf(stored: Stored | undefined): unknown {
  if (stored === undefined) return undefined;
  const { text } = JSON.parse(stored.text) as { text: string | null };
  return text === null ? undefined : JSON.parse(text);
}

function countOf(text: string | undefined): number {
  return text === undefined ? 0 : (JSON.parse(text) as { counter: number }).counter;
}

function isPossible(ask: Ask, state: State): boolean {
  if (ask.what === 'sleep') return state.left.wakes > 0;
  return ask.what !== 'lease' || state.holder === undefined;
}

function changes({ what }: Ask): boolean {
  return !['read', 'list', 'sleep'].includes(what);
}

async function carryOut(
  ask: Ask,
  state: Surroundings & { replicas: readonly Node[] },
  scene: Scene,
): Promise<[Surroundings & { replicas: readonly Node[] }, Answer]> {
  switch (ask.what) {
    case 'read': {
      const found = state.records.get(ask.name);
      return [state, { value: found && { text: found.text, version: String(found.version) } }];
    }
    case 'list': {
      const start = `${ask.folder}/`;
      const inside = [...state.records.keys()].filter((name) => name.startsWith(start)).sort();
      return [state, { value: inside.map((name) => name.slice(start.length)) }];
    }
    case 'create':
    case 'replace':
    case 'put':
      return write(ask, state, scene);
    case 'lease':
      // Late, it finds the lease taken, or takes one of which nobody knows, and which ends by itself.
      if (state.holder !== undefined) return [state, { value: false }];
      return [{ ...state, holder: ask.token }, { value: true }];
    case 'release':
      return [
        {
          ...state,
          holder: state.holder === ask.token ? undefined : state.holder,
          lost: state.lost.filter((each) => each !== ask.token),
        },
        { value: undefined },
      ];
    case 'sleep':
      return [state, { value: undefined }];
    case 'ca': {
      const [ca, answer] = await answerOfCa(ask, state, scene);
      return [{ ...state, ...ca }, answer];
    }
  }
}

type Writes = Extract<Ask, { what: 'create' | 'replace' | 'put' }>;

function write<T extends Surroundings>(ask: Writes, state: T, { guards }: Scene): [T, Answer] {
  if (guards && ask.token !== '' && state.holder !== ask.token) return [state, { leaseLost: true }];
  const there = state.records.get(ask.name);
  const refused =
    (ask.what === 'create' && there !== undefined) ||
    (ask.what === 'replace' && String(there?.version) !== ask.version);
  if (refused) return [state, { value: undefined }];
  const version = (there?.version ?? 0) + 1;
  const records = new Map(state.records).set(ask.name, { version, text: ask.text });
  return [{ ...state, records, content: contentName(records) }, { value: String(version) }];
}

type CaState = Pick<State, 'accounts' | 'orders'>;

async function answerOfCa(
  { path, key, payload }: Extract<Ask, { what: 'ca' }>,
  { accounts, orders, records }: Surroundings,
  { validates }: Scene,
): Promise<[Partial<CaState>, Answer]> {
  const ok = (data: unknown, location?: string): Answer => ({
    value: {
      status: 200,
      headers: location === undefined ? {} : { location },
      data,
      retryAfterMs: undefined,
    },
  });
  if (path === '/new-account') {
    const known = accounts.indexOf(key);
    if (known === -1 && (payload as { onlyReturnExisting?: boolean }).onlyReturnExisting === true)
      return [{}, { problem: 'accountDoesNotExist', status: 400 }];
    const all = known === -1 ? [...accounts, key] : accounts;
    return [{ accounts: all }, ok({ status: 'valid' }, `${CA}/account/${all.indexOf(key)}`)];
  }
  const [, kind, id] = path.split('/');
  if (kind === 'new-order') {
    const { replaces } = payload as { replaces?: string };
    // As Let's Encrypt: one order at a time may replace a certificate, unless it has failed.
    const rivals = orders.filter((each) => each.replaces === replaces && each.authorization !== 'invalid');
    if (replaces !== undefined && rivals.length > 0) return [{}, { problem: 'alreadyReplaced', status: 409 }];
    const made: Order = {
      account: key,
      replaces,
      authorization: validates ? 'pending' : 'valid',
      key: undefined,
    };
    return [{ orders: [...orders, made] }, ok(describe(made, orders.length), `${CA}/order/${orders.length}`)];
  }
  const at = Number(id);
  const order = orders[at];
  if (order === undefined || order.account !== key) return [{}, { problem: 'malformed', status: 404 }];
  const changed = (over: Partial<Order>) => ({ orders: orders.with(at, { ...order, ...over }) });
  if (kind === 'authz') return [{}, ok(authorizationOf(order, at))];
  if (kind === 'challenge') {
    // Any replica may be asked, and each answers what the store says.
    const shared = contentOf(records.get(`ca.example/dir/validations/${DOMAIN}.json`)) as
      | { keyAuthorization: string }
      | undefined;
    const right = shared?.keyAuthorization.startsWith(`${tokenOf(at)}.`) === true;
    if (order.authorization !== 'pending') return [{}, ok({})];
    return [changed({ authorization: right ? 'valid' : 'invalid' }), ok({})];
  }
  if (kind === 'finalize') {
    if (order.authorization !== 'valid' || order.key !== undefined)
      return [{}, { problem: 'orderNotReady', status: 403 }];
    const finalized = { key: (payload as { csr: string }).csr };
    return [changed(finalized), ok(describe({ ...order, ...finalized }, at))];
  }
  if (kind === 'certificate') return [{}, ok(await certificateFor(order.key!, DOMAIN, 0, at))];
  return [{}, ok(describe(order, at))];
}

const tokenOf = (at: number) => `token-of-order-${at}-which-is-long-enough`;

function describe({ authorization, key }: Order, at: number): unknown {
  const status = authorization === 'valid' ? (key === undefined ? 'ready' : 'valid') : authorization;
  return {
    status,
    expires: new Date(START + 7 * 86_400_000).toISOString(),
    authorizations: [`${CA}/authz/${at}`],
    finalize: `${CA}/finalize/${at}`,
    ...(key !== undefined && { certificate: `${CA}/certificate/${at}` }),
  };
}

function authorizationOf({ authorization: status }: Order, at: number): unknown {
  const url = `${CA}/challenge/${at}`;
  const challenge = { type: 'tls-alpn-01', url, token: tokenOf(at), status };
  return { status, identifier: { type: 'dns', value: DOMAIN }, challenges: [challenge] };
}

function wordsOf(ask: Ask): string {
  switch (ask.what) {
    case 'read':
    case 'create':
    case 'replace':
    case 'put':
      return `${ask.what} ${ask.name.replace('ca.example/dir/', '')}${'version' in ask ? ` at ${ask.version}` : ''}`;
    case 'list':
      return `list ${ask.folder.replace('ca.example/dir/', '')}`;
    case 'lease':
    case 'release':
      return `${ask.what} ${ask.token}`;
    case 'ca':
      return `asks the CA ${ask.path}${'csr' in ((ask.payload ?? {}) as object) ? ` with ${(ask.payload as { csr: string }).csr}` : ''}`;
    case 'sleep':
      return `wakes after ${ask.ms} ms`;
  }
}
