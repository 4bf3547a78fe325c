// What rules decide, one step at a time: whoever carries a step out resumes the run with what came of it.

import type { Field, FieldEdits, Pool, Reply, Run } from './compiled.ts';
import type { Compression } from './compress.ts';
import type { FieldNames } from './field-names.ts';
import type { Charge, Seat } from './limits.ts';
import type { Retry } from './model.ts';
import type { LookKind } from './rewrite.ts';

/** The last three are ends; the run is resumed after a forward as well, with the reply or with what failed. */
export type Step = Look | Charging | Waiting | Check | Ask | Forward | Pass | Own | SendFile | Close;

/** A run that waits for what came of its last step. */
export interface Resumable {
  start(): Step;
  /** After `look`: whether it is there and of that kind. */
  looked(found: boolean): Step;
  /** After `charge`: how long to wait, or which limit forbids it. */
  charged(result: { readonly waitMs: number } | 'requests' | 'seats'): Step;
  /** After `wait`. */
  waited(): Step;
  /** After `check`. `busy`: nobody could say. */
  checked(right: boolean | 'busy'): Step;
  /** After `ask`. Undefined: no reply came. */
  answered(answer: Reply | undefined): Step;
  /** After `forward`. */
  replied(reply: Reply): Step;
  /** After `forward` or `file`: a status that says what failed (RFC 9110 §15). */
  failed(status: number, fields?: readonly Field[]): Step;
}

/** What the parts of a run can do with it. */
export interface Control extends Run {
  /** Of a sub-request whose body nobody reads. */
  readonly isSub: boolean;
  /** Fields that a sub-request gave for the upstream; empty values only remove. */
  readonly copied: readonly Field[];
  /** Content-Type of the upstream whose X-Accel-Redirect led here. */
  readonly keptType: string | undefined;
  /** The body has been given up, for an error page. */
  readonly bodyGone: boolean;
  look(kind: LookKind, path: string, root: string | undefined, then: (found: boolean) => Step): Step;
  /** An error of ours, or its page. */
  fail(status: number, fields?: readonly Field[]): Step;
  own(status: number, fields: readonly Field[], body: string | undefined): Step;
  file(path: string, root: string, listing: boolean): Step;
  redirect(status: number, location: string): Step;
  /** An internal redirect: locations are looked for anew. */
  goTo(uri: string, args: string): Step;
  goToNamed(name: string): Step;
}

/** What is at a path of the disk? -> run.looked(). */
export interface Look {
  readonly do: 'look';
  readonly kind: LookKind;
  readonly path: string;
  /** No part of the path below it may lead out of it. Undefined: a condition of the rules looks anywhere. */
  readonly root: string | undefined;
}

/** May it go on, by the limits? -> run.charged(). Seats that are taken are left when the request is over. */
export interface Charging {
  readonly do: 'charge';
  readonly charges: readonly Charge[];
  readonly seats: readonly Seat[];
}

/** -> run.waited(). */
export interface Waiting {
  readonly do: 'wait';
  readonly ms: number;
}

/** Is this the password? Off the event loop -> run.checked(). `hash` undefined: the user is unknown; take as long as for `like`. */
export interface Check {
  readonly do: 'check';
  readonly hash: string | undefined;
  /** Another user's. */
  readonly like: string | undefined;
  readonly password: string;
}

/**
 * A request of our own, without a body: carry out `run` to its end -> answered() of the run that asks, with the reply that
 * is passed, or with what it says itself. The body of the reply is dropped unless `keepsBody`.
 */
export interface Ask {
  readonly do: 'ask';
  readonly run: Resumable;
  /** A reply that does not let through is the client's: Pass with `of: 'answer'`. */
  readonly keepsBody: boolean;
}

/** -> run.replied() with the head of the reply, or run.failed(). */
export interface Forward {
  readonly do: 'forward';
  readonly pool: Pool;
  /** What `hash` balances by; empty where nothing does. */
  readonly hashKey: string;
  readonly method: string;
  readonly target: string;
  /** Undefined: the client's Host. */
  readonly host: string | undefined;
  /** Lower-case names of which none of the client's passes. */
  readonly removed: FieldNames;
  /** What of what we say of a request the rules have said, or removed: bits of saidBit(). */
  readonly says: number;
  /** In order, names as written. */
  readonly own: readonly Field[];
  readonly passHeaders: boolean;
  readonly passBody: boolean;
  readonly passUnderscores: boolean;
  readonly passInvalid: boolean;
  /** Whether X-Forwarded-* and kin of ours are added where rules set none. */
  readonly forwardedFields: boolean;
  /** What is asked for is granted, or only if the rules say so: undefined leaves it to the client. */
  readonly upgrade: boolean | undefined;
  readonly retry: Retry | undefined;
  /** 0: no limit. A longer body is run.failed(413). */
  readonly maxBodyBytes: number;
}

/** The reply goes to the client with its body. */
export interface Pass {
  readonly do: 'pass';
  /** The upstream's, or that of a sub-request that did not let through. */
  readonly of: 'reply' | 'answer';
  readonly status: number;
  readonly edits: FieldEdits;
  /** The edits are the same object for all replies of a place. */
  readonly isFixed: boolean;
  readonly compression: Compression | undefined;
  readonly logged: boolean;
}

/** A reply of our own. */
export interface Own {
  readonly do: 'own';
  readonly status: number;
  readonly fields: readonly Field[];
  /** Bytes. Undefined: the usual page of this status, by Accept. */
  readonly body: string | undefined;
  readonly compression: Compression | undefined;
  readonly logged: boolean;
}

/** A file, with ranges and conditions as RFC 9110 §13 and §14 have them. Gone meanwhile -> run.failed(404). */
export interface SendFile {
  readonly do: 'file';
  readonly path: string;
  readonly root: string;
  readonly status: number;
  readonly contentType: string;
  readonly etag: boolean;
  /** A folder's names are listed. */
  readonly listing: boolean;
  /** All of them, but for ranges: `version` is what tells this version of the file from others. */
  fieldsWith(version: readonly Field[]): readonly Field[];
  readonly compression: Compression | undefined;
  readonly logged: boolean;
}

/** Without a word (nginx's 444). */
export interface Close {
  readonly do: 'close';
  readonly logged: boolean;
}
