// One request on its way through the rules: phases in nginx's order, stopping at each step that somebody else carries out.

import { isDeepStrictEqual } from 'node:util';
import { gate } from './access.ts';
import type {
  CompiledErrorPage,
  CompiledRules,
  CompiledSite,
  Facts,
  Field,
  Fields,
  Operation,
  Place,
  Reply,
} from './compiled.ts';
import { type Compression, compression } from './compress.ts';
import { answer, contentTypeOf, document, tryFiles } from './content.ts';
import { isPreflight } from './cors.ts';
import { findLocation, type Watch } from './location.ts';
import { fits } from './match.ts';
import { SubjectTooLong } from './pattern.ts';
import type { Captures } from './pattern-machine.ts';
import { realAddress } from './real-ip.ts';
import { redirectTarget } from './redirect.ts';
import { ownReplyFields, upstreamReplyEdits } from './reply-headers.ts';
import { type LookKind, type Outcome, resumeProgram, runProgram, type WatchOperation } from './rewrite.ts';
import { hostName } from './site.ts';
import type { Ask, Check, Control, Resumable, Step } from './step.ts';
import { type DecodedPath, decodePath, escapePath, splitQuery } from './uri.ts';

/** Told of what is decided, for `--explain`. */
export interface Watcher {
  readonly place: Watch;
  readonly operation: WatchOperation;
  /** A sentence about what happens next. */
  readonly event: (text: string, origin: string | undefined) => void;
}

/** Undefined: no site takes this host. Otherwise call start(), and carry out what it says. */
export function beginRun(rules: CompiledRules, facts: Facts, watcher?: Watcher): RuleRun | undefined {
  const host = hostName(facts.host);
  const site = rules.find(host);
  if (site === undefined) return undefined;
  const question = facts.target.indexOf('?');
  const path = question < 0 ? facts.target : facts.target.slice(0, question);
  // RFC 9110 §9.3.7: `*` is the server as a whole, for which its root answers.
  const decoded = decodePath(path === '*' ? '/' : path, site.mergeSlashes);
  return new RuleRun(rules, facts, site, host, decoded, watcher);
}

/** So many rewrites, internal redirects and error pages, then it is a circle. */
const MOST_CHANGES = 10;
/** With these faults a certificate may still be the rules' own to judge (optional_no_ca). */
const UNKNOWN_SIGNERS: ReadonlySet<string> = new Set([
  'CERT_UNTRUSTED',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
]);
const NONE: readonly Field[] = [];
const NO_CAPTURES: Captures = [];

export class RuleRun implements Control, Resumable {
  readonly facts: Facts;
  readonly rules: CompiledRules;
  readonly site: CompiledSite;
  readonly host: string;
  readonly quoted: boolean;
  readonly plus: boolean;
  client: string;
  method: string;
  uri: string;
  args: string;
  place: Place;
  captures: Captures = NO_CAPTURES;
  targetHolds = true;
  placeHolds = true;
  uriChanged = false;
  escapesCaptures = false;
  internal = false;
  slots: (string | undefined)[];
  user = '';
  reply: Reply | undefined;
  status = 0;
  sent: readonly Field[] = NONE;
  told: readonly Field[] = NONE;
  proxyHost = '';
  isSub = false;
  asker: RuleRun | undefined;
  copied: readonly Field[] = NONE;
  bodyGone = false;
  keptType: string | undefined;

  readonly #decoded: boolean;
  readonly #watcher: Watcher | undefined;
  #changes = 0;
  #limited = false;
  /** What the client is told whatever the reply says; 0: what the reply says. */
  #told = 0;
  #onErrorPage = false;
  /** Survive what is made of the reply: WWW-Authenticate, what a sub-request gave for the client. */
  #extra: readonly Field[] = NONE;
  #then: ((result: never) => Step) | undefined;
  /** Of a sub-request: how it begins, and whether its reply is told as it comes. */
  #first: (() => Step) | undefined;
  #isQuestion = false;

  constructor(
    rules: CompiledRules,
    facts: Facts,
    site: CompiledSite,
    host: string,
    decoded: DecodedPath | undefined,
    watcher: Watcher | undefined,
  ) {
    this.rules = rules;
    this.facts = facts;
    this.site = site;
    this.host = host === '' ? site.label : host;
    this.#decoded = decoded !== undefined;
    this.uri = decoded?.uri ?? '';
    this.quoted = decoded?.quoted ?? false;
    this.plus = decoded?.plus ?? false;
    const question = facts.target.indexOf('?');
    this.args = question < 0 ? '' : facts.target.slice(question + 1);
    this.client = facts.clientAddress;
    this.method = facts.method;
    this.place = site.place;
    this.slots = new Array<string | undefined>(rules.slotCount);
    this.#watcher = watcher;
  }

  start(): Step {
    return this.#safely(() => {
      if (this.#first !== undefined) return this.#first();
      if (!this.#decoded) return this.fail(400);
      const { matchers } = this.site;
      if (matchers.length > 0 && !this.site.hasName(this.host))
        for (const one of matchers) if (fits(one, this.host, this)) break;
      this.#findClient();
      return this.#certificateFault() ?? this.#siteProgram();
    });
  }

  looked(found: boolean): Step {
    return this.#resume(found);
  }

  charged(result: { readonly waitMs: number } | 'requests' | 'seats'): Step {
    return this.#resume(result);
  }

  waited(): Step {
    return this.#resume(undefined);
  }

  checked(right: boolean | 'busy'): Step {
    return this.#resume(right);
  }

  answered(given: Reply | undefined): Step {
    return this.#resume(given);
  }

  replied(reply: Reply): Step {
    return this.#safely(() => {
      this.reply = reply;
      if (this.#isQuestion) return this.#pass('reply', reply);
      const { forward, errors } = this.place.settings;
      const accel = forward.accelRedirect ? reply.fields.all('x-accel-redirect')[0] : undefined;
      if (accel !== undefined) return this.#accelerate(accel, reply.fields);
      if (reply.status >= 300 && errors.intercept && errors.pages.has(reply.status))
        return this.fail(reply.status, reply.status === 401 ? challengesOf(reply.fields) : NONE);
      return this.#pass('reply', reply);
    });
  }

  failed(status: number, fields?: readonly Field[]): Step {
    return this.#safely(() => (this.#isQuestion ? this.#plain(503) : this.fail(status, fields)));
  }

  // Phases

  /** A pattern that cannot be tried on so long a text has decided nothing: the request goes no further. */
  #safely(step: () => Step): Step {
    try {
      return step();
    } catch (error) {
      if (error instanceof SubjectTooLong) return this.#plain(414);
      throw error;
    }
  }

  #resume(result: unknown): Step {
    const then = this.#then as ((result: unknown) => Step) | undefined;
    if (then === undefined) throw new Error('a run of rules was resumed that waits for nothing');
    this.#then = undefined;
    return this.#safely(() => then(result));
  }

  #findClient(): void {
    const { realIp } = this.place.settings;
    if (realIp !== undefined && this.client === this.facts.clientAddress)
      this.client = realAddress(realIp, this.facts.clientAddress, this.facts.headers);
  }

  #certificateFault(): Step | undefined {
    const { clientAuth } = this.site;
    if (clientAuth === undefined) return undefined;
    // RFC 9110 §15.5.20: what was shown under another name was not judged by this site's rules.
    if (!isDeepStrictEqual(this.facts.tls?.clientAuth, clientAuth)) return this.fail(421);
    const client = this.facts.tls?.client;
    // nginx's own statuses, which error pages can name; clients are told 400.
    if (client === undefined) return clientAuth.mode === 'require' ? this.fail(496) : undefined;
    if (client.fault === undefined) return undefined;
    return clientAuth.mode === 'unverified' && UNKNOWN_SIGNERS.has(client.fault) ? undefined : this.fail(495);
  }

  #siteProgram(): Step {
    this.place = this.site.place;
    this.uriChanged = false;
    const { program } = this.place;
    if (program.length === 0) return this.#find();
    return this.#concluded(runProgram(program, 0, this, this.#watcher?.operation), program, () =>
      this.#find(),
    );
  }

  #concluded(outcome: Outcome, program: readonly Operation[], next: () => Step): Step {
    switch (outcome.did) {
      case 'end':
        return next();
      case 'fail':
        return this.fail(500);
      case 'return':
        return this.#returned(outcome);
      case 'look':
        return this.look(outcome.kind, outcome.path, undefined, (found) =>
          this.#concluded(
            resumeProgram(program, outcome.at, found, this, this.#watcher?.operation),
            program,
            next,
          ),
        );
    }
  }

  #returned({ status, body, location }: Outcome & { did: 'return' }): Step {
    const isSilent = status === 444 || status === 499 || (status === 408 && body === undefined);
    if (isSilent) return { do: 'close', logged: this.#logged(status) };
    if (location !== undefined) return this.redirect(status, location);
    if (body === undefined && status >= 300) return this.fail(status);
    if ((this.#told || status) === 204) return this.own(status, NONE, '');
    return this.own(status, [{ name: 'Content-Type', value: contentTypeOf(this) }], body ?? '');
  }

  #find(): Step {
    this.uriChanged = false;
    const found = this.site.place.inner && findLocation(this.site.place.inner, this, this.#watcher?.place);
    this.#enter(found?.place ?? this.site.place);
    if (this.place.internal && !this.internal) return this.fail(404);
    const { maxBodyBytes, maxHeaderBytes } = this.place.settings;
    if (maxHeaderBytes > 0 && this.facts.headerBytes > maxHeaderBytes) return this.fail(431);
    if (maxBodyBytes > 0 && this.facts.contentLength > maxBodyBytes && !this.bodyGone) {
      this.bodyGone = true;
      return this.fail(413);
    }
    if (found?.slash === true) {
      const args = this.args === '' ? '' : `?${this.args}`;
      return this.redirect(301, escapePath(this.place.path) + args);
    }
    return this.#placeProgram();
  }

  #enter(place: Place): void {
    const { limitExcept } = place;
    this.place =
      limitExcept === undefined || limitExcept.methods.has(this.method) ? place : limitExcept.place;
    this.#watcher?.event(this.place.written, this.place.origin);
  }

  #placeProgram(): Step {
    // A site's own program has run before.
    const program = this.place.kind === 'site' ? [] : this.place.program;
    if (program.length === 0) return this.#limits();
    const outcome = runProgram(program, 0, this, this.#watcher?.operation);
    return this.#concluded(outcome, program, () => this.#afterProgram());
  }

  #afterProgram(): Step {
    if (!this.uriChanged) return this.#limits();
    return this.#isCircle() ? this.fail(500) : this.#find();
  }

  #isCircle(): boolean {
    this.#changes++;
    return this.#changes > MOST_CHANGES;
  }

  /** Once a request, however many locations it passes. */
  #limits(): Step {
    this.#findClient();
    const { settings } = this.place;
    const isLimited = settings.requestLimits.length + settings.connectionLimits.length > 0;
    if (!isLimited || this.#limited || this.isSub) return this.#access();
    const charges = settings.requestLimits
      .map(({ zone, key, burst, delay }) => ({ zone, key: key(this), burst, delay }))
      .filter(({ key }) => key !== '');
    const seats = settings.connectionLimits
      .map(({ zone, key, max }) => ({ zone, key: key(this), max }))
      .filter(({ key }) => key !== '');
    if (charges.length + seats.length === 0) return this.#access();
    this.#limited = true;
    this.#then = (result: { readonly waitMs: number } | 'requests' | 'seats') => {
      if (result === 'requests') return this.fail(settings.requestLimitStatus);
      if (result === 'seats') return this.fail(settings.connectionLimitStatus);
      if (result.waitMs <= 0) return this.#access();
      this.#then = () => this.#access();
      return { do: 'wait', ms: result.waitMs };
    };
    return { do: 'charge', charges, seats };
  }

  #access(): Step {
    const { access, reply } = this.place.settings;
    // A browser sends no credentials with the question whether it may ask.
    if (reply.cors !== undefined && isPreflight(this)) return this.own(204, NONE, '');
    if (access === undefined || this.isSub) return this.#content();
    return gate(access, this, {
      through: () => this.#content(),
      check: (step, then) => this.#pausedCheck(step, then),
      ask: (uri, then) => this.#askUri(uri, then),
      askStep: (step, then) => this.#askStep(step, then),
      refuse: (given) => this.#pass('answer', given),
      keep: (fields, forClient) => this.#keep(fields, forClient),
    });
  }

  #pausedCheck(step: Check, then: (right: boolean) => Step): Step {
    this.#then = (right: boolean | 'busy') => (right === 'busy' ? this.fail(503) : then(right));
    return step;
  }

  #askUri(target: string, then: (given: Reply | undefined) => Step): Step {
    const { uri, args } = splitQuery(target);
    const sub = this.#subRun(uri, args);
    sub.#first = () => sub.#siteProgram();
    this.#then = then;
    return { do: 'ask', run: sub, keepsBody: false };
  }

  #askStep(step: Step, then: (given: Reply | undefined) => Step): Ask {
    const sub = this.#subRun(this.uri, this.args);
    sub.#first = () => step;
    sub.#isQuestion = true;
    this.#then = then;
    return { do: 'ask', run: sub, keepsBody: true };
  }

  /** A GET within the same site; variables are shared. */
  #subRun(uri: string, args: string): RuleRun {
    const sub = new RuleRun(this.rules, this.facts, this.site, this.host, undefined, this.#watcher);
    sub.uri = uri;
    sub.args = args;
    sub.method = 'GET';
    sub.client = this.client;
    sub.slots = this.slots;
    sub.captures = this.captures;
    sub.isSub = true;
    sub.asker = this;
    sub.internal = true;
    sub.targetHolds = false;
    return sub;
  }

  #keep(fields: readonly Field[], forClient: boolean): void {
    if (forClient) this.#extra = [...this.#extra, ...fields];
    else this.copied = fields;
  }

  #content(): Step {
    return tryFiles(this, () => answer(this, this.place.content));
  }

  // What the parts call

  look(kind: LookKind, path: string, root: string | undefined, then: (found: boolean) => Step): Step {
    this.#then = then;
    return { do: 'look', kind, path, root };
  }

  goTo(uri: string, args: string): Step {
    if (this.#isCircle()) return this.#plain(500);
    this.#watcher?.event(`internal redirect to ${uri}`, undefined);
    this.uri = uri;
    this.args = args;
    this.internal = true;
    this.targetHolds = false;
    this.placeHolds = true;
    return this.#siteProgram();
  }

  goToNamed(name: string): Step {
    const place = this.site.named.get(name);
    if (place === undefined || this.#isCircle()) return this.#plain(500);
    this.internal = true;
    this.uriChanged = false;
    this.#enter(place);
    return this.#placeProgram();
  }

  redirect(status: number, location: string): Step {
    return this.fail(status, location === '' ? NONE : [{ name: 'Location', value: location }]);
  }

  fail(status: number, fields: readonly Field[] = NONE): Step {
    this.#told = status;
    this.status = status;
    const { errors } = this.place.settings;
    if (!this.#onErrorPage && errors.pages.size > 0 && this.#changes <= MOST_CHANGES) {
      if (!errors.recursive) this.#onErrorPage = true;
      const page = errors.pages.get(status);
      if (page !== undefined) return this.#errorPage(page, status, fields);
    }
    return this.#plain(status, fields);
  }

  #errorPage(
    { status: overwrite, target, origin }: CompiledErrorPage,
    status: number,
    fields: readonly Field[],
  ): Step {
    this.#watcher?.event(`error page of ${status}`, origin);
    if (overwrite !== undefined) this.#told = overwrite === 'target' ? 0 : overwrite;
    this.status = this.#told;
    const challenges = fields.filter(({ name }) => name === 'WWW-Authenticate');
    if (target.kind === 'document') {
      const { html, json } = target;
      return document(this, this.#told || status, html, json, fields) ?? this.#plain(status, fields);
    }
    this.#extra = [...this.#extra, ...challenges];
    const text = target.text(this);
    if (text.startsWith('@')) return this.goToNamed(text);
    if (text.startsWith('/')) {
      const { uri, args } = splitQuery(text);
      if (this.method !== 'HEAD') this.method = 'GET';
      this.bodyGone = true;
      return this.goTo(uri, args);
    }
    const redirecting = typeof overwrite === 'number' && [301, 302, 303, 307, 308].includes(overwrite);
    return this.#plain(redirecting ? overwrite : 302, [{ name: 'Location', value: text }]);
  }

  /** Without an error page of the rules. */
  #plain(status: number, fields: readonly Field[] = NONE): Step {
    this.#told = status >= 494 && status <= 497 ? 400 : status;
    return this.own(this.#told, fields, undefined);
  }

  own(status: number, fields: readonly Field[], body: string | undefined): Step {
    const told = this.#told || status;
    const located = fields.map((field) =>
      field.name === 'Location' ? { name: field.name, value: redirectTarget(this, field.value) } : field,
    );
    const final = ownReplyFields(
      this,
      told,
      this.#extra.length === 0 ? located : [...located, ...this.#extra],
    );
    const sized = body === undefined ? NONE : [{ name: 'Content-Length', value: String(body.length) }];
    return {
      do: 'own',
      status: told,
      fields: final,
      body,
      compression: body === undefined ? undefined : this.#compression(told, ofOwn([...final, ...sized])),
      logged: this.#logged(told),
    };
  }

  file(path: string, root: string, listing: boolean): Step {
    const status = this.#told || 200;
    const contentType = listing ? 'text/html; charset=utf-8' : contentTypeOf(this);
    const type = { name: 'Content-Type', value: contentType };
    return {
      do: 'file',
      path,
      root,
      status,
      contentType,
      etag: this.place.settings.files.etag,
      listing,
      fieldsWith: (version) => ownReplyFields(this, status, [type, ...version, ...this.#extra]),
      compression: this.#compression(status, ofOwn([type])),
      logged: this.#logged(status),
    };
  }

  #pass(of: 'reply' | 'answer', reply: Reply): Step {
    const status = of === 'answer' ? reply.status : this.#told || reply.status;
    const edits = upstreamReplyEdits(this, status, reply.fields);
    const { fixed } = this.place.settings.reply;
    return {
      do: 'pass',
      of,
      status,
      isFixed: this.#extra.length === 0 && (edits === fixed?.usual || edits === fixed?.others),
      edits: this.#extra.length === 0 ? edits : { ...edits, own: [...edits.own, ...this.#extra] },
      compression: this.#compression(status, reply.fields),
      logged: this.#logged(status),
    };
  }

  #compression(status: number, fields: Fields): Compression | undefined {
    const { compress } = this.place.settings.reply;
    return compress === undefined ? undefined : compression(this, compress, status, fields);
  }

  #logged(status: number): boolean {
    this.status = status;
    return this.place.settings.accessLog(this);
  }

  /** X-Accel-Redirect: what it leads to answers, with some of the upstream's fields. */
  #accelerate(target: string, fields: Fields): Step {
    this.keptType = fields.all('content-type')[0];
    this.#extra = [...this.#extra, ...acceleratedFields(fields)];
    if (target.startsWith('@')) return this.goToNamed(target);
    const { uri, args } = splitQuery(target);
    const decoded = uri.startsWith('/') && !isClimbing(uri) ? decodePath(uri, true) : undefined;
    if (decoded === undefined) return this.fail(404);
    if (this.method !== 'HEAD') this.method = 'GET';
    this.bodyGone = true;
    return this.goTo(decoded.uri, args);
  }
}

function acceleratedFields(fields: Fields): Field[] {
  return ['Set-Cookie', 'Content-Disposition', 'Cache-Control', 'Expires', 'Accept-Ranges'].flatMap((name) =>
    fields.all(name.toLowerCase()).map((value) => ({ name, value })),
  );
}

/** An upstream's way to a file holds no `..`, however it is spelled. */
function isClimbing(path: string): boolean {
  return /(?:^|\/)\.\.(?:\/|$)/.test(path.replaceAll(/%2e/gi, '.').replaceAll(/%2f/gi, '/'));
}

function challengesOf(fields: Fields): Field[] {
  return fields.all('www-authenticate').map((value) => ({ name: 'WWW-Authenticate', value }));
}

function ofOwn(fields: readonly Field[]): Fields {
  return {
    all: (name) => fields.filter((field) => field.name.toLowerCase() === name).map(({ value }) => value),
  };
}
