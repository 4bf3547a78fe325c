// nginx's files -> the rules that say the same, with every mistake and every word that has no effect here.

import type { RuleSet } from '../../../proxy/rules/model.ts';
import type { Mistake } from '../../config/mistake.ts';
import { checkDirectives } from './check.ts';
import { type FolderAccess, readFolder } from './files.ts';
import { forwardedByDefault } from './forwarding.ts';
import { readZones } from './limits.ts';
import { type Outer, readPolicy, type Tools } from './locations.ts';
import { readMaps } from './maps.ts';
import { createNotes, type Note } from './notes.ts';
import { Level, Reading } from './reading.ts';
import { gzipByDefault } from './replies.ts';
import { readServers } from './servers.ts';
import { readUpstreams } from './upstreams.ts';

export interface NginxRules {
  /** Not to be used if there are mistakes. */
  readonly rules: RuleSet;
  readonly notes: readonly Note[];
  readonly mistakes: readonly Mistake[];
  /** The folder, every file that was read or looked for, and folders that an include lists. */
  readonly watched: readonly string[];
}

const MOST_MISTAKES = 100;
const ONE_MEBIBYTE = 1024 * 1024;

/** Throws nothing: what cannot be read is among the mistakes. */
export function readNginxFiles(folder: string, access: FolderAccess): NginxRules {
  const files = readFolder(folder, access);
  const mistakes: Mistake[] = [];
  const notes = createNotes();
  const sound = checkDirectives(files.directives, mistakes, notes);
  for (const word of files.ignored) notes.accepted('image', word);
  // Behind what cannot be read at all, most else would be missed for nothing.
  const isWhole = files.mistakes.length === 0;
  const rules = isWhole ? readRules(sound, new Reading(notes, mistakes, files.readNamed)) : { sites: [] };
  return {
    rules,
    notes: notes.all(),
    mistakes: inOrder([...files.mistakes, ...mistakes]),
    watched: files.watched,
  };
}

function readRules(directives: Level['directives'], reading: Reading): RuleSet {
  const level = new Level(directives);
  const zones = readZones(level, reading);
  const upstreams = readUpstreams(level, reading);
  const maps = readMaps(level.all('map'), reading);
  const formats = new Set(['combined', ...level.all('log_format').map(({ args }) => args[0]!.text)]);
  for (const { name } of level.all('log_format')) reading.notes.accepted('logs', name);
  const tools: Tools = { reading, upstreams, zones, formats };
  const { policy, inner } = readPolicy(level, OUTERMOST, tools);
  const sites = readServers(level, inner, tools);
  reading.judgeVariables();
  return {
    sites,
    policy: { ...forwardedByDefault.policy, upgrades: 'if-set', maxBodyBytes: ONE_MEBIBYTE, ...policy },
    ...(maps.length > 0 && { maps }),
    upstreams: upstreams.all(),
    ...(zones.requests.length > 0 && { requestZones: zones.requests }),
    ...(zones.connections.length > 0 && { connectionZones: zones.connections }),
  };
}

const OUTERMOST: Outer = {
  proxy: forwardedByDefault,
  grpc: forwardedByDefault,
  family: 'proxy',
  gzip: gzipByDefault,
};

function inOrder(mistakes: readonly Mistake[]): Mistake[] {
  const sorted = [...mistakes].sort(
    ({ place: a }, { place: b }) =>
      compareText(a.file ?? '', b.file ?? '') ||
      (a.line ?? 0) - (b.line ?? 0) ||
      (a.column ?? 0) - (b.column ?? 0),
  );
  const more = sorted.length - MOST_MISTAKES;
  if (more <= 0) return sorted;
  return [
    ...sorted.slice(0, MOST_MISTAKES),
    {
      place: sorted[MOST_MISTAKES]!.place,
      subject: `${more} more mistakes from here on`,
      cure: 'correct these first',
    },
  ];
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
