// Ports of 127.0.0.1 for programs that cannot choose one themselves, or that must find theirs again after a restart.

import { once } from 'node:events';
import { createServer } from 'node:net';

/**
 * Below those that Linux hands out to connections and to who asks for any (ip_local_port_range): while a program that
 * was killed is down, nobody gets its port by chance.
 */
const LOWEST = 10_000;
const BEYOND = 32_000;
const MOST_TRIES = 100;

const given = new Set<number>();

/** A port without a listener, which this process was not given before. */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < MOST_TRIES; tries++) {
    const port = LOWEST + Math.floor(Math.random() * (BEYOND - LOWEST));
    if (given.has(port) || !(await isFree(port))) continue;
    given.add(port);
    return port;
  }
  throw new Error(`no port was free in ${MOST_TRIES} tries`);
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer().listen(port, '127.0.0.1');
  try {
    await once(server, 'listening');
  } catch {
    return false;
  }
  server.close();
  await once(server, 'close');
  return true;
}
