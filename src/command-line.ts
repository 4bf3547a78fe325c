// The command line: serve (the default) and the other commands, each in a file of commands/.

import {
  type CommandName,
  describeCommand,
  describeCommands,
  inOneWord,
  isCommand,
  misuseOf,
  unknownCommand,
} from './commands/usage.ts';
import { exitCodes } from './exit-codes.ts';
import { version } from './version.ts';

async function main(args: readonly string[]): Promise<number> {
  const [first = 'serve', ...rest] = inOneWord(args);
  switch (first) {
    case 'help':
    case '--help':
    case '-h':
      return help(rest);
    case 'version':
    case '--version':
      return print(`dstack-ingress ${version()}\n`);
    default:
      if (!isCommand(first)) return misused(unknownCommand(first));
      // The demo has commands of its own, and says of each what it takes.
      if (first !== 'demo' && rest.some(asksForHelp)) return print(describeCommand(first));
      return run(first, rest);
  }
}

async function run(command: CommandName, args: readonly string[]): Promise<number> {
  const streams = { out: process.stdout, err: process.stderr };
  if (command === 'demo') {
    const { demo } = await import('./demo/demo.ts');
    return demo(args, streams);
  }
  const misuse = misuseOf(command, args);
  if (misuse !== undefined) return misused(misuse);
  switch (command) {
    case 'serve': {
      // A worker loads its program while this process loads the rest and reads the configuration.
      const { forkWorker } = await import('./workers/process.ts');
      const forkedAhead = forkWorker();
      const { serve } = await import('./serve.ts');
      // Whatever still hangs or waits by then, a worker included, must not keep the process or the port.
      return process.exit(await serve(process.env, exitCodes, forkedAhead));
    }
    case 'status': {
      const { status } = await import('./commands/status.ts');
      const asked = { json: args.includes('--json'), offline: args.includes('--offline') };
      return status(asked, process.env, streams, exitCodes);
    }
    case 'check': {
      const { check } = await import('./commands/check.ts');
      return check(args, process.env, streams, exitCodes);
    }
    case 'healthcheck': {
      const { healthcheck } = await import('./commands/healthcheck.ts');
      return healthcheck(process.env, streams, exitCodes);
    }
    case 'top': {
      const { top } = await import('./commands/top.ts');
      return top(args, process.env, { ...streams, in: process.stdin }, exitCodes);
    }
    case 'verify': {
      const { verifyCommand } = await import('./commands/verify.ts');
      return verifyCommand(args, streams, exitCodes);
    }
    case 'verify proxy': {
      const { verifyProxyCommand } = await import('./commands/verify-proxy.ts');
      return verifyProxyCommand(args, streams, exitCodes);
    }
    case 'config': {
      const { showConfig } = await import('./commands/config.ts');
      return showConfig({ json: args.includes('--json') }, process.env, streams, exitCodes);
    }
    case 'doctor': {
      const { doctor } = await import('./commands/doctor.ts');
      const asked = { json: args.includes('--json'), write: args.includes('--write') };
      return doctor(asked, process.env, streams, exitCodes);
    }
    case 'rollover': {
      const { rollover } = await import('./commands/rollover.ts');
      return rollover(process.env, streams, exitCodes);
    }
    case 'store': {
      const { store } = await import('./commands/store.ts');
      const [verb = ''] = args.filter((arg) => !arg.startsWith('-'));
      const asked = { verb, replace: args.includes('--replace') };
      return store(asked, process.env, { in: process.stdin, ...streams }, exitCodes);
    }
    case 'convert-nginx': {
      const { convertNginx } = await import('./commands/convert-nginx.ts');
      return convertNginx(args[0]!, streams, exitCodes);
    }
  }
}

async function help(asked: readonly string[]): Promise<number> {
  const [command] = inOneWord(asked);
  if (command === undefined || asksForHelp(command)) return print(describeCommands());
  if (!isCommand(command)) return misused(unknownCommand(command));
  return command === 'demo' ? run('demo', ['--help']) : print(describeCommand(command));
}

function asksForHelp(arg: string): boolean {
  return arg === '--help' || arg === '-h' || arg === 'help';
}

function print(text: string): number {
  process.stdout.write(text);
  return exitCodes.ok;
}

function misused(text: string): number {
  process.stderr.write(text);
  return exitCodes.usage;
}

process.exitCode = await main(process.argv.slice(2));
