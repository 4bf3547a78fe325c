// The command line: serve (the default), status, rollover, demo, --version, --help.

import { readFileSync } from 'node:fs';

/** What the process ends with; part of the interface, see the README. */
export const exitCodes = {
  ok: 0,
  failed: 1,
  usage: 2,
  /** EX_CONFIG of sysexits.h. */
  configuration: 78,
} as const;

const HELP = `usage: dstack-ingress [command]

  serve      serve with the configuration of the environment (the default)
  status     say how each domain stands: certificate, next renewal, last failure, CAA, DNS records
               --json     as JSON
               --offline  from the state folder alone, without asking the DNS
  rollover   give the ACME account a new key; its URL, and so every CAA record, stays
  demo       show everything on this machine, with nothing configured
  --version  print the version and the git revision it was built from
  --help     print this

Every setting is an environment variable; the README has the table.
`;

async function main(args: readonly string[]): Promise<number> {
  const [command = 'serve', ...rest] = args;
  switch (command) {
    case 'serve': {
      if (rest.length > 0) return usage(`serve takes no arguments: ${rest[0]}`);
      // A worker loads its program while this process loads the rest and reads the configuration.
      const { forkWorker } = await import('./worker-process.ts');
      const forkedAhead = forkWorker();
      const { serve } = await import('./serve.ts');
      // Whatever still hangs or waits by then, a worker included, must not keep the process or the port.
      return process.exit(await serve(process.env, exitCodes, forkedAhead));
    }
    case 'status': {
      const { status } = await import('./status.ts');
      return status(rest, process.env, { out: process.stdout, err: process.stderr }, exitCodes);
    }
    case 'rollover': {
      if (rest.length > 0) return usage(`rollover takes no arguments: ${rest[0]}`);
      const { rollover } = await import('./rollover.ts');
      return rollover(process.env, { out: process.stdout, err: process.stderr }, exitCodes);
    }
    case 'demo': {
      const { demo } = await import('./demo/demo.ts');
      return demo(rest, { out: process.stdout, err: process.stderr });
    }
    case '--version':
      process.stdout.write(`dstack-ingress ${version()}\n`);
      return exitCodes.ok;
    case '--help':
    case '-h':
      process.stdout.write(HELP);
      return exitCodes.ok;
    default:
      return usage(`unknown command: ${command}`);
  }
}

function usage(problem: string): number {
  process.stderr.write(`${problem}\nhint: dstack-ingress --help lists the commands\n`);
  return exitCodes.usage;
}

declare const BUILD_VERSION: string | undefined;

/** Fixed when the program is bundled; from source it is what package.json says. */
function version(): string {
  if (typeof BUILD_VERSION === 'string') return BUILD_VERSION;
  const manifest = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  return `${manifest.version} (from source)`;
}

process.exitCode = await main(process.argv.slice(2));
