// The header that names the client to an upstream, byte for byte, and read again by the reader that we have for those of others.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseProxyHeader } from '../../../proxy/listener/proxy-protocol.ts';
import { announce, ownHeader } from '../../../proxy/upstream/announcement.ts';

const header = (from: string, to: string) =>
  announce({ source: { address: from, port: 40_000 }, destination: { address: to, port: 443 } }).header;
const SIGNATURE = '0d0a0d0a000d0a515549540a';

describe('the header', () => {
  test('of IPv4 is 28 bytes: both addresses, both ports', () =>
    assert.equal(
      header('203.0.113.9', '10.0.0.2').toString('hex'),
      `${SIGNATURE}2111000ccb0071090a0000029c4001bb`,
    ));

  test('of IPv6 is 52 bytes', () =>
    assert.equal(
      header('2001:db8::1', 'fd00::2').toString('hex'),
      `${SIGNATURE}21210024${'20010db8000000000000000000000001'}${'fd000000000000000000000000000002'}9c4001bb`,
    ));

  test('of one of each has both as IPv6', () => {
    const bytes = header('2001:db8::1', '10.0.0.2');
    assert.equal(bytes.subarray(32, 48).toString('hex'), '00000000000000000000ffff0a000002');
    assert.equal(
      header('203.0.113.9', 'fd00::2').subarray(16, 32).toString('hex'),
      '00000000000000000000ffffcb007109',
    );
  });

  test('of an address that a socket for both families names is that of IPv4', () =>
    assert.deepEqual(header('::ffff:203.0.113.9', '::ffff:10.0.0.2'), header('203.0.113.9', '10.0.0.2')));

  test('is read as what it was made of', () => {
    for (const [from, to] of [
      ['203.0.113.9', '10.0.0.2'],
      ['::1', '::1'],
      ['2001:db8:1:2:3:4:5:6', 'fd00::'],
      ['fe80::1%eth0', 'fe80::2'],
    ] as const) {
      const bytes = header(from, to);
      assert.deepEqual(parseProxyHeader(bytes), {
        size: bytes.length,
        source: { address: from.replace('%eth0', ''), port: 40_000 },
        destinationPort: 443,
      });
    }
  });

  test('of what is no address says that nothing is known, and is no part of a request', () => {
    for (const from of ['', 'unix:', '203.0.113']) assert.deepEqual(header(from, '10.0.0.2'), ownHeader);
    assert.deepEqual(parseProxyHeader(ownHeader), {
      size: 16,
      source: undefined,
      destinationPort: undefined,
    });
  });
});

test('the key tells two connections of one client apart', () => {
  const key = (port: number) =>
    announce({
      source: { address: '203.0.113.9', port },
      destination: { address: '10.0.0.2', port: 443 },
    }).key;
  assert.equal(key(1), key(1));
  assert.notEqual(key(1), key(2));
});
