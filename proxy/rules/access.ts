// Who may come in: by address, by password, by asking another service; all of them, or any.

import { plainAddress, verdict } from './addresses.ts';
import { textOf } from './bytes.ts';
import type { Access, Field, Fields, Reply } from './compiled.ts';
import { requestFields, safeValue } from './request-headers.ts';
import type { Check, Control, Forward, Step } from './step.ts';

/** What a gate has done for it. */
export interface Gatekeeper {
  through(): Step;
  check(step: Check, then: (right: boolean) => Step): Step;
  /** By a GET within the site. */
  ask(uri: string, then: (answer: Reply | undefined) => Step): Step;
  askStep(step: Forward, then: (answer: Reply | undefined) => Step): Step;
  /** The answer is the client's. */
  refuse(answer: Reply): Step;
  /** For the reply to the client, or for the request to the upstream. */
  keep(fields: readonly Field[], forClient: boolean): void;
}

interface Denial {
  readonly status: number;
  readonly fields: readonly Field[];
  /** Of a service that says itself what the client is told. */
  readonly answer?: Reply;
}

type Gate = (pass: () => Step, deny: (denial: Denial) => Step, skip: () => Step) => Step;

export function gate(access: Access, run: Control, keeper: Gatekeeper): Step {
  const gates: readonly Gate[] = [
    (pass, deny, skip) => byAddress(access, run, pass, deny, skip),
    (pass, deny, skip) => byPassword(access, run, keeper, pass, deny, skip),
    (pass, deny, skip) => byQuestion(access, run, keeper, pass, deny, skip),
  ];
  const from = (at: number, denied: Denial | undefined): Step => {
    const next = gates[at];
    if (next === undefined) return denied === undefined ? keeper.through() : told(denied, run, keeper);
    return next(
      () => (access.any ? keeper.through() : from(at + 1, denied)),
      (denial) => {
        if (!access.any) return told(denial, run, keeper);
        // A password that could still be given is worth telling of.
        return from(at + 1, denied?.status === 401 ? denied : denial);
      },
      () => from(at + 1, denied),
    );
  };
  return from(0, undefined);
}

function told({ status, fields, answer }: Denial, run: Control, keeper: Gatekeeper): Step {
  return answer === undefined ? run.fail(status, fields) : keeper.refuse(answer);
}

const FORBIDDEN: Denial = { status: 403, fields: [] };

function byAddress(access: Access, run: Control, ...[pass, deny, skip]: Parameters<Gate>): Step {
  const rule = access.addresses && verdict(access.addresses, plainAddress(run.client));
  if (rule === undefined) return skip();
  return rule.allow ? pass() : deny(FORBIDDEN);
}

function byPassword(
  { basic }: Access,
  run: Control,
  keeper: Gatekeeper,
  ...[pass, deny, skip]: Parameters<Gate>
): Step {
  const realm = basic?.realm(run);
  if (basic === undefined || realm === undefined || realm === 'off') return skip();
  const denied: Denial = {
    status: 401,
    fields: [
      { name: 'WWW-Authenticate', value: `Basic realm="${safeValue(realm).replaceAll(/["\\]/g, '\\$&')}"` },
    ],
  };
  const credentials = readBasic(run.facts.headers);
  if (credentials === undefined) return deny(denied);
  const { user, password } = credentials;
  const hash = basic.users.get(user);
  return keeper.check({ do: 'check', hash, like: basic.like, password }, (right) => {
    if (!right || hash === undefined) return deny(denied);
    run.user = user;
    return pass();
  });
}

/** RFC 7617 §2. Undefined: there are none, or not in this scheme. */
function readBasic(headers: Fields): { readonly user: string; readonly password: string } | undefined {
  const all = headers.all('authorization');
  const found = all.length === 1 ? /^basic +([A-Za-z0-9+/]+=*) *$/i.exec(all[0]!) : null;
  if (found === null) return undefined;
  const text = Buffer.from(found[1]!, 'base64').toString('latin1');
  const colon = text.indexOf(':');
  if (colon <= 0 || text.includes('\0')) return undefined;
  return { user: text.slice(0, colon), password: textOf(text.slice(colon + 1)) };
}

function byQuestion(
  access: Access,
  run: Control,
  keeper: Gatekeeper,
  ...[pass, deny, skip]: Parameters<Gate>
): Step {
  const { ask } = access;
  if (ask === undefined) return skip();
  const keepVariables = (answer: Reply | undefined) => {
    const before = run.reply;
    run.reply = answer;
    for (const { slot, value } of access.variables) run.slots[slot] = value(run);
    run.reply = before;
  };
  if (ask.kind === 'uri') {
    return keeper.ask(ask.uri(run), (answer) => {
      keepVariables(answer);
      const status = answer?.status ?? 500;
      if (status >= 200 && status < 300) return pass();
      if (status === 401) return deny({ status, fields: fieldsOf(answer!, ['WWW-Authenticate']) });
      return status === 403 ? deny(FORBIDDEN) : run.fail(500);
    });
  }
  return keeper.askStep(question(run, ask), (answer) => {
    keepVariables(answer);
    // Who cannot be asked has not said yes.
    if (answer === undefined || answer.status >= 500) return run.fail(503);
    if (answer.status < 200 || answer.status >= 300)
      return deny({ status: answer.status, fields: [], answer });
    keeper.keep(
      ask.copy.flatMap((name) => copiesOf(answer, name)),
      false,
    );
    keeper.keep(fieldsOf(answer, ask.copyToReply), true);
    return pass();
  });
}

/** Those that the answer lacks are removed all the same: a client must not bring its own. */
function copiesOf(answer: Reply, name: string): Field[] {
  const values = answer.fields.all(name);
  return values.length === 0 ? [{ name, value: '' }] : values.map((value) => ({ name, value }));
}

function fieldsOf(answer: Reply, names: readonly string[]): Field[] {
  return names.flatMap((name) => answer.fields.all(name.toLowerCase()).map((value) => ({ name, value })));
}

function question(run: Control, ask: Access['ask'] & { kind: 'forward' }): Forward {
  const fields = requestFields(run, ask.headers);
  const uri = ask.uri(run);
  return {
    do: 'forward',
    pool: ask.pool,
    hashKey: '',
    method: 'GET',
    target: safeValue(uri.startsWith('/') ? uri : `/${uri}`).replaceAll(' ', '%20'),
    host: fields.host,
    removed: fields.removed,
    says: fields.says,
    own: fields.own,
    passHeaders: true,
    passBody: false,
    passUnderscores: false,
    passInvalid: false,
    forwardedFields: true,
    upgrade: false,
    retry: undefined,
    maxBodyBytes: 0,
  };
}
