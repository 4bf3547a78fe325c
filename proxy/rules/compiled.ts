// What compile() makes of a model: tables and functions; and the state of one request that these functions read.

import type { BlockList } from 'node:net';
import type { FieldNames } from './field-names.ts';
import type {
  ClientAuth,
  Compress,
  Cors,
  HeaderEdit,
  Origin,
  Retry,
  UpstreamServer,
  UpstreamTls,
} from './model.ts';
import type { CompiledPattern } from './pattern.ts';
import type { Captures } from './pattern-machine.ts';
import type { UpstreamSettings } from './routes.ts';

// One request

/** Header fields, whatever protocol they came by. Names in lower case; values as sent, Latin-1. */
export interface Fields {
  /** In the order they came. Empty: none. */
  all(name: string): readonly string[];
}

/** What is known of a request before any rule. Nothing in it is looked up unless a rule asks. */
export interface Facts {
  readonly method: string;
  /** As sent, in origin form (absolute form reduced to it) or `*`. */
  readonly target: string;
  /** Host or :authority, or the host of an absolute form, as sent. */
  readonly host: string;
  readonly protocol: 'HTTP/1.0' | 'HTTP/1.1' | 'HTTP/2.0';
  readonly scheme: 'http' | 'https';
  readonly headers: Fields;
  /** Of all fields together. */
  readonly headerBytes: number;
  /** -1: not said. */
  readonly contentLength: number;
  readonly clientAddress: string;
  readonly clientPort: number;
  readonly serverAddress: string;
  readonly serverPort: number;
  readonly tls: TlsFacts | undefined;
  /** How many connections came before, and which request of its connection it is. */
  readonly connection: number;
  readonly connectionRequests: number;
  /** When it began, in milliseconds of the epoch. */
  readonly startedAt: number;
  /** The same each time, 32 hexadecimal digits. */
  requestId(): string;
}

export interface TlsFacts {
  readonly protocol: string;
  readonly cipher: string;
  /** SNI. */
  readonly serverName: string;
  readonly resumed: boolean;
  /** What the handshake asked of the client's certificate; undefined: nothing. */
  readonly clientAuth: ClientAuth | undefined;
  readonly client: ClientCertificate | undefined;
}

export interface ClientCertificate {
  /** OpenSSL's name of what is wrong with it; undefined: nothing. */
  readonly fault: string | undefined;
  /** SUCCESS, or FAILED: and why. */
  readonly verify: string;
  readonly subject: string;
  readonly issuer: string;
  readonly serial: string;
  /** SHA-1 of it, in hexadecimal, as nginx has it. */
  readonly fingerprint: string;
  /** PEM. */
  readonly certificate: string;
  /** As in `Dec  1 12:00:00 2026 GMT`. */
  readonly validFrom: string;
  readonly validTo: string;
}

/** An upstream's reply, or that of a sub-request. */
export interface Reply {
  readonly status: number;
  readonly fields: Fields;
  /** Of all tries: `a, b`. */
  readonly addresses?: string;
  readonly statuses?: string;
  readonly milliseconds?: number;
}

export interface Field {
  readonly name: string;
  readonly value: string;
}

/** What the rules of one request read and write while it is under way. */
export interface Run {
  readonly facts: Facts;
  readonly rules: CompiledRules;
  readonly site: CompiledSite;
  /** Lower case, without port and final dot; the site's label where none was sent. */
  readonly host: string;
  /** After real_ip. */
  client: string;
  method: string;
  /** That of a sub-request: it is the client's request that `$request_method` is about. */
  readonly asker: Run | undefined;
  uri: string;
  args: string;
  place: Place;
  captures: Captures;
  /** The client's path held an escape, or a `+`. */
  readonly quoted: boolean;
  readonly plus: boolean;
  /** What the client sent is still what is asked for: it may go to the upstream byte for byte. */
  targetHolds: boolean;
  /** The URI begins with what the location matched. */
  placeHolds: boolean;
  /** A location is to be looked for again. */
  uriChanged: boolean;
  /** Captures in `set` and `if` are escaped: in a program up to its first rewrite that fits. */
  escapesCaptures: boolean;
  /** `internal` locations are open to it. */
  internal: boolean;
  /** Variables of rules, by slot. */
  readonly slots: (string | undefined)[];
  user: string;
  reply: Reply | undefined;
  /** What the client is told; 0: not known yet. */
  status: number;
  sent: readonly Field[];
  /** What a reply of ours has before rules add to it. */
  told: readonly Field[];
  proxyHost: string;
}

export type Value = (run: Run) => string;

export interface Matcher {
  readonly pattern: CompiledPattern;
  /** Of each named group: place among the captures, slot. */
  readonly named: readonly (readonly [capture: number, slot: number])[];
}

// Rules

export interface CompiledRules {
  /** Undefined: no site takes this host. */
  find(host: string): CompiledSite | undefined;
  /** The same without the default site. */
  findNamed(host: string): CompiledSite | undefined;
  readonly byDefault: CompiledSite | undefined;
  readonly sites: readonly CompiledSite[];
  readonly slotCount: number;
  /** All that the rules name. */
  readonly pools: readonly Pool[];
  /** The pool of a URL that was put together of variables. Undefined: it is no URL of a server. */
  poolFor(url: string, variant: PoolVariant): PoolOfUrl | undefined;
  readonly requestZones: readonly {
    readonly name: string;
    readonly perThousandSeconds: number;
    readonly maxKeys: number;
  }[];
}

export interface CompiledSite {
  readonly label: string;
  readonly origin: Origin | undefined;
  readonly mergeSlashes: boolean;
  readonly underscoresInHeaders: boolean;
  readonly ignoreInvalidHeaders: boolean;
  readonly clientAuth: ClientAuth | undefined;
  /** Holds outside all locations; its program is the site's own. */
  readonly place: Place;
  readonly named: ReadonlyMap<string, Place>;
  /** Of its names that are patterns. */
  readonly matchers: readonly Matcher[];
  /** Whether a plain name of it is this host: then its patterns leave no captures. */
  hasName(host: string): boolean;
}

/** Where a request has come to: a location, a site outside its locations, or an `if` that was true. */
export interface Place {
  readonly kind: 'site' | 'exact' | 'prefix' | 'segments' | 'pattern' | 'named';
  /** As people know it: `location /a`. */
  readonly written: string;
  readonly origin: Origin | undefined;
  /** The path that was matched as text; empty for patterns and names. */
  readonly path: string;
  readonly matcher: Matcher | undefined;
  readonly when: ((run: Run) => boolean) | undefined;
  readonly final: boolean;
  readonly internal: boolean;
  readonly addsSlash: boolean;
  readonly settings: Settings;
  readonly program: readonly Operation[];
  readonly content: CompiledContent;
  readonly tryFiles: CompiledTryFiles | undefined;
  readonly inner: Locations | undefined;
  readonly limitExcept: { readonly methods: ReadonlySet<string>; readonly place: Place } | undefined;
}

export interface Locations {
  /** Paths to which one of them adds a slash by a redirect. */
  readonly slashed: ReadonlySet<string>;
  exact(path: string): readonly Place[];
  /** The longest prefix first. */
  prefix(path: string): PrefixMatch | undefined;
  readonly patterns: readonly Place[];
}

export interface PrefixMatch {
  readonly places: readonly Place[];
  /** How many bytes of the path it is. */
  readonly length: number;
  readonly shorter: PrefixMatch | undefined;
}

/** A rewrite program, flat: `if` jumps over what it guards. */
export type Operation = (
  | { readonly op: 'set'; readonly name: string; readonly slot: number; readonly value: Value }
  | { readonly op: 'if'; readonly test: (run: Run) => boolean; readonly otherwise: number }
  | {
      readonly op: 'look';
      readonly kind: 'file' | 'directory' | 'exists' | 'executable';
      readonly path: Value;
      readonly not: boolean;
      readonly otherwise: number;
    }
  | { readonly op: 'enter'; readonly place: Place }
  | {
      readonly op: 'rewrite';
      readonly matcher: Matcher;
      readonly replacement: Replacement;
      readonly flag: 'next' | 'last' | 'break' | 'redirect' | 'permanent';
    }
  | {
      readonly op: 'return';
      readonly status: number;
      readonly body: Value | undefined;
      readonly location: Value | undefined;
    }
  | { readonly op: 'break' }
) & { readonly origin: Origin | undefined; readonly written: string };

export interface Replacement {
  readonly path: Value;
  /** Undefined: it has no `?`. */
  readonly args: Value | undefined;
  readonly keepsArgs: boolean;
}

// What holds at a place

export interface Settings {
  readonly realIp: RealIp | undefined;
  readonly maxBodyBytes: number;
  readonly maxHeaderBytes: number;
  readonly requestLimits: readonly CompiledLimit[];
  readonly requestLimitStatus: number;
  readonly connectionLimits: readonly CompiledConnectionLimit[];
  readonly connectionLimitStatus: number;
  readonly access: Access | undefined;
  readonly files: FileSettings;
  readonly forward: ForwardSettings;
  readonly reply: ReplySettings;
  readonly errors: ErrorSettings;
  readonly redirects: RedirectSettings;
  readonly accessLog: (run: Run) => boolean;
}

export interface AddressList {
  readonly four: BlockList;
  readonly six: BlockList;
}

export interface RealIp {
  readonly trusted: AddressList;
  readonly header: string;
  readonly recursive: boolean;
}

export interface CompiledLimit {
  readonly zone: number;
  readonly key: Value;
  readonly burst: number;
  readonly delay: number;
}

export interface CompiledConnectionLimit {
  readonly zone: string;
  readonly key: Value;
  readonly max: number;
}

export interface Access {
  readonly any: boolean;
  readonly addresses: readonly AddressTest[] | undefined;
  readonly basic:
    | {
        readonly realm: Value;
        readonly users: ReadonlyMap<string, string>;
        /** A user's hash, for those that there are not. */
        readonly like: string | undefined;
      }
    | undefined;
  readonly ask:
    | { readonly kind: 'uri'; readonly uri: Value }
    | {
        readonly kind: 'forward';
        readonly pool: Pool;
        readonly uri: Value;
        readonly headers: RequestHeaders;
        readonly copy: readonly string[];
        readonly copyToReply: readonly string[];
      }
    | undefined;
  readonly variables: readonly { readonly slot: number; readonly value: Value }[];
}

export interface AddressTest {
  readonly allow: boolean;
  readonly origin: Origin | undefined;
  /** Undefined: all. */
  readonly list: AddressList | undefined;
  readonly written: string;
}

export interface FileSettings {
  readonly root:
    | {
        readonly path: Value;
        readonly alias: boolean;
        /** What stands before its first variable, up to the last slash; empty: it has none. */
        readonly fixed: string;
      }
    | undefined;
  readonly index: readonly Value[];
  readonly listing: boolean;
  readonly types: ReadonlyMap<string, string>;
  readonly defaultType: string;
  readonly charset: string | undefined;
  readonly etag: boolean;
}

export interface RequestHeaders {
  /** Lower-case names of which the client's do not pass. */
  readonly removed: FieldNames;
  /** The bits of `removed`, as saidBit() has them. */
  readonly says: number;
  readonly own: readonly {
    readonly name: string;
    readonly lower: string;
    readonly do: HeaderEdit['do'];
    readonly value: Value;
    /** The whole field, where its value holds no variable. */
    readonly field: Field | undefined;
    /** saidBit() of its name. */
    readonly says: number;
    /** The relay's own, which rules cannot set: they say no more by it than whether they ask for an upgrade. */
    readonly framing: boolean;
  }[];
}

export interface ForwardSettings {
  readonly headers: RequestHeaders;
  readonly passHeaders: boolean;
  readonly passBody: boolean;
  readonly forwardedFields: boolean;
  readonly method: Value | undefined;
  readonly upgrades: 'as-asked' | 'if-set';
  readonly retry: Retry | undefined;
  readonly hidden: FieldNames;
  readonly redirects: readonly (TextRewrite | 'default')[];
  readonly cookies: CookieRules | undefined;
  readonly accelRedirect: boolean;
}

export type TextRewrite =
  | { readonly kind: 'text'; readonly from: Value; readonly to: Value }
  | { readonly kind: 'pattern'; readonly from: Matcher; readonly to: Value };

export interface CookieRules {
  readonly paths: readonly TextRewrite[];
  readonly domains: readonly TextRewrite[];
  readonly flags: readonly {
    readonly cookie: { readonly text: Value } | { readonly matcher: Matcher };
    readonly set: readonly string[];
    readonly remove: readonly string[];
  }[];
}

export interface ReplySettings {
  readonly added: readonly {
    readonly name: string;
    readonly lower: string;
    readonly value: Value;
    readonly field: Field | undefined;
    readonly always: boolean;
  }[];
  readonly edits: RequestHeaders['own'];
  /** What becomes of an upstream's reply where nothing of it depends on the request: the same objects for all. */
  readonly fixed: { readonly usual: FieldEdits; readonly others: FieldEdits } | undefined;
  readonly expires: { readonly value: Value; readonly modified: boolean } | undefined;
  readonly compress: Compress | undefined;
  readonly cors: Cors | undefined;
}

/** What becomes of a reply's fields. A name that is in `hidden` or `removed` does not pass; then `own` follow in order. */
export interface FieldEdits {
  /** Lower case. The same object for all replies of a place. */
  readonly hidden: FieldNames;
  /** Lower case. */
  readonly removed: readonly string[];
  readonly own: readonly Field[];
}

export interface ErrorSettings {
  readonly pages: ReadonlyMap<number, CompiledErrorPage>;
  readonly recursive: boolean;
  readonly intercept: boolean;
}

export interface CompiledErrorPage {
  readonly origin: Origin | undefined;
  readonly status: number | 'target' | undefined;
  readonly target:
    | { readonly kind: 'text'; readonly text: Value }
    | { readonly kind: 'document'; readonly html: string | undefined; readonly json: string | undefined };
}

export interface RedirectSettings {
  readonly absolute: boolean;
  readonly port: boolean;
  readonly serverName: boolean;
}

export type CompiledContent = (
  | {
      readonly kind: 'proxy';
      readonly pool: Pool;
      readonly host: string;
      readonly url: string;
      readonly path: string | undefined;
      readonly stripPrefix: string | undefined;
      readonly canary: CompiledCanary | undefined;
    }
  | { readonly kind: 'proxy-to'; readonly url: Value; readonly variant: PoolVariant }
  | {
      readonly kind: 'respond';
      readonly status: number;
      readonly headers: readonly { readonly name: string; readonly value: Value }[];
      readonly body: Value;
      readonly contentType: string | undefined;
    }
  | { readonly kind: 'redirect'; readonly status: number; readonly to: Value }
  | { readonly kind: 'files'; readonly fallback: string | undefined }
  | {
      readonly kind: 'maintenance';
      readonly status: number;
      readonly retryAfter: number | undefined;
      readonly html: string | undefined;
      readonly json: string | undefined;
      readonly except:
        | { readonly addresses: readonly AddressTest[]; readonly content: CompiledContent }
        | undefined;
    }
  | { readonly kind: 'nothing' }
) & { readonly origin: Origin | undefined };

export interface CompiledCanary {
  readonly pool: Pool;
  readonly percent: number;
  readonly key: Value;
  readonly when: ((run: Run) => boolean) | undefined;
}

export interface CompiledTryFiles {
  readonly paths: readonly { readonly value: Value; readonly directory: boolean }[];
  readonly last:
    | { readonly kind: 'uri'; readonly uri: Value }
    | { readonly kind: 'named'; readonly name: string }
    | { readonly kind: 'status'; readonly status: number };
}

export interface PoolOfUrl {
  readonly pool: Pool;
  /** `$proxy_host`. */
  readonly host: string;
  /** Empty: the URL has no path. */
  readonly path: string;
}

/** What of a place's policy a pool of its own is needed for. */
export interface PoolVariant {
  readonly connectTimeoutMs: number;
  readonly readTimeoutMs: number;
  readonly sendTimeoutMs: number;
  readonly totalTimeoutMs: number | undefined;
  readonly tls: UpstreamTls | undefined;
}

/** A group as it is spoken to: one object for each way, so that pools can be kept by it. */
export interface Pool extends UpstreamSettings {
  readonly name: string;
  /** In the order of `addresses`. */
  readonly servers: readonly UpstreamServer[];
  readonly balance: CompiledBalancing | undefined;
  readonly tls: UpstreamTls | undefined;
}

export type CompiledBalancing =
  | { readonly by: 'turns' | 'least-connections' | 'address' }
  | { readonly by: 'hash'; readonly key: Value; readonly consistent: boolean }
  | { readonly by: 'chance'; readonly two: boolean }
  | {
      readonly by: 'cookie';
      readonly name: string;
      readonly secret: string;
      readonly maxAgeSeconds: number | undefined;
    };
