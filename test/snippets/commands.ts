// Shell commands as the pages show them: each is one that exists, with flags that it takes and files that are there.

import { accessSync, constants, existsSync } from 'node:fs';
import { join } from 'node:path';
import { parseOptions as parseBenchOptions } from '../../bench/options.ts';
import { type CommandName, isCommand, misuseOf } from '../../src/commands/usage.ts';
import { type Block, read, root } from './blocks.ts';

/** Asks the ingress of a deployment, or a registry: run where one is, by test/e2e/documented-commands.test.ts. */
export function needsDeployment({ language, text }: Block): boolean {
  return language === 'sh' && /app\.example\.com|^docker |^\.\/build-image\.sh /m.test(text);
}

/** The commands of a block, one after the other, each as its words. */
export function commandsIn(text: string): string[][] {
  return text
    .replaceAll(/\\\n\s*/g, ' ')
    .split('\n')
    .map((line) => line.replace(/(^|\s)#.*$/, '').trim())
    .flatMap((line) => line.split(/\s*&&\s*/))
    .filter((line) => line !== '')
    .map(wordsOf);
}

/** As a POSIX shell splits them, as far as the pages need it: blanks, and both kinds of quotes. */
export function wordsOf(line: string): string[] {
  return [...line.matchAll(/(?:[^\s'"]|'[^']*'|"[^"]*")+/g)].map(([word]) =>
    word.replaceAll(/'([^']*)'|"([^"]*)"/g, (_, single, double) => single ?? double),
  );
}

/** Whether a span of the prose is meant as a command. */
export function looksLikeCommand(text: string): boolean {
  return (
    /^(npm (ci|start|test|run|exec)|npx|docker exec|dstack-ingress [a-z]|node \S+\.ts|\.\/\S+\.sh|\.ci\/)/.test(
      text,
    ) ||
    /^… [a-z-]+/.test(text) ||
    /^[A-Z_]+=\S+ (node|npm) /.test(text)
  );
}

/** As a usage line has it, `[FLAG]` may be there and of `a|b` one is: the command with all of it, once for each choice. */
export function formsOf(words: readonly string[]): string[][] {
  const bare = words.map((word) => word.replace(/^\[(.*)\]$|^\[(.*)|(.*)\]$/, '$1$2$3'));
  const choice = bare.find((word) => /^\w+(\|\w+)+$/.test(word));
  return (choice?.split('|') ?? ['']).map((chosen) => bare.map((word) => (word === choice ? chosen : word)));
}

/** Throws what is wrong with it. */
export function judgeCommand(words: readonly string[]): void {
  const [first = '', ...rest] = words;
  const assignment = /^([A-Z_]+)=/.exec(first);
  const judge = assignment === null ? programs[first] : judgeAssigned(assignment[1]!);
  if (judge === undefined) throw new Error(`nobody knows what ${first} is: ${words.join(' ')}`);
  judge(rest);
}

/** `NAME=value node FILE`: the file reads NAME. */
function judgeAssigned(name: string): Judge {
  return (words) => {
    const file = words.find((word) => word.endsWith('.ts'));
    if (file === undefined || !read(file).includes(name)) throw new Error(`${name} is read by nobody`);
    judgeCommand(words);
  };
}

type Judge = (words: readonly string[]) => void;

const programs: Readonly<Record<string, Judge>> = {
  npm: judgeNpm,
  npx: ([name = '']) => mustExist(`node_modules/.bin/${name}`),
  node: judgeNode,
  export([assigned = '']) {
    if (!/^PATH=\$PWD\/node_modules\/\.bin:\$PATH$/.test(assigned)) throw new Error(`export ${assigned}`);
  },
  docker: judgeDocker,
  'dstack-ingress': judgeOwn,
  // As the page before has said what it stands for.
  '…': judgeOwn,
  './build-image.sh': () => accessSync(join(root, 'build-image.sh'), constants.X_OK),
  '.ci/run': () => accessSync(join(root, '.ci/run'), constants.X_OK),
};

function judgeNpm([verb = '', ...rest]: readonly string[]): void {
  // What follows `exec` is a program in node_modules/.bin: the Node that the project brings is one.
  if (verb === 'exec') judgeCommand(rest[0] === '--' ? rest.slice(1) : ['npm exec without --']);
  else if (verb !== 'ci') judgeScript(verb, rest);
}

function judgeScript(verb: string, rest: string[]): void {
  const name = verb === 'run' ? rest.shift()! : verb;
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
  if (!Object.hasOwn(scripts, name)) throw new Error(`package.json has no script ${name}`);
  if (verb !== 'run' && !['start', 'test'].includes(verb)) throw new Error(`npm ${verb}`);
  if (rest.length > 0 && rest.shift() !== '--')
    throw new Error(`npm keeps ${rest[0]} for itself: it wants --`);
  if (name === 'bench') parseBenchOptions(rest);
  else if (isCommand(name)) judgeOwn([name, ...rest]);
  else if (rest.length > 0) throw new Error(`nobody knows what ${name} takes`);
}

function judgeNode(words: readonly string[]): void {
  const [file, ...rest] = words.filter((word) => !word.startsWith('--test'));
  mustExist(file!);
  if (file === 'src/main.ts') judgeOwn(rest);
  const pattern = words.find((word) => word.startsWith('--test-name-pattern='))?.split('=')[1];
  const titles = [...read(file!).matchAll(/\b(?:test|it)\(\s*(['"`])(.*?)\1/g)].map(([, , title]) => title!);
  if (pattern !== undefined && !titles.some((title) => new RegExp(pattern).test(title)))
    throw new Error(`${file} has no test whose name fits ${pattern}`);
}

/** `docker exec CONTAINER` and the words with which the image starts. */
function judgeDocker([verb, container, ...rest]: readonly string[]): void {
  if (verb !== 'exec' || container === undefined) throw new Error(`docker ${verb}`);
  const entrypoint = /^ENTRYPOINT (\[.*\])$/m.exec(read('Dockerfile'))![1]!;
  for (const word of JSON.parse(entrypoint) as string[])
    if (rest.shift() !== word) throw new Error(`the image starts with ${entrypoint}`);
  judgeOwn(rest);
}

function judgeOwn(words: readonly string[]): void {
  const [first = '', ...rest] = words;
  if (['--help', '--version', 'help', 'version'].includes(first)) {
    if (rest[0] !== undefined && !isCommand(rest[0])) throw new Error(`no command ${rest[0]} to be told of`);
    return;
  }
  const [name, args] =
    first === 'verify' && rest[0] === 'proxy' ? ['verify proxy', rest.slice(1)] : [first, rest];
  if (!isCommand(name)) throw new Error(`dstack-ingress has no command ${name}`);
  // The demo has commands of its own; what it takes is held by the tests of the demo.
  const misuse = name === 'demo' ? undefined : misuseOf(name as CommandName, args);
  if (misuse !== undefined) throw new Error(misuse);
  if (name === 'store' && !/^(check|list|export|import|migrate|reseal|accept)$/.test(args[0]!))
    throw new Error(`store has no ${args[0]}`);
}

function mustExist(path: string): void {
  if (!existsSync(join(root, path))) throw new Error(`${path} does not exist`);
}
