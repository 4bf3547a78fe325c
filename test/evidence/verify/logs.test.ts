// Proof by the logs themselves that they hold a certificate: from tiles and from answers, checked to the signed root; and logs that lie.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash, generateKeyPairSync, type KeyObject, sign, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { createLogSource } from '../../../evidence/verify/ask-logs.ts';
import { judge, type Seen, type Verification, verify } from '../../../evidence/verify/index.ts';
import { isIncluded, pathFromTiles } from '../../../evidence/verify/merkle.ts';
import {
  createEvidenceWorld,
  type EvidenceHost,
  HOST,
  type Served,
  startEvidenceHost,
  type World,
} from '../../support/evidence-host.ts';

const sha256 = (...parts: Uint8Array[]) => {
  const digest = createHash('sha256');
  for (const part of parts) digest.update(part);
  return digest.digest();
};

/** RFC 6962 §2.1, to the letter. */
function treeHash(leaves: readonly Buffer[]): Buffer {
  if (leaves.length === 1) return leaves[0]!;
  let left = 1;
  while (left * 2 < leaves.length) left *= 2;
  return sha256(Buffer.of(1), treeHash(leaves.slice(0, left)), treeHash(leaves.slice(left)));
}

function leavesOf(size: number): Buffer[] {
  return Array.from({ length: size }, (_, i) => sha256(Buffer.from(`leaf ${i}`)));
}

/** static-ct-api: the tile as a log of these leaves would serve it. */
function tileOf(leaves: readonly Buffer[], path: string): Buffer {
  const [, level = '', number = '', width] = /^tile\/(\d)\/([x\d/]+?)(?:\.p\/(\d+))?$/.exec(path) ?? [];
  const span = 256 ** Number(level);
  const first = Number(number.replace(/[x/]/g, '')) * 256;
  const count = width === undefined ? 256 : Number(width);
  const hashes = Array.from({ length: count }, (_, i) =>
    treeHash(leaves.slice((first + i) * span, (first + i + 1) * span)),
  );
  return Buffer.concat(hashes);
}

test('the path out of the tiles leads from any leaf to the root of a tree of any size', async () => {
  for (const size of [1, 2, 3, 7, 8, 255, 256, 257, 600, 65_800]) {
    const leaves = leavesOf(size);
    const root = treeHash(leaves);
    for (const index of size > 1_000 ? [size - 1] : new Set([0, Math.floor(size / 2), size - 1])) {
      const asked: string[] = [];
      const path = await pathFromTiles(index, size, async (tile, bytes) => {
        asked.push(tile);
        const body = tileOf(leaves, tile);
        assert.equal(body.length, bytes, tile);
        return body;
      });
      const proof = { index, size, path, root };
      assert.ok(isIncluded(leaves[index]!, proof), `${index} of ${size}`);
      assert.ok(!isIncluded(sha256(Buffer.from('another')), proof));
      assert.ok(!isIncluded(leaves[index]!, { ...proof, index: size }));
      if (size > 1) assert.ok(!isIncluded(leaves[index]!, { ...proof, path: path.slice(1) }));
      assert.equal(new Set(asked).size, asked.length, 'no tile is asked for twice');
    }
  }
});

// Two logs that hold one certificate: one of each kind.

const SIZE = 600;
const INDEX = 517;
const TIME = BigInt(Date.now() - 3_600_000);

interface Log {
  readonly key: KeyObject;
  readonly spki: Buffer;
  readonly id: Buffer;
}

function createLog(): Log {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const spki = publicKey.export({ type: 'spki', format: 'der' });
  return { key: privateKey, spki, id: sha256(spki) };
}

function uint(value: number | bigint, bytes: number): Buffer {
  return Buffer.from(
    BigInt(value)
      .toString(16)
      .padStart(bytes * 2, '0'),
    'hex',
  );
}

const vector = (bytes: Uint8Array) => Buffer.concat([uint(bytes.length, 2), bytes]);
const signed = (data: Buffer, { key }: Log) =>
  Buffer.concat([Buffer.of(4, 3), vector(sign('sha256', data, key))]);

/** The first value in a certificate. */
function tbsOf(certificate: Buffer): Buffer {
  const headOf = (at: number) => 2 + Math.max(0, certificate[at + 1]! - 0x80);
  const start = headOf(0);
  const head = headOf(start);
  const length = head === 2 ? certificate[start + 1]! : certificate.readUIntBE(start + 2, head - 2);
  return certificate.subarray(start, start + head + length);
}

function entryOf(tbs: Buffer, issuer: Buffer, extensions: Buffer): Buffer {
  const issuerKey = new X509Certificate(issuer).publicKey.export({ type: 'spki', format: 'der' });
  const parts = [uint(0, 2), uint(TIME, 8), uint(1, 2), sha256(issuerKey), uint(tbs.length, 3), tbs];
  return Buffer.concat([...parts, vector(extensions)]);
}

const tiled = createLog();
const classic = createLog();
const LEAF_INDEX = Buffer.concat([Buffer.of(0), vector(uint(INDEX, 5))]);
const trees = new Map<Log, Buffer[]>();

/** What both logs promise for a certificate; they take it in at once. */
function timestamps(certificate: Buffer, issuer: Buffer): Buffer {
  const scts = [[tiled, LEAF_INDEX] as const, [classic, Buffer.alloc(0)] as const].map(
    ([log, extensions]) => {
      const entry = entryOf(tbsOf(certificate), issuer, extensions);
      const leaves = leavesOf(SIZE);
      leaves[INDEX] = sha256(Buffer.of(0), entry);
      trees.set(log, leaves);
      return Buffer.concat([Buffer.of(0), log.id, uint(TIME, 8), vector(extensions), signed(entry, log)]);
    },
  );
  const list = vector(Buffer.concat(scts.map(vector)));
  return Buffer.concat([Buffer.of(0x04, 0x82), vector(list)]);
}

function headOf(log: Log) {
  const root = treeHash(trees.get(log)!);
  return {
    root,
    signature: signed(Buffer.concat([Buffer.of(0, 1), uint(TIME, 8), uint(SIZE, 8), root]), log),
  };
}

function checkpoint(log: Log): string {
  const { root, signature } = headOf(log);
  const origin = 'logs.example/tiled';
  const id = sha256(Buffer.from(`${origin}\n`), Buffer.of(5), log.id).subarray(0, 4);
  const note = Buffer.concat([id, uint(TIME, 8), signature]).toString('base64');
  const witness = Buffer.alloc(76, 7).toString('base64');
  return `${origin}\n${SIZE}\n${root.toString('base64')}\n\n\u2014 witness.example ${witness}\n\u2014 ${origin} ${note}\n`;
}

function naivePath(leaves: readonly Buffer[], index: number): Buffer[] {
  if (leaves.length === 1) return [];
  let left = 1;
  while (left * 2 < leaves.length) left *= 2;
  const [own, other] = [leaves.slice(0, left), leaves.slice(left)];
  return index < left
    ? [...naivePath(own, index), treeHash(other)]
    : [...naivePath(other, index - left), treeHash(own)];
}

type Answer = string | Buffer | object | undefined;
/** What is said in place of the truth, by the end of the path. */
let instead: (path: string, honest: Answer) => Answer | 'hang';

function honestAnswer(url: URL, base: string): Answer {
  const { pathname } = url;
  const about = (log: Log, name: string) => ({
    description: name,
    log_id: log.id.toString('base64'),
    key: log.spki.toString('base64'),
    mmd: 86_400,
    state: { usable: { timestamp: '2026-01-01T00:00:00Z' } },
  });
  if (pathname === '/list')
    return {
      operators: [
        { name: 'one', logs: [{ ...about(classic, 'Classic'), url: `${base}/classic/` }] },
        { name: 'two', tiled_logs: [{ ...about(tiled, 'Tiled'), monitoring_url: `${base}/tiled/` }] },
      ],
    };
  if (pathname === '/tiled/checkpoint') return checkpoint(tiled);
  // Of the full tiles there are two.
  if (/^\/tiled\/tile\/[^.]*$/.test(pathname) && !/\/0\/00[01]$/.test(pathname)) return undefined;
  if (pathname.startsWith('/tiled/tile/')) return tileOf(trees.get(tiled)!, pathname.slice(7));
  const { root, signature } = headOf(classic);
  if (pathname === '/classic/ct/v1/get-sth')
    return {
      tree_size: SIZE,
      timestamp: Number(TIME),
      sha256_root_hash: root.toString('base64'),
      tree_head_signature: signature.toString('base64'),
    };
  const leaves = trees.get(classic)!;
  if (url.searchParams.get('hash') !== leaves[INDEX]!.toString('base64')) return undefined;
  return {
    leaf_index: INDEX,
    audit_path: naivePath(leaves, INDEX).map((node) => node.toString('base64')),
  };
}

let world: World;
let served: Served;
let server: Server;
let list: string;

before(async () => {
  world = await createEvidenceWorld();
  served = await world.ca.issue([HOST], { timestamps });
  server = createServer((request, response) => {
    const url = new URL(request.url!, list);
    const answer = instead(url.pathname, honestAnswer(url, new URL(list).origin));
    if (answer === 'hang') return;
    const body = typeof answer === 'string' || Buffer.isBuffer(answer) ? answer : JSON.stringify(answer);
    response.writeHead(answer === undefined ? 404 : 200).end(body);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  list = `http://127.0.0.1:${(server.address() as AddressInfo).port}/list`;
});

after(() => {
  server.closeAllConnections();
  server.close();
});

const honest: typeof instead = (_path, answer) => answer;
const only =
  (path: RegExp, lie: (honest: Answer) => Answer | 'hang'): typeof instead =>
  (at, answer) =>
    path.test(at) ? lie(answer) : answer;

async function verified(lie: typeof instead, indexed: 'indexed' | 'not indexed'): Promise<Verification> {
  instead = lie;
  const none = { certSpotter: () => [], crtsh: () => [] };
  const host: EvidenceHost = await startEvidenceHost(world, {
    served: [served],
    published: served,
    ...(indexed === 'not indexed' && { ct: none }),
  });
  return verify({ ...host.options, logs: createLogSource(list) }).finally(() => host.close());
}

const loggedIn = ({ checks }: Pick<Verification, 'checks'>) => checks.find(({ id }) => id === 'ct.logged')!;

test('a certificate that a log proves to hold is logged, whatever the indexes say', async () => {
  for (const [lie, said] of [
    [honest, /entry 517 of (Tiled|Classic), by its signed tree of 600$/],
    [only(/^\/classic/, () => undefined), /of Tiled,/],
    [only(/^\/tiled/, () => undefined), /of Classic,/],
    [only(/\.p\//, () => undefined), /of Classic,/],
  ] as const) {
    const found = await verified(lie, 'not indexed');
    assert.equal(loggedIn(found).verdict, 'pass', loggedIn(found).reason);
    assert.match(loggedIn(found).reason, said);
    assert.equal(found.verdict, 'pass');
  }
});

test('openssl finds the same timestamps valid', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'logs-'));
  const host = await startEvidenceHost(world, { served: [served], published: served });
  try {
    const log = (name: string, { spki }: Log) =>
      `[${name}]\ndescription = ${name}\nkey = ${spki.toString('base64')}\n`;
    await writeFile(
      join(folder, 'logs'),
      `enabled_logs = tiled, classic\n${log('tiled', tiled)}${log('classic', classic)}`,
    );
    await writeFile(join(folder, 'ca.pem'), world.ca.pem);
    const args = ['s_client', '-connect', `127.0.0.1:${host.port}`, '-servername', HOST, '-CAfile', 'ca.pem'];
    const running = promisify(execFile)('openssl', [...args, '-ct', '-ctlogfile', 'logs'], { cwd: folder });
    running.child.stdin?.end();
    const { stdout } = await running;
    assert.equal(stdout.match(/Validation status: valid|validation status: valid/gi)?.length, 2, stdout);
  } finally {
    await host.close();
    await rm(folder, { recursive: true });
  }
});

describe('what is no proof', () => {
  const other = createLog();
  const edited = (edit: (text: string) => string) => (answer: Answer) =>
    typeof answer === 'string' ? edit(answer) : JSON.parse(edit(JSON.stringify(answer)));
  const swapped = (answer: Answer) =>
    JSON.parse(
      JSON.stringify(answer).replaceAll(tiled.spki.toString('base64'), other.spki.toString('base64')),
    );

  for (const [title, lie, said] of [
    ['a list without the log', only(/list/, () => ({ operators: [] })), /is in no log$/],
    ['a list that is none', only(/list/, () => '<html>'), /is in no log$/],
    ['a list that hangs', only(/list/, () => 'hang'), /is in no log$/],
    [
      'a log whose key the list does not have',
      only(/list/, swapped),
      /Tiled: the key in the list of logs is not that/,
    ],
    [
      'a tree that the log has not signed',
      only(
        /checkpoint/,
        edited((text) => text.replace('\n600\n', '\n599\n')),
      ),
      /Tiled: its tree head is not signed with its key/,
    ],
    ['a checkpoint that is none', only(/checkpoint/, () => 'nothing'), /is in no log$/],
    [
      'a tree of nonsense',
      only(/tile\//, (tile) => Buffer.alloc((tile as Buffer).length, 1)),
      /Tiled: the path does not lead/,
    ],
    ['tiles that are too short', only(/tile\//, () => Buffer.alloc(7)), /is in no log$/],
    ['tiles that are too long', only(/tile\//, () => Buffer.alloc(70_000)), /is in no log$/],
  ] as const) {
    test(`${title} is none, and a certificate that no index has either is told of`, async () => {
      const apart: typeof instead = (path, answer) =>
        path.startsWith('/classic') ? undefined : lie(path, answer);
      const found = loggedIn(await verified(apart, 'not indexed'));
      assert.equal(found.verdict, 'fail', found.reason);
      assert.match(found.reason, said);
    });
  }

  test('beside an index that has the certificate it is told of, and is no failure', async () => {
    const found = loggedIn(
      await verified(
        only(/checkpoint|classic/, () => ''),
        'indexed',
      ),
    );
    assert.equal(found.verdict, 'pass');
    const lie = only(
      /checkpoint/,
      edited((text) => text.replace('\n600\n', '\n599\n')),
    );
    const lying = loggedIn(
      await verified(
        (path, answer) => (path.startsWith('/classic') ? undefined : lie(path, answer)),
        'indexed',
      ),
    );
    assert.equal(lying.verdict, 'pass');
    assert.match(
      lying.reason,
      /by those who index them; what was given as proof is none: Tiled: its tree head/,
    );
  });

  test('what was kept is judged again, and a changed path fails', async () => {
    const { seen, expected } = await verified(honest, 'not indexed');
    const judged = async (proofs: Seen['proofs']) =>
      loggedIn(await judge({ ...seen, proofs }, expected, new Date(seen.at))).verdict;
    assert.equal(await judged(seen.proofs), 'pass');
    assert.equal(await judged(seen.proofs.map((proof) => ({ ...proof, index: 0 }))), 'fail');
    assert.equal(await judged(seen.proofs.map((proof) => ({ ...proof, path: [] }))), 'fail');
    assert.equal(await judged(seen.proofs.map((proof) => ({ ...proof, key: 'AAAA' }))), 'fail');
    assert.equal(await judged([]), 'fail');
  });
});
