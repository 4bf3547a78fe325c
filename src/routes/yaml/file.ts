// The routes file: YAML to routes and rules, every mistake with its file, line and column.

import type { RuleSet } from '../../../proxy/rules/model.ts';
import type { Route } from '../../../proxy/rules/routes.ts';
import type { Mistake } from '../../config/mistake.ts';
import { assemble, type Draft } from './assemble.ts';
import { type OneFile, readFiles } from './include.ts';
import type { Seen } from './mistakes.ts';
import { createShared, type RoutesFileOptions, refuseUnknownVariables, type Shared } from './reading.ts';
import { type Level, readDefaults, readRoutes } from './routes.ts';
import { readNamedUpstreams } from './upstreams.ts';

export { RoutesFileError } from './mistakes.ts';
export type { RoutesFileOptions, UpstreamTimeouts } from './reading.ts';

export interface RoutesFileReading {
  /** Of hosts without any rule. */
  readonly routes: readonly Route[];
  /** Of the other hosts, which they take whole. Asked before the routes. */
  readonly rules: RuleSet;
  /** With any of them neither routes nor rules are to be used. */
  readonly mistakes: readonly Mistake[];
  /** Every file that was read or looked for: a change of any changes what this file says. */
  readonly watched: readonly string[];
}

/** The shape is that of docs/routes.schema.json, and beyond it no host, no path of a host and no upstream may be given twice. */
export function readRoutesFile(text: string, path: string, options: RoutesFileOptions): RoutesFileReading {
  const shared = createShared(options);
  const { files, all } = readFiles(text, path, shared);
  const names: Seen = new Map();
  for (const { fields, reading } of files) {
    const upstreams = fields.find('upstreams');
    if (upstreams !== undefined) readNamedUpstreams(upstreams, names, reading);
  }
  const defaults = readAllDefaults(files, shared);
  const drafts = files.flatMap(({ fields, reading }): Draft[] => {
    const list = fields.find('routes');
    const { mistakes } = reading;
    return list === undefined
      ? []
      : readRoutes(list, defaults, reading).map((route) => ({ route, mistakes }));
  });
  refuseUnknownVariables(shared);
  const { routes, rules } = assemble(drafts, defaults, shared);
  const mistakes = all.flatMap((one) => one.sorted());
  return { routes, rules, mistakes, watched: [...shared.watched] };
}

/** The first file's alone: which of several held would depend on their order. */
function readAllDefaults([first, ...others]: readonly OneFile[], { options }: Shared): Level {
  const usual: Level = {
    manner: { timeouts: options.timeouts, health: undefined },
    policy: {},
    maintenance: undefined,
  };
  for (const { fields, reading } of others) {
    const node = fields.find('defaults');
    if (node !== undefined)
      reading.mistakes.at(node, '"defaults" in a file that is included', 'wants them in the first file');
  }
  return first === undefined ? usual : readDefaults(first.fields.find('defaults'), usual, first.reading);
}
