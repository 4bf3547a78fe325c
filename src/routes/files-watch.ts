// Follows the files that say where requests go: a change of any makes a plan of all of them, or is refused and told.

import type { Config } from '../config/config.ts';
import { describePlace } from '../config/mistake.ts';
import {
  type FileReading,
  type FileWarning,
  parseFile,
  planFromFiles,
  warningsOf,
} from '../config/routing.ts';
import type { Log } from '../lib/log.ts';
import type { NginxRules } from './nginx/read.ts';
import { watchNginxFiles } from './nginx/watch.ts';
import type { RoutingPlan } from './plan.ts';
import { foldersOf } from './rule-needs.ts';
import { watchRoutesFile } from './watch.ts';
import { RoutesFileError } from './yaml/file.ts';

export interface FilesWatch {
  /** Reads all of them at once, whether or not they seem changed. */
  reload(): Promise<void>;
  close(): void;
}

export interface FilesWatchOptions {
  follow(plan: RoutingPlan): void;
  /** Called when files that have changed are refused. */
  onRefused?(): void;
  readonly log: Log;
}

export function watchFiles(config: Config, options: FilesWatchOptions): FilesWatch {
  const { follow, log } = options;
  const { routesFile, routesFileOptions, nginx, fixedRouting } = config;
  const readable = foldersOf(config.rules);
  let { file } = config;
  let rules = nginx?.first;
  // Those of the start are told with the settings.
  let told = textsOf(warningsOf(config, rules));
  /** Takes both as they are to be, if they can be served together. */
  const take = (nextFile: FileReading | undefined, nextRules: NginxRules | undefined, path: string) => {
    const plan = planFromFiles(fixedRouting, path, nextFile, nextRules);
    refuseNewFolders(plan, readable, path);
    file = nextFile;
    rules = nextRules;
    told = tellNew(warningsOf(plan, rules), told, log);
    return plan;
  };

  let included = file?.watched ?? [];
  const fileWatch =
    routesFile &&
    watchRoutesFile({
      path: routesFile.path,
      current: routesFile.text,
      includes: () => included,
      parse(text) {
        const next = parseFile({ ...routesFile, text }, routesFileOptions);
        included = next.watched;
        return take(next, rules, routesFile.path);
      },
      onRoutes: follow,
      onProblem(err) {
        log.error({ err, file: routesFile.path }, 'routes file refused, the old routes go on');
        options.onRefused?.();
      },
    });
  const nginxWatch =
    nginx &&
    watchNginxFiles({
      read: nginx.read,
      current: nginx.first,
      onRules: (next) => follow(take(file, next, nginx.path)),
      onMistakes({ mistakes }) {
        log.error({ mistakes, file: nginx.path }, NGINX_REFUSED);
        options.onRefused?.();
      },
      onProblem(err) {
        log.error({ err, file: nginx.path }, NGINX_REFUSED);
        options.onRefused?.();
      },
    });
  return {
    async reload() {
      await fileWatch?.reload();
      nginxWatch?.reload();
    },
    close() {
      fileWatch?.close();
      nginxWatch?.close();
    },
  };
}

/** What has been told is told again once it has been gone: then somebody has looked at it. */
function tellNew(warnings: readonly FileWarning[], told: ReadonlySet<string>, log: Log): Set<string> {
  for (const { place, text } of warnings)
    if (!told.has(text)) {
      const warning = `${describePlace(place)}: ${text}`;
      log.warn({ variable: 'NGINX_CONF_DIR', warning }, 'setting needs attention');
    }
  return textsOf(warnings);
}

/** Without places: lines move whenever a file is edited. */
function textsOf(warnings: readonly FileWarning[]): Set<string> {
  return new Set(warnings.map(({ text }) => text));
}

const NGINX_REFUSED = 'nginx files refused, the old rules go on';

/** Node's permission model fixes what a process may read when it starts. */
function refuseNewFolders(plan: RoutingPlan, readable: readonly string[], path: string): void {
  const fresh = foldersOf(plan.rules).filter((folder) => !readable.some((known) => folder.startsWith(known)));
  if (fresh.length === 0) return;
  throw new RoutesFileError(
    path,
    fresh.map((folder) => ({
      place: { file: path },
      subject: `files below ${folder} were not named when the ingress started, and its workers may not read them`,
      cure: 'start it again',
    })),
  );
}
