// The demo command: the ingress on this machine with a CA, a guest agent and an app around it, and what to try with it.

import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { Writable } from 'node:stream';
import { parseArgs } from 'node:util';
import { createNews } from '../admin/news.ts';
import { readConfig } from '../config/config.ts';
import { startIngress } from '../ingress.ts';
import { createLog } from '../lib/log.ts';
import { meantIn } from '../lib/spelling.ts';
import { version } from '../version.ts';
import { startCertificateAuthority } from './certificate-authority.ts';
import { chatOverGrpc, type DemoServer, echoOverWebSocket, sayOverGrpc } from './client.ts';
import { first, others, type Scene, type Suggestion, shellWord } from './commands.ts';
import { startSimulatedAgent } from './simulated-agent.ts';
import { createSimulatedProcessor, type SimulatedProcessor } from './simulated-quote.ts';
import { startDemoUpstream } from './upstream.ts';

export interface DemoIo {
  /** What was asked for: the suggestions and the clients' replies. */
  readonly out: NodeJS.WritableStream;
  /** The log and what went wrong. */
  readonly err: NodeJS.WritableStream & { isTTY?: boolean };
}

export interface DemoOptions extends DemoIo {
  readonly port: number;
  /** Prints all there is to try, and not the first four alone. */
  readonly more: boolean;
  /** Ends the demo when it aborts. */
  readonly signal: AbortSignal;
}

type DemoErrorCode = 'port-taken' | 'port-refused' | 'usage';

export class DemoError extends Error {
  override readonly name = 'DemoError';
  readonly code: DemoErrorCode;
  readonly hint: string;
  constructor(code: DemoErrorCode, message: string, hint: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.hint = hint;
  }
}

const DEFAULT_PORT = 8443;
/** Of the status page, if nobody has it. */
const ADMIN_PORT = 9180;
const SAME_SIGNAL_MS = 1_000;
const QUOTE_ROOT = 'quote-root.pem';
const QUOTE_COLLATERAL = 'quote-collateral.json';
const POLICY = 'policy.yaml';
/** As long as the simulated certificates: a demo may run for longer than the vendor's month. */
const COLLATERAL_DAYS = 365;

const USAGE = `usage: demo [--port N] [--more]                   serve until Ctrl-C; --more: print all there is to try
       demo websocket TEXT... --ca FILE [--port N]    send over a WebSocket, print what comes back
       demo grpc-unary TEXT --ca FILE [--port N]      one gRPC call
       demo grpc-stream TEXT... --ca FILE [--port N]  one bidirectional gRPC stream
`;

/** Resolves with the exit code: 0 done, 1 failed, 2 wrong arguments. SIGINT and SIGTERM stop it. */
export async function demo(args: readonly string[], io: DemoIo): Promise<number> {
  try {
    const { command, texts, port, caFile, more, help } = parseArguments(args);
    if (help) io.out.write(USAGE);
    else if (command === undefined) await untilSignalled((signal) => runDemo({ port, more, signal, ...io }));
    else await clients[command]({ port, ca: await readFile(caFile, 'utf8') }, texts, io.out);
    return 0;
  } catch (error) {
    if (error instanceof DemoError) io.err.write(`demo: ${error.message}\nhint: ${error.hint}\n`);
    else io.err.write(`demo: ${error instanceof Error ? error.message : String(error)}\n`);
    return error instanceof DemoError && error.code === 'usage' ? 2 : 1;
  }
}

/** Serves until `signal` aborts, then takes everything down again. Rejects with DemoError if the port cannot be had. */
export async function runDemo({ port, more, out, err, signal }: DemoOptions): Promise<void> {
  await assertPortIsFree(port);
  await using parts = new AsyncDisposableStack();
  out.write('Starting: a certificate is obtained first.\n');
  // What there is to do comes first, and the log of the start behind it; or, of a start that fails, before what failed.
  const log = holdBack(err);
  parts.defer(log.release);
  const folder = await mkdtemp(join(tmpdir(), 'ingress-demo-'));
  parts.defer(() => rm(folder, { recursive: true, force: true }));

  const authority = await startCertificateAuthority({ tlsAlpnPort: port, folder });
  parts.defer(authority.stop);
  const socketPath = join(folder, 'dstack.sock');
  const processor = await createSimulatedProcessor({ collateralDays: COLLATERAL_DAYS });
  await publishProcessor(dirname(authority.caFile), processor);
  const agent = await startSimulatedAgent({ socketPath, processor });
  parts.defer(() => agent.close());
  const upstream = await startDemoUpstream();
  parts.defer(upstream.stop);

  const routesFile = join(folder, 'routes.yaml');
  await writeFile(routesFile, routesTo(upstream));
  await mkdir(join(folder, 'state'), { mode: 0o700 });
  // From here on it is the program as it runs in production: the demo only says where things are.
  const adminPort = await freePort(ADMIN_PORT);
  const config = readConfig(settingsOf({ folder, routesFile, port, adminPort, authority, socketPath }));
  const news = createNews();
  const ingress = await startIngress(config, {
    log: createLog({ stream: log, readable: true, tap: news.take }),
    shows: { news, version: version(), privateSocket: join(folder, 'private', 'admin.sock') },
  });
  parts.defer(() => ingress.stop());

  const stopped = aborted(signal);
  if ((await Promise.race([ingress.ready.then(() => 'ready'), stopped])) !== 'ready') return;
  const policyFile = join(folder, POLICY);
  await writeFile(policyFile, policyFor(agent));
  const scene = {
    port,
    adminPort,
    caFile: authority.caFile,
    downloads: join(folder, 'downloads'),
    program: ownCommand('demo'),
    verify: ownCommand('verify'),
    top: ownCommand('top'),
    quoteRoot: join(folder, QUOTE_ROOT),
    quoteCollateral: join(folder, QUOTE_COLLATERAL),
    policyFile,
  };
  out.write(invitation(scene, more));
  log.release();
  await stopped;
  out.write('\nStopping.\n');
}

/** What a verifier of the demo's quotes trusts in the place of Intel's root, and what it would fetch from Intel. */
async function publishProcessor(folder: string, { rootPem, collateral }: SimulatedProcessor): Promise<void> {
  await writeFile(join(folder, QUOTE_ROOT), rootPem);
  await writeFile(join(folder, QUOTE_COLLATERAL), `${JSON.stringify(collateral, undefined, 2)}\n`);
}

/** What a stranger would know of the app from elsewhere; `verify` reads it. */
function policyFor({ appId, composeHash }: { appId: string; composeHash: string }): string {
  return `app:\n  id: "${appId}"\n  compose: "${composeHash}"\n`;
}

/** All that is configured. */
export function settingsOf(scene: {
  readonly folder: string;
  readonly routesFile: string;
  readonly port: number;
  readonly adminPort: number;
  readonly authority: { readonly directoryUrl: string; readonly caFile: string };
  readonly socketPath: string;
}): Record<string, string> {
  const { folder, routesFile, port, adminPort, authority, socketPath } = scene;
  return {
    DOMAIN: 'localhost',
    ROUTES_FILE: routesFile,
    NGINX_CONF_DIR: 'none',
    LISTEN_ADDRESS: '127.0.0.1',
    PORT: String(port),
    ADMIN_ADDRESS: `127.0.0.1:${adminPort}`,
    CHALLENGE_TYPE: 'tls-alpn-01',
    DNS_SETUP_MODE: 'print',
    // No resolver has localhost in its cache.
    DNS_SETTLE_SECONDS: '0',
    ACME_DIRECTORY_URL: authority.directoryUrl,
    ACME_CA_FILE: authority.caFile,
    STATE_DIR: join(folder, 'state'),
    EVIDENCE_DIR: join(folder, 'evidences'),
    DSTACK_SIMULATOR_ENDPOINT: socketPath,
  };
}

export function routesTo(upstream: { httpPort: number; grpcPort: number }): string {
  return `routes:
  - host: localhost
    paths:
      - prefix: /demo.Echo/
        upstream: grpc://127.0.0.1:${upstream.grpcPort}
      - prefix: /
        upstream: http://127.0.0.1:${upstream.httpPort}
`;
}

function invitation(scene: Scene, more: boolean): string {
  const listed = (suggestions: readonly Suggestion[]) =>
    suggestions.flatMap(({ shows, command }) => [`${shows}:`, `  $ ${command}`, '']);
  const rest = more
    ? [`What to choose on the page of the evidence: ${scene.quoteCollateral}`, `and ${scene.quoteRoot}`, '']
    : [`More to try, from HTTP/2 to gRPC: ${ownCommand('demo')} --more`, ''];
  return [
    '',
    `The page       https://localhost:${scene.port}/`,
    `The evidence   https://localhost:${scene.port}/evidences/`,
    `The status     http://localhost:${scene.adminPort}/`,
    '',
    'CA, guest agent, its quotes and the app are simulated, so a browser warns.',
    'All between them is the program as it runs in production. In another terminal,',
    'in this folder:',
    '',
    ...listed(first(scene)),
    ...(more ? listed(others(scene)) : []),
    ...rest,
    'Stop it with Ctrl-C. What follows is its log.',
    '',
    '',
  ].join('\n');
}

/** A command of the program that this process is, started as this process was: through npm, or the program itself. */
function ownCommand(command: 'demo' | 'verify' | 'top'): string {
  const throughNpm = process.env.npm_lifecycle_event === 'demo';
  if (throughNpm && command !== 'top') return `npm run -s ${command} --`;
  // npm has no script of its own for it; it knows where the Node is that the project brings.
  if (throughNpm) return `npm exec -- node src/main.ts ${command}`;
  return [process.execPath, process.argv[1]!, command].map(shellWord).join(' ');
}

/** A stream that keeps what it is given until it is released, and passes it on from then. */
function holdBack(stream: NodeJS.WritableStream) {
  const held: string[] = [];
  let isHeld = true;
  return Object.assign(
    new Writable({
      decodeStrings: false,
      write(chunk, _encoding, done) {
        if (isHeld) held.push(String(chunk));
        else stream.write(chunk);
        done();
      },
    }),
    {
      release() {
        isHeld = false;
        for (const text of held.splice(0)) stream.write(text);
      },
    },
  );
}

/** `wanted`, unless another program has it. */
async function freePort(wanted: number): Promise<number> {
  const listening = (port: number) =>
    new Promise<number>((resolve, reject) => {
      const probe = createServer().once('error', reject);
      probe.listen(port, '127.0.0.1', () => {
        const { port: bound } = probe.address() as AddressInfo;
        probe.close(() => resolve(bound));
      });
    });
  return listening(wanted).catch(() => listening(0));
}

/** Checked before anything is started. Rejects with DemoError. */
async function assertPortIsFree(port: number): Promise<void> {
  const probe = createServer();
  try {
    await new Promise<void>((resolve, reject) => {
      probe.once('error', reject).listen(port, '127.0.0.1', resolve);
    });
  } catch (cause) {
    const hint = 'npm run demo -- --port N takes another port';
    if ((cause as NodeJS.ErrnoException).code === 'EADDRINUSE') {
      throw new DemoError('port-taken', `port ${port} is taken by another program`, hint, { cause });
    }
    throw new DemoError(
      'port-refused',
      `port ${port} cannot be listened on: ${(cause as Error).message}`,
      hint,
      { cause },
    );
  } finally {
    probe.close();
  }
}

/** The first SIGINT or SIGTERM asks for a clean stop; one that comes later ends the process as if nobody listened. */
async function untilSignalled(run: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const stop = new AbortController();
  const onSignal = () => {
    stop.abort();
    // On Ctrl-C the signal comes twice: from the terminal, and from npm, which passes on what it gets.
    setTimeout(detach, SAME_SIGNAL_MS).unref();
  };
  const detach = () => {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  try {
    await run(stop.signal);
  } finally {
    detach();
  }
}

function aborted(signal: AbortSignal): Promise<'stopped'> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve('stopped');
    signal.addEventListener('abort', () => resolve('stopped'), { once: true });
  });
}

type ClientCommand = (
  server: DemoServer,
  texts: readonly string[],
  out: NodeJS.WritableStream,
) => Promise<void>;

const clients = {
  async websocket(server, texts, out) {
    for (const text of await echoOverWebSocket(server, texts)) out.write(`${text}\n`);
  },
  async 'grpc-unary'(server, [text = ''], out) {
    out.write(`${await sayOverGrpc(server, text)}\n`);
  },
  'grpc-stream': (server, texts, out) => chatOverGrpc(server, texts, (text) => void out.write(`${text}\n`)),
} satisfies Record<string, ClientCommand>;

type Command = keyof typeof clients;

interface Arguments {
  readonly command: Command | undefined;
  readonly texts: readonly string[];
  readonly port: number;
  readonly caFile: string;
  readonly more: boolean;
  readonly help: boolean;
}

function parseArguments(args: readonly string[]): Arguments {
  const { values, positionals } = parseOptions(args);
  const [command, ...texts] = positionals;
  const port = Number(values.port ?? DEFAULT_PORT);
  if (!Number.isInteger(port) || port < 1 || port > 65_535)
    throw usage(`--port ${values.port} is not a port`);
  if (command !== undefined) {
    if (!Object.hasOwn(clients, command))
      throw usage(`unknown demo command: ${command}${meantIn(command, Object.keys(clients))}`);
    if (texts.length === 0) throw usage(`${command} wants a text to send`);
    if (values.ca === undefined) throw usage(`${command} wants --ca, the file that the running demo names`);
    if (values.more === true) throw usage(`--more is for the demo itself, not for ${command}`);
  }
  return {
    command: command as Command | undefined,
    texts,
    port,
    caFile: values.ca ?? '',
    more: values.more ?? false,
    help: values.help ?? false,
  };
}

function parseOptions(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        port: { type: 'string' },
        ca: { type: 'string' },
        more: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
      },
    });
  } catch (cause) {
    // Node's own words go on about positional arguments.
    const flag = /^Unknown option '(-+[^']*)'/.exec((cause as Error).message)?.[1];
    if (flag === undefined) throw usage((cause as Error).message);
    throw usage(`unknown flag: ${flag}${meantIn(flag, ['--port', '--ca', '--more', '--help'])}`);
  }
}

function usage(problem: string): DemoError {
  return new DemoError('usage', problem, 'npm run demo -- --help lists what it takes');
}
