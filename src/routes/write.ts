// Rules as a routes file: the YAML that says the same, and a list of what it cannot say.

import { stringify } from 'yaml';
import type {
  Content,
  Instruction,
  Location,
  Policy,
  RuleSet,
  Site,
  SiteName,
  UpstreamGroup,
} from '../../proxy/rules/model.ts';
import { authorityOf } from '../../proxy/rules/routes.ts';
import { templateText } from '../../proxy/rules/template.ts';
import {
  duration,
  lostVariable,
  type Tell,
  type Unsaid,
  writePolicy,
  type Yaml,
  type YamlMap,
} from './write-policy.ts';

export interface WrittenRoutes {
  readonly text: string;
  /** Each once. */
  readonly unsaid: readonly Unsaid[];
}

export function writeRoutes(rules: RuleSet): WrittenRoutes {
  const unsaid = new Map<string, Unsaid>();
  const tell = (what: string, origin?: string) => {
    unsaid.set(`${origin} ${what}`, { origin, what });
  };
  const writer = new Writer(rules, tell);
  for (const { origin, variable } of rules.maps ?? [])
    tell(`map of $${variable}: write hosts or headers to match`, origin);
  const routes = rules.sites.flatMap((site) => writer.site(site) ?? []);
  const upstreams = writer.upstreams();
  const whole = { ...(Object.keys(upstreams).length > 0 && { upstreams }), routes };
  return { text: stringify(whole, { lineWidth: 0 }), unsaid: [...unsaid.values()] };
}

class Writer {
  readonly #rules: RuleSet;
  readonly #tell: Tell;
  readonly #groups: ReadonlyMap<string, UpstreamGroup>;
  /** Of groups that a route names: by the protocol that is spoken to them. */
  readonly #named = new Map<string, YamlMap>();

  constructor(rules: RuleSet, tell: Tell) {
    this.#rules = rules;
    this.#tell = tell;
    this.#groups = new Map((rules.upstreams ?? []).map((group) => [group.name, group]));
  }

  /** Undefined: it has no name that a route could have, or no path that could be said. */
  site(site: Site): YamlMap | undefined {
    const hosts = site.names.flatMap((name) => this.#host(name, site));
    if (site.isDefault === true)
      this.#tell('a default server: names that no route has are refused', site.origin);
    if (hosts.length === 0) return undefined;
    if (site.clientAuth !== undefined)
      this.#tell('ssl_verify_client: write client_auth with its files, or everybody comes in', site.origin);
    const policy = { ...this.#rules.policy, ...site.policy };
    const paths = this.#paths(site.locations, policy);
    const own = this.#program(site.rewrite, site.origin);
    const all =
      own === undefined
        ? paths
        : [{ prefix: '/', ...own, ...writePolicy(policy, this.#rules, false, this.#tell) }];
    const isAnswered = all.some((path) => path.prefix === '/');
    if (!isAnswered && policy.root !== undefined) all.push({ prefix: '/', ...this.#files(policy, site) });
    if (all.length === 0 && site.locations.length === 0) all.push({ prefix: '/', respond: { status: 404 } });
    if (all.length === 0) return undefined;
    return { ...(hosts.length === 1 ? { host: hosts[0]! } : { hosts }), paths: all };
  }

  upstreams(): YamlMap {
    return Object.fromEntries(this.#named);
  }

  #host(name: SiteName, { origin }: Site): Yaml[] {
    switch (name.kind) {
      case 'exact':
        return name.name.includes('.') ? [name.name] : [];
      case 'any-labels':
        this.#tell(
          `server_name *.${name.name} takes names of several labels more: the routes file's takes one`,
          origin,
        );
        return [`*.${name.name}`];
      case 'one-label':
        return [`*.${name.name}`];
      case 'any-ending':
        return [`~^${literal(name.name)}\\.`];
      case 'pattern':
        return [`~${name.pattern.source}`];
    }
  }

  #paths(locations: readonly Location[], outer: Policy): YamlMap[] {
    return locations.flatMap((location) => {
      const policy = { ...outer, ...location.policy };
      const inner = this.#paths(location.locations ?? [], policy);
      const match = this.#match(location);
      if (match === undefined) return inner;
      const content = this.#answer(location, policy);
      if (content === undefined) return inner;
      const forwards = 'upstream' in content;
      return [...inner, { ...match, ...content, ...writePolicy(policy, this.#rules, forwards, this.#tell) }];
    });
  }

  #match({ match, internal, origin }: Location): YamlMap | undefined {
    if (internal === true || match.kind === 'named') {
      this.#tell('a location for internal redirects', origin);
      return undefined;
    }
    switch (match.kind) {
      case 'exact':
        return { exact: escaped(match.path) };
      case 'segments':
        return { under: escaped(match.path) };
      case 'prefix':
        return { prefix: escaped(match.path) };
      case 'pattern':
        return { regex: match.pattern.flags === 'i' ? `*${match.pattern.source}` : match.pattern.source };
    }
  }

  #answer(location: Location, policy: Policy): YamlMap | undefined {
    const { content, limitExcept, tryFiles, origin } = location;
    if (limitExcept !== undefined)
      this.#tell('limit_except: write one path for each method', limitExcept.content?.origin ?? origin);
    const own = this.#program(location.rewrite, origin);
    if (own !== undefined && !('rewrite' in own)) return own;
    if (content === undefined) {
      if (policy.root === undefined) return { respond: { status: 404 } };
      return this.#files(policy, location);
    }
    if (tryFiles !== undefined) this.#tell('try_files beside proxy_pass', origin);
    const answer = this.#content(content, location);
    return answer && { ...own, ...answer };
  }

  #content(content: Content, { match, origin }: Location): YamlMap | undefined {
    if (content.kind !== 'proxy') {
      this.#tell(
        `proxy_pass ${content.kind === 'proxy-to' ? templateText(content.url) : content.kind} with variables`,
        content.origin ?? origin,
      );
      return undefined;
    }
    const upstream = this.#upstream(content.upstream, content.protocol);
    const { path } = content;
    const matched = 'path' in match ? match.path : '';
    if (path === undefined || path === matched) return { upstream };
    if (match.kind === 'exact') return { upstream, rewrite: { regex: '^.*$', to: path } };
    if (path === '/' && matched.endsWith('/')) return { upstream, strip_prefix: matched.slice(0, -1) };
    return { upstream, rewrite: { regex: `^${literal(matched)}(.*)$`, to: `${path}$1` } };
  }

  /** One bare address is a URL; all else is a group with a name. */
  #upstream(name: string, protocol: string): Yaml {
    const group = this.#groups.get(name)!;
    const urls = group.servers.map((server) => {
      const port = server.port ?? (protocol === 'https' || protocol === 'grpcs' ? 443 : 80);
      return `${protocol}://${authorityOf({ host: server.host, port })}`;
    });
    if (group.balance === undefined && urls.length === 1) return urls[0]!;
    const servers = group.servers.map((server, i) => ({
      url: urls[i]!,
      ...(server.weight !== undefined && { weight: server.weight }),
      ...(server.backup === true && { backup: true }),
      ...(server.down === true && { down: true }),
      ...(server.maxConnections !== undefined && { max_connections: server.maxConnections }),
      ...(server.maxFails !== undefined && { max_fails: server.maxFails }),
      ...(server.failTimeoutMs !== undefined && { fail_timeout: duration(server.failTimeoutMs) }),
    }));
    const plain = nameOf(name);
    this.#named.set(plain, { servers, ...this.#balance(group) });
    return plain;
  }

  #balance({ balance }: UpstreamGroup): YamlMap {
    switch (balance?.by) {
      case undefined:
        return {};
      case 'hash':
        return { balance: { hash: templateText(balance.key) } };
      case 'turns':
        return { balance: 'weighted' };
      case 'least-connections':
        return { balance: 'least_connections' };
      case 'address':
        return { balance: 'address' };
      case 'chance':
        return { balance: 'random' };
      case 'cookie':
        return { balance: { cookie: balance.name } };
    }
  }

  #files(policy: Policy, { tryFiles, origin }: Pick<Location, 'tryFiles' | 'origin'>): YamlMap {
    const { root, index, autoindex } = policy;
    if (root?.alias === true) this.#tell('alias: write the whole path below a root', origin);
    const last = tryFiles?.last;
    const fallback = last?.kind === 'uri' ? templateText(last.uri) : undefined;
    const isUsual = (tryFiles?.paths ?? []).every((path) => /^\$uri\/?$/.test(templateText(path)));
    if (!isUsual || last?.kind === 'named' || (last?.kind === 'status' && last.status !== 404))
      this.#tell('try_files with other paths than $uri', origin);
    return {
      files: {
        root: root === undefined ? '' : templateText(root.path),
        ...(index !== undefined && { index: index.map(templateText) }),
        ...(fallback !== undefined && { fallback }),
        ...(autoindex === true && { listing: true }),
      },
    };
  }

  /** The simple ones: one return, or one rewrite that stays. */
  #program(program: readonly Instruction[] = [], origin: string | undefined): YamlMap | undefined {
    const [first, ...more] = program;
    if (first === undefined) return undefined;
    if (more.length > 0 || (first.do !== 'return' && first.do !== 'rewrite')) {
      this.#tell(`${first.do} and what depends on it`, first.origin ?? origin);
      return undefined;
    }
    const text = first.do === 'return' ? (first.location ?? first.body ?? []) : first.to;
    const lost = lostVariable(text, this.#rules);
    if (lost !== undefined) {
      this.#tell(`${first.do} with $${lost}, which another directive sets`, first.origin ?? origin);
      return undefined;
    }
    if (first.do === 'return') {
      const { status, location, body } = first;
      if (status === 444)
        this.#tell('return 444: the reply has this status, and the connection stays', first.origin);
      if (location !== undefined) return { redirect: { status, to: templateText(location) } };
      return { respond: { status, ...(body !== undefined && { body: templateText(body) }) } };
    }
    const { pattern, to, flag } = first;
    if (flag === 'redirect' || flag === 'permanent' || !templateText(to).startsWith('/')) {
      this.#tell(`rewrite … ${flag}: write a redirect`, first.origin);
      return undefined;
    }
    if (flag !== 'break') this.#tell('rewrite that looks for a location anew', first.origin);
    return { rewrite: { regex: pattern.source, to: templateText(to) } };
  }
}

/** Names of upstreams are made of letters, digits, `-` and `_`. */
function nameOf(group: string): string {
  const word = group.replaceAll(/[^A-Za-z0-9_-]/g, '-');
  return (/^[A-Za-z]/.test(word) ? word : `u-${word}`).slice(0, 63);
}

/** As a request would send it (RFC 3986 §3.3). */
function escaped(path: string): string {
  return path.replaceAll(/[^A-Za-z0-9\-._~!$&'()*+,;=:@/]/gu, encodeURIComponent);
}

function literal(text: string): string {
  return text.replaceAll(/[\\^$.|?*+()[\]{}]/g, '\\$&');
}
