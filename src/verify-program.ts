#!/usr/bin/env node
// The program of the npm package: the verify command alone, for those who check an app and do not run one.

import { describeCommand, misuseOf } from './commands/usage.ts';
import { verifyCommand } from './commands/verify.ts';
import { exitCodes } from './exit-codes.ts';
import { version } from './version.ts';

const HELP = `usage: dstack-ingress verify https://HOST [options]

  verify       check as a stranger that a host is what it says; verify --help says what it takes
  --version    print the version
`;

process.exitCode = await main(process.argv.slice(2));

async function main([first = '--help', ...rest]: readonly string[]): Promise<number> {
  if (first === '--version' || first === 'version') return print(`dstack-ingress ${version()}\n`);
  if (first === '--help' || first === '-h' || first === 'help') return print(HELP);
  if (first !== 'verify')
    return misused(
      `dstack-ingress: ${JSON.stringify(first)} is not in this package: it is the image that serves\n${HELP}`,
    );
  if (rest.includes('--help') || rest.includes('-h')) return print(describeCommand('verify'));
  const misuse = misuseOf('verify', rest);
  if (misuse !== undefined) return misused(misuse);
  return verifyCommand(rest, { out: process.stdout, err: process.stderr }, exitCodes);
}

function print(text: string): number {
  process.stdout.write(text);
  return exitCodes.ok;
}

function misused(text: string): number {
  process.stderr.write(text);
  return exitCodes.usage;
}
