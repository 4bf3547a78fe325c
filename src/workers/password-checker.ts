// The program of the process that compares passwords with their hashes, and does nothing else.

import { Socket } from 'node:net';
import { setPriority } from 'node:os';
import { belongs } from '../../proxy/exchange/password-hashes.ts';
import { CHANNEL_FD, readMessages, writeJson } from './channel.ts';
import { ComparisonSchema } from './messages.ts';

// Under a flood of passwords it would take a core from those who serve: it has what they leave.
setPriority(10);

// A terminal's Ctrl-C and a container's stop reach the whole group: the supervisor decides when it goes.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => {});

const supervisor = new Socket({ fd: CHANNEL_FD, readable: true, writable: true });
supervisor.on('error', () => {});
supervisor.once('close', () => process.exit(0));

readMessages(
  supervisor,
  (json) => {
    const { question, hash, password } = ComparisonSchema.parse(json);
    writeJson(supervisor, { question, right: belongs(password, hash) });
  },
  () => process.exit(1),
);
