// A queue of bytes: what goes in comes out, in order, and small pieces cost little more than their bytes.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { createByteQueue } from '../../../proxy/socket/byte-queue.ts';

describe('a byte queue', () => {
  it('gives back what was put in, in order, whatever the pieces', () => {
    const piece = fc.uint8Array({ maxLength: 9_000 });
    const step = fc.record({ piece, take: fc.nat(12_000) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const queue = createByteQueue();
        let wanted = Buffer.alloc(0);
        for (const { piece: added, take } of steps) {
          const bytes = Buffer.concat([Buffer.from([1, 2]), added, Buffer.from([3])]);
          queue.append(bytes, 2, bytes.length - 1);
          wanted = Buffer.concat([wanted, added]);
          for (let left = take; left > 0 && queue.length > 0; ) {
            const size = Math.min(left, queue.headLength);
            assert.ok(size > 0);
            const { head, headStart } = queue;
            assert.ok(wanted.subarray(0, size).equals(head.subarray(headStart, headStart + size)));
            queue.drop(size);
            wanted = wanted.subarray(size);
            left -= size;
          }
          assert.equal(queue.length, wanted.length);
        }
      }),
    );
  });

  it('holds 64 KiB of single octets in blocks, not in 65,536 slices', () => {
    const queue = createByteQueue();
    const one = Buffer.from('x');
    for (let i = 0; i < 65_536; i++) queue.append(one, 0, 1);
    let blocks = 0;
    let memory = 0;
    for (; queue.length > 0; queue.drop(queue.headLength)) {
      blocks++;
      memory += queue.head.buffer.byteLength;
    }
    assert.ok(blocks < 32, `${blocks} blocks`);
    assert.ok(memory < 80 * 1024, `${memory} bytes`);
  });

  it('gives the memory of large blocks back when they are used up, and all of it when it is cleared', () => {
    const queue = createByteQueue();
    for (let i = 0; i < 3; i++) queue.append(Buffer.alloc(8_192, i), 0, 8_192);
    const first = queue.head;
    queue.drop(8_192);
    assert.equal(first.length, 0);
    const second = queue.head;
    queue.clear();
    assert.equal(second.length, 0);
    assert.equal(queue.length, 0);
    queue.append(Buffer.from('again'), 0, 5);
    assert.equal(queue.head.toString('latin1', queue.headStart, queue.headStart + queue.headLength), 'again');
  });
});
