// Whether nginx files that are mounted would have sent a domain elsewhere than we do: that stops a start, with what to write.

import { basename } from 'node:path';
import { createRouteTable, type Route, type UpstreamSettings } from '../../proxy/rules/routes.ts';
import { covers, type Domain } from '../lib/domain.ts';
import type { ConfigWarning } from './environment.ts';
import type { Mistake } from './mistake.ts';
import { type NginxFile, type NginxReading, type NginxRoute, readNginxFiles } from './nginx-files.ts';
import { parseUpstreamUrl } from './upstream-url.ts';

/** What we do without the files. */
export interface OwnRouting {
  readonly domains: readonly Domain[];
  /** Of ROUTING_MAP and ROUTES_FILE. */
  readonly named: readonly Route[];
  /** TARGET_ENDPOINT. */
  readonly fallback: UpstreamSettings | undefined;
  /** Whether ROUTING_MAP holds something that must stay in it. */
  readonly hasMap: boolean;
}

export interface NginxJudgement {
  readonly mistakes: readonly Mistake[];
  readonly warnings: readonly ConfigWarning[];
  /** The domains that the mistakes are about: no other mistake is reported for them. */
  readonly unsettled: readonly Domain[];
}

const VARIABLE = 'NGINX_CONF_DIR';

export function judgeNginxFiles(
  folder: string,
  files: readonly NginxFile[],
  own: OwnRouting,
): NginxJudgement {
  const reading = readNginxFiles(files);
  const unsettled = reading.routes.filter((route) => !isSettled(route, own));
  const mistakes = [
    ...reading.mistakes.map((mistake) => ({ ...mistake, place: { variable: VARIABLE, ...mistake.place } })),
    ...simpleMistake(folder, unsettled, reading, own),
    ...beyondMistakes(unsettled, reading),
    ...defaultMistakes(unsettled),
  ];
  return {
    mistakes,
    warnings: mistakes.length > 0 ? [] : warningsOf(reading),
    unsettled: unsettled.flatMap(({ name }) => name ?? []),
  };
}

/** Whether its visitors get the same without the file, or somebody has decided where else they go. */
function isSettled({ name, upstream }: NginxRoute, { domains, named, fallback }: OwnRouting): boolean {
  const table = createRouteTable(named);
  if (name === undefined) {
    const others = domains.filter((domain) => !table.knows(domain));
    return others.length === 0 || isSameTarget(upstream, fallback);
  }
  if (table.knows(name)) return true;
  return domains.some((domain) => covers(domain, name)) && isSameTarget(upstream, fallback);
}

function isSameTarget(upstream: string | undefined, fallback: UpstreamSettings | undefined): boolean {
  if (upstream === undefined || fallback === undefined) return false;
  const { protocol, address } = parseUpstreamUrl(upstream);
  const [first] = fallback.addresses;
  const speaks = fallback.protocol === 'auto' ? 'http' : fallback.protocol;
  return protocol === speaks && address.host === first?.host && address.port === first.port;
}

/** One mistake for all that ROUTING_MAP can express. */
function simpleMistake(
  folder: string,
  unsettled: readonly NginxRoute[],
  { settings }: NginxReading,
  { domains, fallback, hasMap }: OwnRouting,
): Mistake[] {
  const simple = unsettled.filter(({ name, upstream }) => name !== undefined && upstream !== undefined);
  if (simple.length === 0) return [];
  const where = simple.map(({ name, file, line }) => `${name} (${basename(file)}:${line})`).join(', ');
  const entries = new Map(simple.map(({ name, upstream }) => [name!, upstream!]));
  const map = [...entries].map(([name, upstream]) => `${name}=${upstream}`).join(',');
  const unlisted = [...entries.keys()].filter((name) => !domains.some((domain) => covers(domain, name)));
  const more = [
    ...(unlisted.length > 0 ? [`add ${unlisted.join(',')} to DOMAINS`] : []),
    ...settings.map((setting) => `set ${setting}, for all domains`),
  ];
  const subject =
    fallback === undefined
      ? `nginx files are not read, and nothing else says where these go: ${where}`
      : `nginx files are not read, and TARGET_ENDPOINT would serve what they send elsewhere: ${where}`;
  return [
    {
      place: { variable: VARIABLE, file: folder },
      subject,
      cure: [hasMap ? `add to ROUTING_MAP: ${map}` : `write ROUTING_MAP: ${map}`, ...more].join('; '),
    },
  ];
}

function beyondMistakes(unsettled: readonly NginxRoute[], { beyond }: NginxReading): Mistake[] {
  const files = new Set(unsettled.filter(({ upstream }) => upstream === undefined).map(({ file }) => file));
  return [...files].map((file) => {
    const here = unsettled.filter((route) => route.file === file && route.upstream === undefined);
    const names = here.map(({ name }) => name ?? 'every other name').join(', ');
    const said = beyond.get(file) ?? ['no upstream, or several'];
    return {
      place: { variable: VARIABLE, file, line: here[0]!.line },
      subject: `nginx files are not read, and this one says more of ${names} than one upstream: ${said.join(', ')}`,
      cure: 'write ROUTES_FILE: hosts, path prefixes, upstreams, timeouts; what it has no key for is left to the app',
    };
  });
}

/** A server without a name took what no other had. */
function defaultMistakes(unsettled: readonly NginxRoute[]): Mistake[] {
  return unsettled
    .filter(({ name, upstream }) => name === undefined && upstream !== undefined)
    .map(({ file, line, upstream }) => ({
      place: { variable: VARIABLE, file, line },
      subject: `nginx files are not read, and this one sends every other name to ${upstream}`,
      cure: `set TARGET_ENDPOINT=${upstream}, or take the file's mount away`,
    }));
}

/** Nothing goes to a wrong app, but the files do nothing either. */
function warningsOf({ routes, beyond, general, settings }: NginxReading): ConfigWarning[] {
  const files = [...new Set([...routes.map(({ file }) => file), ...general.keys()])];
  const said = files.map((file) => {
    const lost = [...(beyond.get(file) ?? []), ...(general.get(file) ?? [])];
    return `${file} is not read${lost.length > 0 ? `, and what it says beyond routes does nothing: ${lost.join(', ')}` : ''}`;
  });
  const settable = settings.map((setting) => `nginx files are not read: set ${setting} in their place`);
  return [...said, ...settable].map((warning) => ({ variable: VARIABLE, warning }));
}
