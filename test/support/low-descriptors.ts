// A listener in a process of its own with few file descriptors (see capacity.test.ts): prints its port, and its CPU time at the end.

import { readFileSync } from 'node:fs';
import { answering, routeTo, settingsFor, startIngress, startUpstream } from './proxy.ts';

const limits = readFileSync('/proc/self/limits', 'utf8');
const maxDescriptors = Number(/^Max open files\s+(\d+)/m.exec(limits)![1]);
const upstream = await startUpstream(answering(() => 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'));
const ingress = await startIngress([routeTo(settingsFor(upstream.port))], {
  limits: { maxConnections: 1_000, maxDescriptors },
});
process.stdout.write(`${JSON.stringify({ port: ingress.port, maxDescriptors })}\n`);
process.stdin.on('end', () => process.exit()).resume();
