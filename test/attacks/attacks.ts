// Every attack there is, in the order in which they are run.

import type { Attack } from './attack.ts';
import { idleConnections } from './idle-connections.ts';
import { largeHeads } from './large-heads.ts';
import { oneByteData } from './one-byte-data.ts';
import { oneByteHeads } from './one-byte-heads.ts';
import { rapidResets } from './rapid-resets.ts';
import { renegotiations } from './renegotiations.ts';
import { settingsFlood } from './settings-flood.ts';
import { smallFrames } from './small-frames.ts';
import { unreadStreams } from './unread-streams.ts';

export const attacks: readonly Attack[] = [
  unreadStreams,
  largeHeads,
  rapidResets,
  oneByteData,
  settingsFlood,
  smallFrames,
  idleConnections,
  renegotiations,
  oneByteHeads,
];
