#!/usr/bin/env node
// The program of the npm package: the two commands that verify, for those who use an app and do not run one.

import { describeCommand, inOneWord, misuseOf } from './commands/usage.ts';
import { exitCodes } from './exit-codes.ts';
import { version } from './version.ts';

const HELP = `usage: dstack-ingress verify https://HOST [options]
       dstack-ingress verify proxy --listen 127.0.0.1:PORT https://HOST [options]

  verify         check as a stranger that a host is what it says; verify --help says what it takes
  verify proxy   let local programs reach a host, for as long as it is proven; verify proxy --help says what it takes
  --version      print the version
`;

process.exitCode = await main(process.argv.slice(2));

async function main(args: readonly string[]): Promise<number> {
  const [first = '--help', ...rest] = inOneWord(args);
  if (first === '--version' || first === 'version') return print(`dstack-ingress ${version()}\n`);
  if (first === '--help' || first === '-h' || first === 'help') return print(HELP);
  if (first !== 'verify' && first !== 'verify proxy')
    return misused(
      `dstack-ingress: ${JSON.stringify(first)} is not in this package: it is the image that serves\n${HELP}`,
    );
  if (rest.includes('--help') || rest.includes('-h')) return print(describeCommand(first));
  const misuse = misuseOf(first, rest);
  if (misuse !== undefined) return misused(misuse);
  const streams = { out: process.stdout, err: process.stderr };
  if (first === 'verify') {
    const { verifyCommand } = await import('./commands/verify.ts');
    return verifyCommand(rest, streams, exitCodes);
  }
  const { verifyProxyCommand } = await import('./commands/verify-proxy.ts');
  return verifyProxyCommand(rest, streams, exitCodes);
}

function print(text: string): number {
  process.stdout.write(text);
  return exitCodes.ok;
}

function misused(text: string): number {
  process.stderr.write(text);
  return exitCodes.usage;
}
