// What code that has taken over a worker would try: fence-probe.ts SUPERVISOR STATE SOCKET prints what it got, as JSON.

import { once } from 'node:events';
import { closeSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs';
import { connect } from 'node:net';

const [supervisor, state, socket] = process.argv.slice(2) as [string, string, string];
const proc = `/proc/${supervisor}`;

/** Where the supervisor's memory can be read, as /proc/PID/maps says; none without it. */
function memory(): string {
  const [range] = /^[0-9a-f]+-[0-9a-f]+ rw/m.exec(readFileSync(`${proc}/maps`, 'utf8')) ?? ['0-'];
  const file = openSync(`${proc}/mem`, 'r');
  try {
    return String(readSync(file, Buffer.alloc(16), 0, 16, Number.parseInt(range, 16)));
  } finally {
    closeSync(file);
  }
}

async function agent(): Promise<string> {
  const connection = connect(socket);
  await once(connection, 'connect');
  connection.destroy();
  return 'connected';
}

const attempts: Record<string, () => unknown> = {
  environ: () => readFileSync(`${proc}/environ`, 'utf8'),
  memory,
  descriptors: () => readdirSync(`${proc}/fd`).length,
  workingFolder: () => readdirSync(`${proc}/cwd/`).length,
  root: () => readdirSync(`${proc}/root/`).length,
  state: () => readdirSync(state, { recursive: true }).length,
  signal: () => process.kill(Number(supervisor), 0),
  agent,
  becomeRoot: () => process.setuid!(0),
};

const got: Record<string, string> = {};
for (const [what, attempt] of Object.entries(attempts)) {
  try {
    got[what] = `got ${await attempt()}`;
  } catch (error) {
    got[what] = (error as NodeJS.ErrnoException).code ?? String(error);
  }
}
process.stdout.write(JSON.stringify(got));
