// A model -> tables and functions: once at load, so that a request finds everything ready.

import { compileAddresses } from './addresses.ts';
import { bytesOf } from './bytes.ts';
import type {
  CompiledContent,
  CompiledRules,
  CompiledSite,
  CompiledTryFiles,
  Matcher,
  Place,
  PoolVariant,
  Settings,
} from './compiled.ts';
import { createLocations } from './location.ts';
import { compileMatcher, compileRequestMatch } from './match.ts';
import type {
  Content,
  Forwarding,
  Location,
  LocationMatch,
  Origin,
  Policy,
  RuleSet,
  Site,
  TryFiles,
} from './model.ts';
import { createPools } from './pools.ts';
import { compileProgram } from './rewrite.ts';
import { createScope, RuleSetError } from './scope.ts';
import { compileSettings, createZones, type Tools, variantOf } from './settings.ts';
import { createSites } from './site.ts';
import { compileTemplate } from './template.ts';

/** Throws RuleSetError or PatternError for what a reader should have refused. */
export function compile(rules: RuleSet): CompiledRules {
  const steps = compileInSteps(rules);
  for (let step = steps.next(); ; step = steps.next()) if (step.done === true) return step.value;
}

/** The same in parts of one site each, so that who serves meanwhile can do so in between. */
export function* compileInSteps(rules: RuleSet): Generator<void, CompiledRules> {
  const scope = createScope(rules.maps ?? []);
  // Each map is looked through, whether or not it is used.
  for (const { variable } of rules.maps ?? []) scope.resolve(variable);
  const pools = createPools(rules.upstreams ?? [], scope.resolve);
  const requestZone = createZones(rules.requestZones ?? [], scope);
  const connectionZone = createZones(rules.connectionZones ?? [], scope);
  const tools: Tools = {
    scope,
    pools,
    zoneOf: (kind, name, origin) =>
      kind === 'request' ? requestZone(name, origin) : connectionZone(name, origin),
  };
  const compiler = new Compiler(tools);
  const outer = compiler.level({}, rules.policy);
  const sites: (readonly [Site, CompiledSite])[] = [];
  for (const site of rules.sites) {
    sites.push([site, compiler.site(site, outer)]);
    yield;
  }
  const table = createSites(sites);
  return {
    find: table.find,
    findNamed: table.findNamed,
    byDefault: table.byDefault,
    sites: sites.map(([, compiled]) => compiled),
    slotCount: scope.slotCount(),
    pools: pools.all(),
    poolFor: pools.poolFor,
    requestZones: (rules.requestZones ?? []).map(({ name, perThousandSeconds, maxKeys = 65_536 }) => ({
      name,
      perThousandSeconds,
      maxKeys,
    })),
  };
}

/** A policy with what it is compiled to; levels without words of their own share it. */
interface Level {
  readonly policy: Policy;
  readonly settings: Settings;
  /** One object for all places of the level: pools are kept by it. */
  readonly variant: PoolVariant;
}

class Compiler {
  readonly #tools: Tools;
  /** Of the site under way. */
  #named = new Map<string, Place>();

  constructor(tools: Tools) {
    this.#tools = tools;
  }

  level(outer: Partial<Level>, own: Policy | undefined): Level {
    if (isWhole(outer) && (own === undefined || Object.keys(own).length === 0)) return outer;
    const policy = { ...outer.policy, ...own };
    return { policy, settings: compileSettings(policy, this.#tools), variant: variantOf(policy) };
  }

  site(site: Site, outer: Level): CompiledSite {
    this.#named = new Map();
    const level = this.level(outer, site.policy);
    const places = site.locations.map((location) => this.#location(location, level, 0));
    const place: Place = {
      ...NOWHERE,
      kind: 'site',
      written: `site ${site.label}`,
      origin: site.origin,
      settings: level.settings,
      program: compileProgram(site.rewrite ?? [], this.#tools.scope, () => undefined),
      content: this.#content(site.content, level),
      tryFiles: this.#tryFiles(site.tryFiles),
      inner: createLocations(places),
    };
    const matchers = this.#hostMatchers(site);
    const plain = new Set(
      site.names.flatMap((name) => (name.kind === 'exact' ? [name.name.toLowerCase()] : [])),
    );
    return {
      label: bytesOf(site.label),
      origin: site.origin,
      mergeSlashes: site.mergeSlashes !== false,
      underscoresInHeaders: site.underscoresInHeaders === true,
      ignoreInvalidHeaders: site.ignoreInvalidHeaders !== false,
      clientAuth: site.clientAuth,
      place,
      named: this.#named,
      matchers,
      hasName: (host) => plain.has(host),
    };
  }

  #hostMatchers(site: Site): Matcher[] {
    return site.names.flatMap((name) =>
      name.kind === 'pattern' ? [compileMatcher(name.pattern, this.#tools.scope.slotOf)] : [],
    );
  }

  #location(location: Location, outer: Level, depth: number): Place {
    if (depth > DEEPEST) throw new RuleSetError('locations are nested too deeply', location.origin);
    const level = this.level(outer, location.policy);
    const { match, limitExcept } = location;
    const base: Place = {
      ...NOWHERE,
      kind: match.kind,
      written: `location ${writtenMatch(match)}`,
      origin: location.origin,
      path: 'path' in match ? bytesOf(match.path) : '',
      matcher: match.kind === 'pattern' ? compileMatcher(match.pattern, this.#tools.scope.slotOf) : undefined,
      when: location.when && compileRequestMatch(location.when),
      final: match.kind === 'segments' || (match.kind === 'prefix' && match.final === true),
      internal: location.internal === true,
      addsSlash: location.addsSlash === true,
      settings: level.settings,
      program: NO_PROGRAM,
      content: this.#content(location.content, level),
      tryFiles: this.#tryFiles(location.tryFiles),
      inner: this.#inner(location.locations, level, depth),
    };
    const isSimple = location.rewrite === undefined && limitExcept === undefined;
    const place = isSimple ? base : this.#withBranches(location, base, level);
    if (match.kind === 'named') this.#named.set(match.name, place);
    return place;
  }

  #withBranches({ rewrite = [], limitExcept }: Location, base: Place, level: Level): Place {
    return {
      ...base,
      program: compileProgram(rewrite, this.#tools.scope, (branch) =>
        this.#branch(branch.policy, branch.content, base, level),
      ),
      limitExcept: limitExcept && {
        methods: withHead(limitExcept.methods),
        place: this.#branch(limitExcept.policy, limitExcept.content, base, level),
      },
    };
  }

  #inner(locations: readonly Location[] | undefined, level: Level, depth: number): Place['inner'] {
    if (locations === undefined || locations.length === 0) return undefined;
    return createLocations(locations.map((location) => this.#location(location, level, depth + 1)));
  }

  /** What an `if` or other methods make of a location: without files to try, as in nginx. */
  #branch(policy: Policy | undefined, content: Content | undefined, base: Place, outer: Level): Place {
    const level = this.level(outer, policy);
    return {
      ...base,
      settings: level.settings,
      content: content === undefined ? base.content : this.#content(content, level),
      tryFiles: undefined,
    };
  }

  #content(content: Content | undefined, level: Level): CompiledContent {
    if (content === undefined) {
      const kind = level.settings.files.root === undefined ? 'nothing' : 'files';
      return { kind, fallback: undefined, origin: undefined };
    }
    const { resolve } = this.#tools.scope;
    const { origin } = content;
    switch (content.kind) {
      case 'proxy':
        return { ...this.#proxy(content, origin, level.variant), origin };
      case 'proxy-to':
        return {
          kind: 'proxy-to',
          url: compileTemplate(content.url, resolve),
          variant: level.variant,
          origin,
        };
      case 'respond':
        return {
          kind: 'respond',
          status: content.status,
          headers: (content.headers ?? []).map(({ name, value }) => ({
            name,
            value: compileTemplate(value, resolve),
          })),
          body: compileTemplate(content.body ?? [], resolve),
          contentType: content.contentType,
          origin,
        };
      case 'redirect':
        return { kind: 'redirect', status: content.status, to: compileTemplate(content.to, resolve), origin };
      case 'files':
        return { kind: 'files', fallback: content.fallback && bytesOf(content.fallback), origin };
      case 'maintenance':
        return {
          kind: 'maintenance',
          status: content.status ?? 503,
          retryAfter: content.retryAfterSeconds,
          html: content.html === undefined ? undefined : bytesOf(content.html),
          json: content.json === undefined ? undefined : bytesOf(content.json),
          except: content.except && {
            addresses: compileAddresses(content.except.addresses),
            content: this.#content(content.except.content, level),
          },
          origin,
        };
    }
  }

  #proxy(
    proxy: Forwarding & { kind: 'proxy' },
    origin: Origin | undefined,
    variant: PoolVariant,
  ): CompiledContent & { kind: 'proxy' } {
    const { pools, scope } = this.#tools;
    const { upstream, protocol, host, path, canary } = proxy;
    const scheme = protocol === 'auto' ? 'http' : protocol;
    return {
      kind: 'proxy',
      pool: pools.pool(upstream, protocol, variant, origin),
      host: bytesOf(host),
      url: bytesOf(proxy.url ?? `${scheme}://${host}${path ?? ''}`),
      path: path === undefined ? undefined : bytesOf(path),
      stripPrefix: proxy.stripPrefix === undefined ? undefined : bytesOf(proxy.stripPrefix),
      canary: canary && {
        pool: pools.pool(canary.upstream, protocol, variant, origin),
        percent: canary.percent,
        key: compileTemplate(canary.key ?? [{ name: 'remote_addr' }], scope.resolve),
        when: canary.when && compileRequestMatch(canary.when),
      },
      origin,
    };
  }

  #tryFiles(tryFiles: TryFiles | undefined): CompiledTryFiles | undefined {
    if (tryFiles === undefined) return undefined;
    const { resolve } = this.#tools.scope;
    const { last } = tryFiles;
    return {
      paths: tryFiles.paths.map((template) => {
        const end = template.at(-1);
        const directory = typeof end === 'string' && end.endsWith('/');
        const bare = directory ? [...template.slice(0, -1), end.slice(0, -1)] : template;
        return { value: compileTemplate(bare, resolve), directory };
      }),
      last: last.kind === 'uri' ? { kind: 'uri', uri: compileTemplate(last.uri, resolve) } : last,
    };
  }
}

const DEEPEST = 32;
const NO_PROGRAM: Place['program'] = [];

function isWhole(level: Partial<Level>): level is Level {
  return level.settings !== undefined;
}

const NOWHERE = {
  path: '',
  matcher: undefined,
  when: undefined,
  final: false,
  internal: false,
  addsSlash: false,
  inner: undefined,
  limitExcept: undefined,
} as const;

function withHead(methods: readonly string[]): ReadonlySet<string> {
  return new Set(methods.includes('GET') ? [...methods, 'HEAD'] : methods);
}

/** As nginx writes it. */
function writtenMatch(match: LocationMatch): string {
  switch (match.kind) {
    case 'exact':
      return `= ${match.path}`;
    case 'prefix':
      return match.final === true ? `^~ ${match.path}` : match.path;
    case 'segments':
      return `${match.path} (by segment)`;
    case 'pattern':
      return `~${match.pattern.flags === 'i' ? '*' : ''} ${match.pattern.source}`;
    case 'named':
      return match.name;
  }
}
