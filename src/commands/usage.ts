// The commands, the arguments that they take, and the answers to wrong arguments.

import { nearest } from '../lib/spelling.ts';

export interface CommandUsage {
  readonly summary: string;
  /** The one argument that it needs, as in `DIR`. */
  readonly takes?: string;
  /** The one argument that it can do without. */
  readonly mayTake?: string;
  /** Flag -> what it does. */
  readonly flags: Readonly<Record<string, string>>;
  /** Flag -> what follows it, of those that take something. */
  readonly values?: Readonly<Record<string, string>>;
  /** What else there is to know, each a line. */
  readonly notes: readonly string[];
}

/** What a host is judged by, and where to ask: the same for both commands that verify. */
const judging = {
  flags: {
    '--app-id': 'the app id that is expected',
    '--compose': 'the compose file that is expected (app-compose.json), or its SHA-256',
    '--root': 'PEM of the root that quotes must lead to, in the place of that of Intel',
    '--collateral': 'what the vendor says of the processor, instead of asking for it',
    '--pccs': 'where to ask for that; may be repeated',
    '--ca': 'PEM of the roots that the connection must lead to, in the place of the public ones',
    '--resolver': 'DNS over HTTPS, in the place of the usual two; may be repeated',
    '--ct':
      'an index of the certificate logs (crtsh+URL: one like crt.sh; logs+URL: a list of the logs); may be repeated',
  },
  values: {
    '--app-id': 'HEX',
    '--compose': 'FILE|HASH',
    '--root': 'FILE',
    '--collateral': 'FILE',
    '--pccs': 'URL',
    '--ca': 'FILE',
    '--resolver': 'URL',
    '--ct': 'URL',
  },
} as const;

export const commands = {
  serve: {
    summary: 'serve with the configuration of the environment (the default)',
    flags: {},
    notes: [
      'Every setting is an environment variable; docs/settings.md has the table.',
      'SIGTERM and SIGINT drain and stop, SIGHUP reads the routes file anew, SIGUSR1 opens the file of the access log anew, SIGUSR2 renews every certificate now.',
    ],
  },
  status: {
    summary: 'say how each domain stands: certificate, next renewal, last failure, CAA, DNS records',
    flags: { '--json': 'as JSON', '--offline': 'from the state folder alone, without asking the DNS' },
    notes: ['Changes nothing. Ends with 1 if a domain has no certificate in force.'],
  },
  top: {
    summary: 'watch the ingress beside it: traffic by host, certificates, upstreams, workers',
    flags: { '--address': 'another one, by its ADMIN_ADDRESS; ADMIN_TOKEN of the environment is its token' },
    values: { '--address': '127.0.0.1:9180|unix:/path' },
    notes: ['q ends it. Where the output is no terminal it prints one picture and ends.'],
  },
  healthcheck: {
    summary: 'ask the ingress beside it whether it is ready: certificates, workers, not stopping',
    flags: {},
    notes: ['Finds it by PORT and LISTEN_ADDRESS, as the ingress has them. Ends with 1 if it is not ready.'],
  },
  check: {
    summary: 'explain the mistakes of a routes file, or of a folder of nginx files',
    flags: { '--explain': 'print what a request would meet, step by step: site, location, rules, upstream' },
    values: { '--explain': "'GET https://host/path'" },
    mayTake: 'FILE|DIR',
    notes: [
      'Without FILE or DIR it reads what ROUTES_FILE names, or else NGINX_CONF_DIR. Contacts nothing, changes nothing.',
      'Ends with 78 if there are mistakes, which are on stderr, and with 1 if no route takes the request to explain.',
    ],
  },
  verify: {
    summary: 'check as a stranger that a host is what it says: connection, evidence, quotes, DNS, logs',
    flags: {
      '--json': 'as JSON',
      '-v': 'with the values that were compared',
      '--strict': 'what could not be run counts as failed',
      '--policy': 'what is expected, as a file: docs/verification.md shows one',
      ...judging.flags,
      '--time': 'the time that every date is judged by',
      '--save': 'keep all that was seen in a new folder',
      '--offline': 'judge what --save has kept, and ask nobody',
      '--watch': 'go on, and print a line for each verdict that changes',
      '--every': 'with --watch: how long to wait in between; 60 unless given',
      '--webhook': 'with --watch: where to post what has changed, as JSON',
    },
    values: {
      '--policy': 'FILE',
      ...judging.values,
      '--time': 'ISO',
      '--save': 'DIR',
      '--offline': 'DIR',
      '--every': 'MINUTES',
      '--webhook': 'URL',
    },
    mayTake: 'https://HOST',
    notes: [
      'Ends with 0 if every check passed, 1 if one failed, 3 if none failed and not all could be run, 2 for wrong arguments.',
      'Nothing that the host says is believed without a proof. docs/verification.md says what each check proves.',
    ],
  },
  'verify proxy': {
    summary: 'let local programs reach a host over plain HTTP, for as long as that host is proven',
    takes: 'https://HOST',
    flags: {
      '--listen': 'where on the loopback; needed',
      '--every': 'how long until it is verified again; 60 unless given',
      '-v': 'with the values that were compared, if the first verification fails',
      '--strict': 'serve only if every check passed',
      '--policy': 'what is expected, as a file',
      ...judging.flags,
    },
    values: {
      '--listen': '127.0.0.1:PORT',
      '--every': 'MINUTES',
      '--policy': 'FILE',
      ...judging.values,
    },
    notes: [
      'HTTP/1.1, WebSocket, and HTTP/2 and gRPC with prior knowledge. It verifies anew when the host shows another key.',
      'While the host is not proven no byte goes to it: requests get 502 and the checks that are missing.',
      'It serves if nothing failed and everything ran that the key hangs on, and all that was expected was found.',
      'Ctrl-C ends it. Ends with 1 if the first verification fails, 3 if that proves too little, 2 for wrong arguments.',
    ],
  },
  config: {
    summary: 'print every setting in force and where it came from: default, environment or file',
    flags: { '--json': 'as JSON' },
    notes: [
      'Secrets are never shown. Contacts nothing, changes nothing.',
      'Ends with 78 if there are mistakes, which are on stderr.',
    ],
  },
  doctor: {
    summary: 'look at all that the ingress needs, from the clock to the upstreams, and say what to do',
    flags: {
      '--json': 'as JSON',
      '--write': "try the DNS provider's permission to write: one TXT record a domain is made and removed",
    },
    notes: [
      'Without --write it changes nothing. The ingress may be running or not.',
      'Ends with 1 if something is wrong; what is only to be looked at leaves it 0.',
    ],
  },
  rollover: {
    summary: 'give the ACME account a new key; its URL, and so every CAA record, stays',
    flags: {},
    notes: ['The ingress may go on meanwhile. The old key is worth nothing then.'],
  },
  store: {
    summary: 'check what replicas share (STORE_URL), and take what is kept out of it or into it',
    takes: 'check|list|export|import|migrate|reseal|accept',
    flags: { '--replace': 'with import: what is there is replaced' },
    notes: [
      'check: proves that conflicting writes conflict, and reads every record. list: names and sizes.',
      'export prints every record in the clear, private keys included; import reads that from stdin, and leaves what is there.',
      'migrate takes over what a single ingress keeps in STATE_DIR; the first replica does so by itself.',
      'reseal seals with the newest key all that an older one has sealed.',
      'accept takes the store as it is, after a backup was restored; no replica may run, or have its copy, then.',
      'list, export and import work on the state folder where STORE_URL is not set. Ends with 1 if a record was left out.',
    ],
  },
  'convert-nginx': {
    summary: 'print the routes file that says what the nginx files of a folder say',
    takes: 'DIR',
    flags: {},
    notes: [
      'What a routes file cannot say is listed on stderr and in comments; it ends with 1 then.',
      'It ends with 78 if the files have mistakes, and lists them.',
    ],
  },
  demo: { summary: 'show everything on this machine, with nothing configured', flags: {}, notes: [] },
} as const satisfies Record<string, CommandUsage>;

export type CommandName = keyof typeof commands;

/** Beside the commands; both forms are understood. */
const INFORMATION = {
  version: 'print the version and the git revision it was built from',
  help: 'print this',
};

/** `verify proxy` is a command of its own. */
export function inOneWord(args: readonly string[]): readonly string[] {
  const [first, second, ...rest] = args;
  return first === 'verify' && second === 'proxy' ? ['verify proxy', ...rest] : args;
}

export function isCommand(name: string): name is CommandName {
  return Object.hasOwn(commands, name);
}

/** Of flags in the list of all commands. */
const MOST_LISTED = 6;

export function describeCommands(): string {
  const lines = Object.entries(commands as Record<string, CommandUsage>).flatMap(
    ([name, { summary, flags }]) => [
      row(2, name, 14, summary),
      ...(Object.keys(flags).length > MOST_LISTED
        ? [row(18, '', 11, `its flags: dstack-ingress help ${name}`)]
        : Object.entries(flags).map(([flag, meaning]) => row(18, flag, 11, meaning))),
    ],
  );
  const rest = Object.entries(INFORMATION).map(([name, summary]) => row(2, name, 14, summary));
  return `usage: dstack-ingress [command]\n\n${[...lines, ...rest].join('')}
\`dstack-ingress help status\` says more of that command. Every setting is an environment variable; docs/settings.md has the
table.
`;
}

export function describeCommand(name: CommandName): string {
  const { summary, takes: needed, mayTake, flags, notes, values = {} }: CommandUsage = commands[name];
  const named = Object.keys(flags).map((flag) => [flag, values[flag]].filter(Boolean).join(' '));
  const optional = [...(mayTake === undefined ? [] : [mayTake]), ...named].map((one) => `[${one}]`);
  const takes = [...(needed === undefined ? [] : [needed]), ...optional].map((one) => ` ${one}`).join('');
  const width = Math.max(...Object.keys(flags).map((flag) => flag.length + 1), 11);
  const lines = Object.entries(flags).map(([flag, meaning]) => row(2, flag, width, meaning));
  const parts = [`${summary}\n`, lines.join(''), notes.map((note) => `${note}\n`).join('')];
  return [`usage: dstack-ingress ${name}${takes}\n`, ...parts].filter((part) => part !== '').join('\n');
}

function row(indent: number, term: string, width: number, meaning: string): string {
  return `${' '.repeat(indent)}${term.padEnd(width)}${meaning}\n`;
}

/** `problem`, and beneath it where to look: two lines. */
export function describeMisuse(problem: string, hint: string): string {
  return `${problem}\nhint: ${hint}\n`;
}

export function unknownCommand(name: string): string {
  const like = nearest(name, [...Object.keys(commands), ...Object.keys(INFORMATION)]);
  const hint = 'dstack-ingress --help lists the commands';
  return describeMisuse(`unknown command: ${name}`, like === undefined ? hint : `was ${like} meant? ${hint}`);
}

/** What is wrong with the arguments of a command; undefined if nothing is. */
export function misuseOf(command: CommandName, args: readonly string[]): string | undefined {
  const { flags: known, takes, mayTake, values = {} }: CommandUsage = commands[command];
  const flags = Object.keys(known);
  const hint = `dstack-ingress ${command} --help says what it takes`;
  const empty = flags.find((flag) => values[flag] !== undefined && args.at(-1) === flag);
  if (empty !== undefined)
    return describeMisuse(`${command}: nothing follows ${empty}`, `write ${empty} ${values[empty]}`);
  const bare = args.filter((_, i) => values[args[i - 1] ?? ''] === undefined);
  const given = (takes ?? mayTake) === undefined ? undefined : bare.findIndex((arg) => !arg.startsWith('-'));
  const wrong = bare.find((arg, i) => i !== given && !flags.includes(arg));
  if (wrong === undefined)
    return takes !== undefined && given === -1
      ? describeMisuse(`${command}: lacks ${takes}`, hint)
      : undefined;
  const like = nearest(wrong, [...flags, '--help']);
  const kind = wrong.startsWith('-') ? 'unknown flag' : 'takes no such argument';
  return describeMisuse(
    `${command}: ${kind}: ${wrong}`,
    like === undefined ? hint : `was ${like} meant? ${hint}`,
  );
}
