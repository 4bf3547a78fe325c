// A request whose way the rules decide: their steps carried out, whatever its client speaks.

import { Fault, type FaultCode } from '../faults.ts';
import { NO_LIMIT } from '../limits.ts';
import type { Fields, Pool } from '../rules/compiled.ts';
import type { Address, ForwardMatch, RouteMatch } from '../rules/routes.ts';
import { beginRun, type RuleRun } from '../rules/run.ts';
import type { Ask, Forward, Own, Pass, SendFile, Step } from '../rules/step.ts';
import { refusalOf } from './decide.ts';
import type { Exchange, Guide, Taking } from './exchange.ts';
import { isEditedAway, isOwnable } from './head-fields.ts';
import { ask } from './question.ts';
import {
  type Coding,
  codingOf,
  recodeContent,
  recodedFields,
  recodeStream,
  recodeWhole,
  variedFields,
} from './recode.ts';
import type { ReplyContent } from './reply-content.ts';
import { beginTries, isFailure } from './retry.ts';
import { type Answer, type Asking, type LastStep, RuleSteps } from './rule-steps.ts';
import { fieldsFor, type OwnFields, type RuledClient } from './ruled-client.ts';
import type { RulesInUse } from './rules-in-use.ts';
import { type FileReply, sendFile } from './send-file.ts';
import { stickyCookie, wishOf } from './wish.ts';

/** One for all: under a flood, where each was made is nobody's question. */
const TOO_BUSY = new Fault('overloaded', 'too many passwords to look at');

/** The rules take over. */
export function followRules(client: RuledClient, service: RulesInUse, match: RouteMatch) {
  const { exchange, facts } = client;
  const rules = service.rules();
  const run = rules === undefined ? undefined : beginRun(rules, facts);
  if (run === undefined) return exchange.fail(new Fault('no-route'));
  const ruled = new Ruled(client, service, match, run);
  exchange.match = match;
  exchange.guide = ruled;
  ruled.begin();
}

class Ruled extends RuleSteps implements Guide {
  private readonly client: RuledClient;
  private readonly exchange: Exchange;
  private readonly match: RouteMatch;
  declare protected readonly run: RuleRun;
  /** The upstream has been asked, and the rules wait for what comes of it. */
  private forwarding = false;
  private asked = false;
  private fault: FaultCode | undefined = undefined;
  private next: Step | undefined = undefined;
  private recoding: { readonly step: Pass; readonly coding: Coding } | undefined = undefined;
  private content: ReplyContent | undefined = undefined;
  private pool: Pool | undefined = undefined;
  /** Another server is asked in the place of the one that has replied. */
  private isRepeating = false;

  constructor(client: RuledClient, service: RulesInUse, match: RouteMatch, run: RuleRun) {
    super(run, service);
    this.client = client;
    this.exchange = client.exchange;
    this.match = match;
  }

  begin() {
    this.resume(() => this.run.start());
  }

  protected broken(cause: unknown) {
    this.forwarding = false;
    this.exchange.fail(new Fault('failed', 'its rules', { cause }));
  }

  protected tooBusy() {
    this.exchange.fail(TOO_BUSY);
  }

  protected ask({ run }: Ask, answered: (answer: Answer | undefined) => void): Asking {
    const inner = new InnerSteps(this.client, this.service, run, answered);
    inner.begin();
    return { giveUp: () => inner.over() };
  }

  // --- To the upstream ---

  protected forward(step: Forward) {
    const { client, exchange } = this;
    const match = forwardMatch(this.match, step);
    const refusal = refusalOf(match.upstream, client.askedProtocol);
    const denied = client.askedProtocol !== undefined && step.upgrade === false;
    if (refusal !== undefined || denied) return exchange.fail(new Fault(refusal ?? 'not-implemented'));
    if (this.asked) {
      exchange.beginAgain();
      if (step.passBody && !client.hasWholeBody(match)) return this.resume(() => this.run.failed(500));
    }
    if (!step.passBody) client.ignoreBody();
    if (step.upgrade === false) exchange.upgrading = undefined;
    exchange.tries =
      step.retry === undefined ? undefined : beginTries(step.retry, exchange.context.deadlines);
    exchange.wish = wishOf(step, this.run.client, client.facts.headers, exchange.tries);
    this.pool = step.pool;
    this.asked = true;
    this.forwarding = true;
    this.fault = undefined;
    // Whether a reply has a body depends on the method (RFC 9110 §9.3.2): rules do not change that.
    const bodiless = step.method === 'HEAD' || exchange.method === 'HEAD';
    exchange.changedMethod = bodiless || step.method === exchange.method ? undefined : step.method;
    client.forward(step, match, this.run.client);
  }

  takesReply(status: number, fields: Fields): Taking {
    const { exchange } = this;
    if (!this.forwarding) return 'passes';
    if (exchange.wantsAnotherThan(status)) {
      this.isRepeating = true;
      return isFailure(status) ? 'blamed' : 'dropped';
    }
    this.forwarding = false;
    const { upstream } = this.exchange;
    const addresses = upstream === undefined ? '' : addressText(upstream);
    const step = this.decide(() => this.run.replied({ status, fields, addresses }));
    if (step?.do === 'pass' && step.of === 'reply' && keepsBody(status, step.status)) {
      exchange.logged = step.logged;
      const { hidden, removed } = step.edits;
      const own = this.ownOf(step, fields);
      // What of the request is still to come would have no way to the upstream any more.
      const coding = exchange.requestEnded ? codingOf(step.compression) : undefined;
      if (coding !== undefined) {
        this.recoding = { step: { ...step, edits: { hidden, removed, own } }, coding };
        return 'content';
      }
      exchange.edits = {
        hidden,
        removed,
        own,
        status: step.status,
        isFixed: own === step.edits.own && step.isFixed,
      };
      return 'passes';
    }
    this.next = step;
    return 'dropped';
  }

  takesContent(content: ReplyContent): void {
    const { step, coding } = this.recoding!;
    this.content = content;
    // What has arrived with its head is given at once.
    setImmediate(() => {
      if (this.isOver) return content.giveUp();
      const kept = content.fields.filter(({ lower }) => !isEditedAway(step.edits, lower));
      const fields = [...kept.map(({ name, value }) => [name, value] as const), ...pairsOf(step.edits.own)];
      const recoded = recodedFields(fields, coding.encoding);
      if (content.ended) this.replyRecoded(step.status, recoded, content.bytes(), coding);
      else this.client.stream(step.status, recoded, recodeContent(content, coding), undefined);
    });
  }

  private replyRecoded(status: number, fields: OwnFields, bytes: Buffer, coding: Coding): void {
    recodeWhole(bytes, coding).then(
      (body) => {
        if (!this.isOver) this.client.reply({ status, fields, body, fault: this.fault });
      },
      (error) => {
        if (!this.isOver) this.broken(error);
      },
    );
  }

  override over(): void {
    super.over();
    this.content?.giveUp();
  }

  private ownOf(step: Pass, fields: Fields): Pass['edits']['own'] {
    const own = step.compression?.vary === true ? withVary(step, fields) : step.edits.own;
    const sticky = stickyCookie(this.pool!, this.exchange.endpoint, this.client.facts.headers);
    return sticky === undefined ? own : [...own, sticky];
  }

  takesFault(fault: Fault): boolean {
    if (!this.forwarding || (fault.side === 'downstream' && fault.code !== 'body-too-large')) return false;
    this.forwarding = false;
    this.fault = fault.code;
    if (fault.code === 'body-too-large') this.client.ignoreBody();
    this.next = this.decide(() => this.run.failed(fault.status));
    return true;
  }

  private decide(next: () => Step): Step | undefined {
    try {
      return next();
    } catch (error) {
      this.broken(error);
      return undefined;
    }
  }

  proceed() {
    const { next, isRepeating } = this;
    this.next = undefined;
    this.isRepeating = false;
    if (isRepeating) this.exchange.tryNext();
    else if (next !== undefined && !this.isOver) this.carryOut(next);
  }

  // --- To the client ---

  protected finish(step: LastStep) {
    const { exchange, client } = this;
    exchange.logged = step.logged;
    // From here on nothing is asked of an upstream, and what fails is told without rules.
    switch (step.do) {
      case 'close':
        return client.close();
      case 'own':
        return this.replyOwn(step);
      case 'pass':
        return step.of === 'answer' ? this.passAnswer(step) : this.replyBare(step);
      case 'file':
        return this.sendFile(step);
    }
  }

  private replyOwn({ status, fields: own, body, compression }: Own): void {
    const fields = variedFields(pairsOf(own), compression);
    const coding = codingOf(compression);
    const bytes = body === undefined ? undefined : Buffer.from(body, 'latin1');
    if (bytes !== undefined && coding !== undefined)
      this.replyRecoded(status, recodedFields(fields, coding.encoding), bytes, coding);
    else this.client.reply({ status, fields, body: bytes, fault: this.fault });
  }

  /** The reply of the service that was asked. */
  private passAnswer({ status, edits }: Pass): void {
    const { answer } = this;
    const kept = (answer?.sent ?? []).filter(
      ([name]) => !edits.hidden.has(name.toLowerCase()) && !edits.removed.includes(name.toLowerCase()),
    );
    this.client.reply({
      status,
      fields: [...kept, ...pairsOf(edits.own)],
      body: answer?.body ?? Buffer.alloc(0),
      fault: undefined,
    });
  }

  /** A status that has no body, in the place of one that has, or the other way round. */
  private replyBare({ status, edits }: Pass): void {
    this.client.reply({ status, fields: pairsOf(edits.own), body: Buffer.alloc(0), fault: undefined });
  }

  private sendFile(step: SendFile): void {
    const { facts } = this.client;
    sendFile(step, this.run.method, facts.headers).then(
      (file) => {
        if (this.isOver) return file?.body?.destroy();
        if (file === undefined) return this.resume(() => this.run.failed(404));
        const { status, fields } = file;
        if (status >= 400 && step.status === 200) {
          const told = fields.map(([name, value]) => ({ name, value }));
          return this.resume(() => this.run.failed(status, told));
        }
        this.passFile(file, step);
      },
      (error) => {
        if (!this.isOver) this.broken(error);
      },
    );
  }

  private passFile(file: FileReply, step: SendFile) {
    const { status, body, bytes, length } = file;
    const fields = variedFields(file.fields, step.compression);
    const coding = fileCoding(file, step);
    if (coding !== undefined) {
      const recoded = recodedFields(fields, coding.encoding);
      if (body === undefined) return this.replyRecoded(status, recoded, bytes!, coding);
      return this.client.stream(status, recoded, recodeStream(body, coding), undefined);
    }
    if (body !== undefined) return this.client.stream(status, fields, body, length);
    this.client.reply({ status, fields, body: bytes ?? Buffer.alloc(0), fault: undefined });
  }
}

/** Whether a file, or a list of them, is sent in another form. A part of a file is not. */
function fileCoding({ status, length, bytes }: FileReply, step: SendFile): Coding | undefined {
  const size = length ?? bytes?.length ?? 0;
  if (status !== step.status || size < (step.compression?.minBytes ?? 0) || size === 0) return undefined;
  return codingOf(step.compression);
}

/** A sub-request on its way through the rules. */
class InnerSteps extends RuleSteps {
  private readonly client: RuledClient;
  private readonly answered: (answer: Answer | undefined) => void;
  private question: Asking | undefined = undefined;

  constructor(
    client: RuledClient,
    service: RulesInUse,
    run: Ask['run'],
    answered: (answer: Answer | undefined) => void,
  ) {
    super(run, service);
    this.client = client;
    this.answered = answered;
  }

  begin(): void {
    this.resume(() => this.run.start());
  }

  protected broken(): void {
    this.tell(undefined);
  }

  protected tooBusy(): void {
    this.tell(undefined);
  }

  /** A question asks no other. */
  protected ask(_: Ask, answered: (answer: Answer | undefined) => void): Asking {
    answered(undefined);
    return { giveUp() {} };
  }

  protected forward(step: Forward) {
    const { client, run } = this;
    const { exchange } = client;
    const { context, connection } = exchange;
    const match = forwardMatch(undefined, step);
    const asked = {
      method: step.method,
      target: step.target,
      host: step.host ?? client.facts.host,
      fields: fieldsFor(
        client,
        { ...step, upgrade: false },
        {
          clientAddress: exchange.connection.clientAddress,
          own: exchange.fieldsOfQuestion,
          withBody: false,
        },
      ),
      match,
    };
    this.question = ask(context, connection, asked, (outcome) => {
      this.question = undefined;
      if (outcome instanceof Fault) return this.resume(() => run.failed(outcome.status));
      this.answer = outcome;
      this.resume(() => run.replied(outcome));
    });
  }

  protected finish(step: LastStep) {
    const { answer } = this;
    if (step.do === 'pass') return this.tell(answer && { ...answer, status: step.status });
    if (step.do === 'close') return this.tell(undefined);
    const sent = pairsOf(step.do === 'file' ? step.fieldsWith([]) : step.fields);
    this.tell({
      status: step.status,
      sent,
      fields: { all: (wanted) => sent.filter(([name]) => name.toLowerCase() === wanted).map(([, v]) => v) },
      body: Buffer.alloc(0),
    });
  }

  private tell(answer: Answer | undefined): void {
    if (this.isOver) return;
    super.over();
    this.answered(answer);
  }

  override over(): void {
    super.over();
    this.question?.giveUp();
  }
}

/** As `$upstream_addr` has it. */
function addressText({ host, port }: Address): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}

/** One object for all that is forwarded alike: whoever counts requests knows it by sight. */
const knownMatches = new WeakMap<RouteMatch, ForwardMatch[]>();
const MOST_KNOWN = 32;

function forwardMatch(match: RouteMatch | undefined, { pool, maxBodyBytes }: Forward): ForwardMatch {
  const most = maxBodyBytes > 0 ? maxBodyBytes : (match?.maxBodyBytes ?? NO_LIMIT);
  const known = match && knownMatches.get(match);
  const before = known?.find(({ upstream, maxBodyBytes }) => upstream === pool && maxBodyBytes === most);
  if (before !== undefined) return before;
  const made: ForwardMatch = {
    route: match?.route ?? pool.name,
    captures: match?.captures ?? {},
    rules: undefined,
    maxBodyBytes: most,
    answeredBy: undefined,
    upstream: pool,
  };
  if (match === undefined) return made;
  if (known === undefined) knownMatches.set(match, [made]);
  // Pools of URLs that are put together of variables are without number.
  else if (known.length < MOST_KNOWN) known.push(made);
  return made;
}

function pairsOf(fields: readonly { readonly name: string; readonly value: string }[]): OwnFields {
  return fields
    .filter(({ name }) => isOwnable(name.toLowerCase()))
    .map(({ name, value }) => [name, value] as const);
}

/** Whether a reply's body fits to the status that the client is told. */
function keepsBody(sent: number, told: number): boolean {
  return sent === told || hasBody(sent) === hasBody(told);
}

function hasBody(status: number): boolean {
  return status >= 200 && status !== 204 && status !== 205 && status !== 304;
}

function withVary({ edits, compression }: Pass, fields: Fields): Pass['edits']['own'] {
  const passing = edits.removed.includes('vary') ? [] : fields.all('vary');
  const before = [...passing.map((value) => ['Vary', value] as const), ...pairsOf(edits.own)];
  const isNew = variedFields(before, compression).length > before.length;
  return isNew ? [...edits.own, { name: 'Vary', value: 'Accept-Encoding' }] : edits.own;
}
