// The demo command: the ingress on this machine with a CA, a guest agent and an app around it, and what to try with it.

import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { readConfig } from '../config/config.ts';
import { startIngress } from '../ingress.ts';
import { createLog } from '../lib/log.ts';
import { meantIn } from '../lib/spelling.ts';
import { startCertificateAuthority } from './certificate-authority.ts';
import { chatOverGrpc, type DemoServer, echoOverWebSocket, sayOverGrpc } from './client.ts';
import { type Scene, shellWord, suggestions } from './commands.ts';
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
const SAME_SIGNAL_MS = 1_000;
const QUOTE_ROOT = 'quote-root.pem';
const QUOTE_COLLATERAL = 'quote-collateral.json';
/** As long as the simulated certificates: a demo may run for longer than the vendor's month. */
const COLLATERAL_DAYS = 365;

const USAGE = `usage: demo [--port N]                            serve until Ctrl-C
       demo websocket TEXT... --ca FILE [--port N]    send over a WebSocket, print what comes back
       demo grpc-unary TEXT --ca FILE [--port N]      one gRPC call
       demo grpc-stream TEXT... --ca FILE [--port N]  one bidirectional gRPC stream
`;

/** Resolves with the exit code: 0 done, 1 failed, 2 wrong arguments. SIGINT and SIGTERM stop it. */
export async function demo(args: readonly string[], io: DemoIo): Promise<number> {
  try {
    const { command, texts, port, caFile, help } = parseArguments(args);
    if (help) io.out.write(USAGE);
    else if (command === undefined) await untilSignalled((signal) => runDemo({ port, signal, ...io }));
    else await clients[command]({ port, ca: await readFile(caFile, 'utf8') }, texts, io.out);
    return 0;
  } catch (error) {
    if (error instanceof DemoError) io.err.write(`demo: ${error.message}\nhint: ${error.hint}\n`);
    else io.err.write(`demo: ${error instanceof Error ? error.message : String(error)}\n`);
    return error instanceof DemoError && error.code === 'usage' ? 2 : 1;
  }
}

/** Serves until `signal` aborts, then takes everything down again. Rejects with DemoError if the port cannot be had. */
export async function runDemo({ port, out, err, signal }: DemoOptions): Promise<void> {
  await assertPortIsFree(port);
  await using parts = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), 'dstack-ingress-demo-'));
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
  const config = readConfig(settingsOf({ folder, routesFile, port, authority, socketPath }));
  const ingress = await startIngress(config, { log: createLog({ stream: err, readable: true }) });
  parts.defer(() => ingress.stop());

  const stopped = aborted(signal);
  if ((await Promise.race([ingress.ready.then(() => 'ready'), stopped])) !== 'ready') return;
  const scene = {
    port,
    caFile: authority.caFile,
    downloads: join(folder, 'downloads'),
    program: ownCommand('demo'),
    verify: ownCommand('verify'),
    quoteRoot: join(folder, QUOTE_ROOT),
    quoteCollateral: join(folder, QUOTE_COLLATERAL),
    appId: agent.appId,
    composeHash: agent.composeHash,
  };
  out.write(invitation(scene));
  await stopped;
  out.write('\nStopping.\n');
}

/** What a verifier of the demo's quotes trusts in the place of Intel's root, and what it would fetch from Intel. */
async function publishProcessor(folder: string, { rootPem, collateral }: SimulatedProcessor): Promise<void> {
  await writeFile(join(folder, QUOTE_ROOT), rootPem);
  await writeFile(join(folder, QUOTE_COLLATERAL), `${JSON.stringify(collateral, undefined, 2)}\n`);
}

/** All that is configured. */
export function settingsOf(scene: {
  readonly folder: string;
  readonly routesFile: string;
  readonly port: number;
  readonly authority: { readonly directoryUrl: string; readonly caFile: string };
  readonly socketPath: string;
}): Record<string, string> {
  const { folder, routesFile, port, authority, socketPath } = scene;
  return {
    DOMAIN: 'localhost',
    ROUTES_FILE: routesFile,
    NGINX_CONF_DIR: 'none',
    LISTEN_ADDRESS: '127.0.0.1',
    PORT: String(port),
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

function invitation(scene: Scene): string {
  const lines = suggestions(scene).flatMap(({ shows, command }) => [`${shows}:`, `  $ ${command}`, '']);
  return [
    '',
    `The ingress serves https://localhost:${scene.port}.`,
    'Simulated: the CA (its root is trusted by nobody), the guest agent and its quotes, the app.',
    'As in production: everything between them.',
    '',
    `The evidence as people see it: https://localhost:${scene.port}/evidences/`,
    `What to choose there: quote-collateral.json and quote-root.pem in ${dirname(scene.caFile)}`,
    '',
    'Paste into another terminal, in this folder:',
    '',
    ...lines,
    'Stop it with Ctrl-C.',
    '',
  ].join('\n');
}

/** A command of the program that this process is, started as this process was: through npm, or the program itself. */
function ownCommand(command: 'demo' | 'verify'): string {
  if (process.env.npm_lifecycle_event === 'demo') return `npm run --silent ${command} --`;
  return [process.execPath, process.argv[1]!, command].map(shellWord).join(' ');
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
  }
  return {
    command: command as Command | undefined,
    texts,
    port,
    caFile: values.ca ?? '',
    help: values.help ?? false,
  };
}

function parseOptions(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: { port: { type: 'string' }, ca: { type: 'string' }, help: { type: 'boolean', short: 'h' } },
    });
  } catch (cause) {
    // Node's own words go on about positional arguments.
    const flag = /^Unknown option '(-+[^']*)'/.exec((cause as Error).message)?.[1];
    if (flag === undefined) throw usage((cause as Error).message);
    throw usage(`unknown flag: ${flag}${meantIn(flag, ['--port', '--ca', '--help'])}`);
  }
}

function usage(problem: string): DemoError {
  return new DemoError('usage', problem, 'npm run demo -- --help lists what it takes');
}
