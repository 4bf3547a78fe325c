// PROXY protocol headers (proxy/listener/proxy-protocol.ts): the same verdict however they are cut, and a bounded wait.

import assert from 'node:assert/strict';
import { isIP } from 'node:net';
import { parseProxyHeader } from '../../../proxy/listener/proxy-protocol.ts';
import { fuzzTarget, mutated } from '../target.ts';

/** The longest header that any version may have, and as many bytes as need ever be waited for. */
const MOST_BYTES = 16 + 4_096;

const signature = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1');
const version2 = (command: number, family: number, ...parts: Buffer[]) => {
  const rest = Buffer.concat(parts);
  const head = Buffer.from([0x20 | command, family, rest.length >> 8, rest.length & 0xff]);
  return Buffer.concat([signature, head, rest]);
};
const ipv4 = Buffer.from([192, 0, 2, 1, 198, 51, 100, 2, 0x30, 0x39, 0x01, 0xbb]);
const seeds = [
  Buffer.from('PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n'),
  Buffer.from('PROXY TCP6 2001:db8::1 2001:db8::2 12345 443\r\n'),
  Buffer.from('PROXY UNKNOWN ffff 1 2 3\r\n'),
  version2(1, 0x11, ipv4),
  version2(1, 0x21, Buffer.alloc(36, 0x20)),
  version2(1, 0x11, ipv4, Buffer.from([4, 0, 200]), Buffer.alloc(200)),
  version2(0, 0),
  version2(1, 0x31, Buffer.alloc(216, 0x2f)),
];
const tokens = [
  signature,
  Buffer.from('PROXY '),
  Buffer.from('\r\n'),
  Buffer.from(' '),
  Buffer.from([0x21, 0x11, 0xff, 0xff]),
];

export const proxyHeader = fuzzTarget<Buffer>({
  name: 'PROXY header',
  input: mutated(seeds, tokens),
  check(bytes) {
    const whole = parseProxyHeader(bytes);
    if (typeof whole !== 'string') {
      assert.ok(whole.size > 0 && whole.size <= Math.min(bytes.length, MOST_BYTES));
      if (whole.source !== undefined) assert.notEqual(isIP(whole.source.address), 0);
      // What follows the header has no say in it.
      assert.deepEqual(parseProxyHeader(bytes.subarray(0, whole.size)), whole);
    }
    if (whole === 'incomplete') assert.ok(bytes.length < MOST_BYTES);
    for (let end = 0; end < Math.min(bytes.length, 300); end++) {
      const early = parseProxyHeader(bytes.subarray(0, end));
      if (early === 'incomplete') continue;
      assert.deepEqual(early, whole);
    }
  },
  growing: {},
});
