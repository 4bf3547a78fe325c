// What the readers of the environment, of routes files and of nginx files produce: rules as plain data, which cross to the workers.

import type { HealthSettings, UpstreamProtocol } from './routes.ts';
import type { ClientAuth, Retry, UpstreamServer, UpstreamTls } from './servers.ts';

export type { ClientAuth, Retry, RetryCause, UpstreamServer, UpstreamTls } from './servers.ts';

/** `file:line:column` of what a rule was written as. Without one, the rule is a default of ours. */
export type Origin = string;

/** Text and variables in turn: `http://$host/a` is `['http://', { name: 'host' }, '/a']`. Captures are named '1', '2'... */
export type Template = readonly (string | VariableName)[];

export interface VariableName {
  /** Without `$`; lower case where the dialect ignores case. */
  readonly name: string;
}

/** Only readPattern() makes one: it has refused what cannot be translated. */
export interface Pattern {
  /** PCRE, as the file has it. */
  readonly source: string;
  readonly flags: '' | 'i';
  /** Names of its named groups: variables, where it is matched. */
  readonly names: readonly string[];
}

/** Everything that a deployment's files say. All text is Unicode; compile() makes bytes of it. */
export interface RuleSet {
  /** In the order of the files: the first regular expression that fits a host wins. */
  readonly sites: readonly Site[];
  /** What holds for every site that does not say otherwise: nginx's http level, YAML's `defaults`. */
  readonly policy?: Policy;
  readonly maps?: readonly VariableMap[];
  readonly upstreams?: readonly UpstreamGroup[];
  readonly requestZones?: readonly RequestZone[];
  readonly connectionZones?: readonly ConnectionZone[];
}

/** One server block, one host of a routes file. */
export interface Site {
  readonly origin?: Origin;
  /** At least one, unless it is the default only. The first is `$server_name`. */
  readonly names: readonly SiteName[];
  /** Takes what no name fits. Without any such site, what no name fits has no route. */
  readonly isDefault?: boolean;
  /** Names its ways and manners to people: `$server_name` and what `--explain` prints. */
  readonly label: string;
  readonly policy?: Policy;
  /** Run before a location is looked for, and again after an internal redirect to a URI. */
  readonly rewrite?: readonly Instruction[];
  readonly locations: readonly Location[];
  /** For a path that fits no location; without it 404. nginx: the files of `root`. */
  readonly content?: Content;
  readonly tryFiles?: TryFiles;
  /** Default: true. */
  readonly mergeSlashes?: boolean;
  /** Default: false, names with `_` are dropped on the way to the upstream. */
  readonly underscoresInHeaders?: boolean;
  /** Default: true, names with other characters than letters, digits, `-` (and `_`) are dropped. */
  readonly ignoreInvalidHeaders?: boolean;
  readonly clientAuth?: ClientAuth;
}

export type SiteName =
  | { readonly kind: 'exact'; readonly name: string }
  /** nginx `*.x`: any number of labels before `.x`, not x itself. `name` is x. nginx `.x` is this and an exact x. */
  | { readonly kind: 'any-labels'; readonly name: string }
  /** A routes file's `*.x`: exactly one label before `.x`. */
  | { readonly kind: 'one-label'; readonly name: string }
  /** nginx `x.*`. `name` is x. */
  | { readonly kind: 'any-ending'; readonly name: string }
  /** Tested against the lower-case host. Its captures are variables everywhere in the site. */
  | { readonly kind: 'pattern'; readonly pattern: Pattern };

export interface Location {
  readonly origin?: Origin;
  readonly match: LocationMatch;
  /** Beyond the path. One with conditions comes before one without, of the same path; none fits: the next shorter path. */
  readonly when?: RequestMatch;
  /** 404 to what clients ask; only internal redirects and sub-requests reach it. */
  readonly internal?: boolean;
  /** A path that ends with `/`: the same without it is answered with 301. nginx: where it is a proxy, `=` included. */
  readonly addsSlash?: boolean;
  readonly policy?: Policy;
  readonly rewrite?: readonly Instruction[];
  /** Not inherited, as proxy_pass is not. Without it, files if a root is known, else 404. */
  readonly content?: Content;
  readonly tryFiles?: TryFiles;
  /** Holds instead of `policy` (inherited from it) for methods that are not listed. GET includes HEAD. */
  readonly limitExcept?: {
    readonly methods: readonly string[];
    readonly policy: Policy;
    readonly content?: Content;
  };
  readonly locations?: readonly Location[];
}

export type LocationMatch =
  | { readonly kind: 'exact'; readonly path: string }
  /** By bytes: `/a` fits `/ab`. Decoded text: a space, not %20. `final` is `^~`: no pattern is tried after it. */
  | { readonly kind: 'prefix'; readonly path: string; readonly final?: boolean }
  /** By segment: `/a` fits `/a` and `/a/b`, not `/ab`. Always final. */
  | { readonly kind: 'segments'; readonly path: string }
  /** Tried in the order of the file. */
  | { readonly kind: 'pattern'; readonly pattern: Pattern }
  /** `@name`: for error_page, try_files and the like. `name` has the `@`. */
  | { readonly kind: 'named'; readonly name: string };

/** All that are given must fit. */
export interface RequestMatch {
  /** As sent: upper case. GET does not include HEAD here. */
  readonly methods?: readonly string[];
  readonly headers?: readonly NamedMatch[];
  readonly query?: readonly NamedMatch[];
}

export interface NamedMatch {
  /** A header's in any case; a query parameter's exactly. */
  readonly name: string;
  readonly value: ValueMatch;
}

export type ValueMatch =
  | { readonly kind: 'present' }
  | { readonly kind: 'absent' }
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'pattern'; readonly pattern: Pattern };

// The rewrite phase

export type Instruction = (
  | { readonly do: 'set'; readonly variable: string; readonly value: Template }
  | If
  /**
   * `to` as written: a `?` in it ends the path, the old query follows unless it ends with `?`. With a target that begins
   * with `http://`, `https://` or `$scheme`, `next`, `last` and `break` are `redirect`.
   */
  | {
      readonly do: 'rewrite';
      readonly pattern: Pattern;
      readonly to: Template;
      readonly flag: 'next' | 'last' | 'break' | 'redirect' | 'permanent';
    }
  | Return
  | { readonly do: 'break' }
) & { readonly origin?: Origin };

/** True in a location: its policy and content hold from then on, those of the last one that was true. */
export interface If {
  readonly do: 'if';
  readonly condition: Condition;
  readonly body: readonly Instruction[];
  /** Inherited from the location's. In a site's own program neither of these two. */
  readonly policy?: Policy;
  readonly content?: Content;
}

export interface Return {
  readonly do: 'return';
  /** 444: the connection is closed without a reply. */
  readonly status: number;
  /** `return 200 text`. Content-Type by the extension of the URI, else the default type. */
  readonly body?: Template;
  /** `return 301 URL`, and `return URL` with status 302. Made absolute if it begins with `/`. */
  readonly location?: Template;
}

export type Condition =
  /** Not empty and not `0`. */
  | { readonly test: 'set'; readonly variable: string }
  | { readonly test: 'equal'; readonly variable: string; readonly value: Template; readonly not?: boolean }
  /** Sets the captures. */
  | { readonly test: 'match'; readonly variable: string; readonly pattern: Pattern; readonly not?: boolean }
  | {
      readonly test: 'file' | 'directory' | 'exists' | 'executable';
      readonly path: Template;
      readonly not?: boolean;
    };

// What a level may say. A field that is absent is inherited whole; one that is given replaces what was inherited, lists too.

export interface Policy extends AccessPolicy, ForwardPolicy, ReplyPolicy, FilePolicy, ClientAddressPolicy {
  /** Not inherited by a level that gives its own; [] forgets all. */
  readonly errorPages?: readonly ErrorPage[];
  /** Default: false, an error while an error page is made is answered plainly. */
  readonly recursiveErrorPages?: boolean;
  /** Whether error pages take an upstream's replies of 300 and above. Default: false. */
  readonly interceptErrors?: boolean;
  /** Default: true. `if`: only when this is neither empty nor `0`. */
  readonly accessLog?: boolean | { readonly if: Template };
  /** Redirects to a path get scheme and host. Default: true. */
  readonly absoluteRedirect?: boolean;
  /** Default: true. */
  readonly portInRedirect?: boolean;
  /** The site's label in the place of the host that was asked. Default: false. */
  readonly serverNameInRedirect?: boolean;
}

export interface ClientAddressPolicy {
  /** CIDRs of the proxies whose word is taken. */
  readonly realIpFrom?: readonly string[];
  /** Default: X-Real-IP. `proxy_protocol` is what the listener has already applied. */
  readonly realIpHeader?: string;
  readonly realIpRecursive?: boolean;
}

export interface AccessPolicy {
  /** First that fits decides; none fits: allowed. */
  readonly addresses?: readonly AddressRule[];
  /** Of addresses, password and sub-request. Default: all. */
  readonly satisfy?: 'all' | 'any';
  /** false: off. */
  readonly basicRealm?: Template | false;
  readonly basicUsers?: readonly BasicUser[];
  readonly authRequest?: AuthRequest | ForwardAuth | false;
  /** After a sub-request: evaluated with `$upstream_http_*` of its reply. */
  readonly authVariables?: readonly { readonly variable: string; readonly value: Template }[];
  readonly requestLimits?: readonly RequestLimit[];
  /** Default: 503. YAML: 429. */
  readonly requestLimitStatus?: number;
  readonly connectionLimits?: readonly ConnectionLimit[];
  readonly connectionLimitStatus?: number;
  /** Of the body; 0: no limit. nginx's default of 1 MiB is given by its reader. */
  readonly maxBodyBytes?: number;
  /** Of the fields together, below what the listener allows anyway. */
  readonly maxHeaderBytes?: number;
}

export interface AddressRule {
  readonly allow: boolean;
  /** `all`, an address or a CIDR. */
  readonly range: string;
  readonly origin?: Origin;
}

export interface BasicUser {
  readonly name: string;
  /** As in a password file: `{PLAIN}`, `{SHA}`, `{SSHA}`, `$apr1$`, `$2y$`, crypt. */
  readonly hash: string;
}

/** nginx's: a GET of this URI within the site. 2xx lets through, 401 and 403 are passed on, all else is 500. */
export interface AuthRequest {
  readonly kind: 'uri';
  readonly uri: Template;
}

/** A routes file's: the service decides. 2xx lets through, any other reply is the client's; no reply is 503. */
export interface ForwardAuth {
  readonly kind: 'forward';
  readonly upstream: string;
  readonly protocol: UpstreamProtocol;
  /** Path and query: `/verify?rd=$scheme://$host$request_uri`. */
  readonly uri: Template;
  /** Beside the client's own fields. */
  readonly requestHeaders: readonly HeaderEdit[];
  /** Of its good reply: set in the request that goes to the app; the client's of these names never pass. */
  readonly copy: readonly string[];
  /** Of its good reply: added to the reply of the app, `Set-Cookie` say. */
  readonly copyToReply?: readonly string[];
  readonly timeoutMs?: number;
  readonly upstreamTls?: UpstreamTls;
}

export interface RequestZone {
  readonly name: string;
  readonly origin?: Origin;
  /** Empty: not counted. */
  readonly key: Template;
  /** Requests in a thousand seconds: 1 r/s is 1000, 1 r/m is 16 (as nginx rounds it down). */
  readonly perThousandSeconds: number;
  /** Keys that are remembered; beyond it the one longest unused is forgotten. */
  readonly maxKeys?: number;
}

export interface RequestLimit {
  readonly zone: string;
  /** Default: 0. */
  readonly burst?: number;
  /** How many of the burst pass at once. Infinity is not JSON: `nodelay` is `delay: burst`. Default: 0, all of it waits. */
  readonly delay?: number;
}

export interface ConnectionZone {
  readonly name: string;
  readonly origin?: Origin;
  readonly key: Template;
}

export interface ConnectionLimit {
  readonly zone: string;
  readonly max: number;
}

// Content

export type Content = (Forwarding | Respond | Redirect | Files | Maintenance) & { readonly origin?: Origin };

/** Forwarded. The two forms of nginx's proxy_pass; the first is what a routes file makes as well. */
export type Forwarding =
  | {
      readonly kind: 'proxy';
      /** Name of a group. */
      readonly upstream: string;
      readonly protocol: UpstreamProtocol;
      /** `$proxy_host`: as written in the URL, with the port only if it is written and not the default one. */
      readonly host: string;
      /** The URL as written, if it differs from protocol, host and path: what the default of `redirects` looks for. */
      readonly url?: string;
      /** The URL's part from `/` on; undefined: the client's own target goes. */
      readonly path?: string;
      /** What a routes file's `strip_prefix` takes away from the raw target: nothing is decoded or merged. */
      readonly stripPrefix?: string;
      readonly canary?: Canary;
    }
  /** The URL holds variables. Its host is a group of that name, or resolved. */
  | { readonly kind: 'proxy-to'; readonly url: Template };

/** A share of the requests goes to another group, by a stable hash of the key. */
export interface Canary {
  readonly upstream: string;
  /** 0 to 100, in hundredths at the finest. */
  readonly percent: number;
  /** Default: the client's address. */
  readonly key?: Template;
  /** What fits goes there in any case. */
  readonly when?: RequestMatch;
}

export interface Respond {
  readonly kind: 'respond';
  readonly status: number;
  readonly headers?: readonly HeaderField[];
  readonly body?: Template;
  /** Default: by the extension of the URI, else the default type. */
  readonly contentType?: string;
}

export interface Redirect {
  readonly kind: 'redirect';
  readonly status: 301 | 302 | 303 | 307 | 308;
  readonly to: Template;
}

/** Files of the policy's root. */
export interface Files {
  readonly kind: 'files';
  /** What answers where no file is, as for single-page apps: a path below the root. */
  readonly fallback?: string;
  readonly listing?: boolean;
}

export interface Maintenance {
  readonly kind: 'maintenance';
  /** Default: 503. */
  readonly status?: number;
  readonly retryAfterSeconds?: number;
  readonly html?: string;
  readonly json?: string;
  /** Who passes nevertheless, and what they get. */
  readonly except?: { readonly addresses: readonly AddressRule[]; readonly content: Content };
}

export interface TryFiles {
  /** Each under root or alias; one that ends with `/` is a directory. */
  readonly paths: readonly Template[];
  readonly last:
    | { readonly kind: 'uri'; readonly uri: Template }
    | { readonly kind: 'named'; readonly name: string }
    | { readonly kind: 'status'; readonly status: number };
}

export interface FilePolicy {
  readonly root?: {
    readonly path: Template;
    /** The path takes the place of what the location matched, instead of going before it. */
    readonly alias?: boolean;
  };
  /** Default: index.html. The last may begin with `/`: an internal redirect. */
  readonly index?: readonly Template[];
  /** nginx's directory listing. */
  readonly autoindex?: boolean;
  /** Extension without dot -> media type. Default: the usual ones. */
  readonly types?: Readonly<Record<string, string>>;
  /** Default: application/octet-stream. */
  readonly defaultType?: string;
  /** Appended to textual types, as in `; charset=utf-8`. */
  readonly charset?: string;
  readonly etag?: boolean;
}

// To the upstream

export interface ForwardPolicy {
  /** In this order. See HeaderEdit; nginx's default `Host $proxy_host` is given by its reader. */
  readonly requestHeaders?: readonly HeaderEdit[];
  /** Whether X-Forwarded-* and kin of ours are added where no rule sets them. Default: true. */
  readonly forwardedFields?: boolean;
  readonly passRequestHeaders?: boolean;
  readonly passRequestBody?: boolean;
  readonly method?: Template;
  /** `as-asked`: whoever asks for an upgrade gets it. `if-set`: only where the rules set Upgrade and Connection. */
  readonly upgrades?: 'as-asked' | 'if-set';
  readonly connectTimeoutMs?: number;
  readonly readTimeoutMs?: number;
  readonly sendTimeoutMs?: number;
  readonly totalTimeoutMs?: number;
  readonly retry?: Retry;
  readonly upstreamTls?: UpstreamTls;
  /** Beyond X-Accel-*, which never pass. nginx's reader adds its Date, Server and X-Pad to each list, and to the outermost. */
  readonly hideHeaders?: readonly string[];
  /** Passed in spite of that. */
  readonly passHeaders?: readonly string[];
  /** First that fits. []: off. Default: [{ kind: 'default' }] for proxies of nginx files, which their reader gives. */
  readonly redirects?: readonly RedirectRule[];
  readonly cookiePaths?: readonly TextRule[];
  readonly cookieDomains?: readonly TextRule[];
  /** First that fits the cookie's name. []: off. */
  readonly cookieFlags?: readonly CookieFlags[];
  /** Whether X-Accel-Redirect of the upstream is obeyed. Default: false; nginx's reader says true. */
  readonly accelRedirect?: boolean;
}

export type RedirectRule =
  | { readonly kind: 'default' }
  | { readonly kind: 'rule'; readonly from: TextMatch; readonly to: Template };

export interface TextRule {
  readonly from: TextMatch;
  readonly to: Template;
}

export type TextMatch =
  | { readonly kind: 'text'; readonly text: Template }
  | { readonly kind: 'pattern'; readonly pattern: Pattern };

export interface CookieFlags {
  /** Exactly, or by pattern; nginx's `~` is a pattern that fits all. */
  readonly cookie: TextMatch;
  readonly set: readonly string[];
  readonly remove: readonly string[];
}

export interface HeaderField {
  readonly name: string;
  readonly value: Template;
}

/**
 * `set`: in the place of what is there, and `set` of one name twice sends two; an empty value removes. `add`: beside what
 * is there, an empty value adds nothing. `default`: only where there is none.
 */
export type HeaderEdit =
  | (HeaderField & { readonly do: 'set' | 'add' | 'default'; readonly origin?: Origin })
  | { readonly do: 'remove'; readonly name: string; readonly origin?: Origin };

// To the client

export interface ReplyPolicy {
  /** nginx's add_header: beside the upstream's; statuses 200 201 204 206 301 302 303 304 307 308 unless `always`. */
  readonly addHeaders?: readonly (HeaderField & { readonly always?: boolean; readonly origin?: Origin })[];
  /** A routes file's `headers`, and its security presets as `default`: whatever the status, after addHeaders. */
  readonly replyHeaders?: readonly HeaderEdit[];
  /** Evaluated: `30d`, `-1`, `epoch`, `max`, `off`, `@15h30m`; from a file's time with `modified`. */
  readonly expires?: { readonly value: Template; readonly modified?: boolean };
  readonly compress?: Compress | false;
  readonly cors?: Cors | false;
}

export interface Compress {
  /** In the order of preference. */
  readonly encodings: readonly ('zstd' | 'br' | 'gzip')[];
  /** Without parameters, lower case; `*` is all. */
  readonly types: readonly string[];
  readonly minBytes: number;
  readonly level?: number;
  /** Vary where it could have been compressed. */
  readonly vary: boolean;
  /** Whether requests with Via are compressed, or which of nginx's gzip_proxied are. Default: true. */
  readonly viaProxies?: boolean | readonly ViaProxies[];
  /** Whether clients of HTTP/1.0 are. Default: false. */
  readonly http10?: boolean;
  /** Statuses; undefined: all that have a body. */
  readonly statuses?: readonly number[];
}

export type ViaProxies =
  | 'expired'
  | 'no-cache'
  | 'no-store'
  | 'private'
  | 'no_last_modified'
  | 'no_etag'
  | 'auth';

export interface Cors {
  /** `*`, or origins as browsers send them. */
  readonly origins: readonly TextOrPattern[];
  readonly methods: readonly string[];
  /** Undefined: those that are asked for. */
  readonly headers?: readonly string[];
  readonly expose?: readonly string[];
  readonly credentials?: boolean;
  readonly maxAgeSeconds?: number;
}

export type TextOrPattern =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'pattern'; readonly pattern: Pattern };

export interface ErrorPage {
  readonly origin?: Origin;
  readonly statuses: readonly number[];
  /** Undefined: the status stays (a URL: 302). `target`: what the target answers, nginx's bare `=`. */
  readonly status?: number | 'target';
  readonly target: /** An internal GET. */
    | { readonly kind: 'uri'; readonly uri: Template }
    /** Keeps method, URI and body. */
    | { readonly kind: 'named'; readonly name: string }
    | { readonly kind: 'url'; readonly url: Template }
    /** By Accept; the one that is missing is not offered. */
    | { readonly kind: 'document'; readonly html?: string; readonly json?: string };
}

// Shared by sites

/** nginx's map. The variable is known everywhere. */
export interface VariableMap {
  readonly origin?: Origin;
  readonly variable: string;
  readonly source: Template;
  /** Texts of the forms `*.x`, `.x` and `x.*` are names with wildcards. */
  readonly hostnames?: boolean;
  readonly entries: readonly (TextOrPattern & { readonly value: Template })[];
  /** Default: empty. */
  readonly default?: Template;
}

/** Servers that share the load. A bare URL in a proxy_pass is a group of its own, of one name. */
export interface UpstreamGroup {
  readonly name: string;
  readonly origin?: Origin;
  /** At least one. */
  readonly servers: readonly UpstreamServer[];
  readonly balance?: Balancing;
  readonly health?: HealthSettings;
}

export type Balancing =
  /** Default where weights are given; the pools' own is `least-connections`. */
  | { readonly by: 'turns' }
  | { readonly by: 'least-connections' }
  /** The first three numbers of an IPv4 address, the whole of an IPv6 one. */
  | { readonly by: 'address' }
  | { readonly by: 'hash'; readonly key: Template; readonly consistent?: boolean }
  | { readonly by: 'chance'; readonly two?: boolean }
  /** A signed cookie names the server; without one, least connections. */
  | {
      readonly by: 'cookie';
      readonly name: string;
      readonly secret: string;
      readonly maxAgeSeconds?: number;
    };
