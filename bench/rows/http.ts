// Rows of HTTP requests: kept connections, uploads, HTTP/2, and the same through raw TCP.

import { readFile } from 'node:fs/promises';
import { askHttp1, askHttp2, expectAnswer } from '../ask.ts';
import { LARGE, SMALL } from '../files-upstream.ts';
import type { Load } from '../load/children.ts';
import { download } from '../load/curl.ts';
import { startH2load } from '../load/h2load.ts';
import { startWrk, type WrkSettings } from '../load/wrk.ts';
import { cpuTimeUs } from '../measure.ts';
import type { Stage } from '../stage.ts';
import { until } from '../until.ts';
import type { LoadRow, Measurement, SingleRow, Subject } from './row.ts';

export const wrk = { program: 'wrk', package: 'wrk' };
const h2load = { program: 'h2load', package: 'nghttp2-client' };
export const curl = { program: 'curl', package: 'curl' };

const UPLOAD = { connections: 16, bytes: 1_024 * 1_024 };
const H2 = { connections: 32, streams: 8 };
export const DOWNLOADS = 5;
const LOG_TIMEOUT_MS = 3_000;

/** A handshake, which takes nginx 5 ms with P-384 alone, and requests of those that are open. */
const OPENING_MS_EACH = 6;

/** Small replies to wrk's requests over this many kept connections. */
export function keepAlive(connections: number): LoadRow {
  return {
    id: 'h1',
    title: `HTTP/1.1, ${connections.toLocaleString('en')} kept connections, 1 KiB reply`,
    unit: 'µs/request',
    tools: [wrk],
    moreOpeningMs: connections * OPENING_MS_EACH,
    target: (stage) => ({ protocol: 'http', port: stage.files.port }),
    verify: verifySmall,
    load: ({ stage, subject }) => startKeepAlive(stage, subject, connections),
  };
}

function startKeepAlive(stage: Stage, subject: Subject, connections: number): Promise<Load> {
  const settings: WrkSettings = {
    port: subject.port,
    path: SMALL.path,
    connections,
    replyBytes: SMALL.bytes,
    units: stage.files.served,
  };
  return startWrk(stage, settings);
}

async function verifySmall({ stage, subject }: Measurement): Promise<void> {
  expectAnswer(await askHttp1(stage, subject.port, { path: SMALL.path }), SMALL.bytes);
}

export const h1 = keepAlive(64);

export const h1Logged: LoadRow = {
  ...h1,
  id: 'h1-logged',
  title: 'the same with JSON access logs',
  beside: 'h1',
  accessLog: true,
  async verify(measurement) {
    await verifySmall(measurement);
    // A proxy that writes no log after all would look as if logs were free.
    await until(() => findLogLine(measurement.subject.log), LOG_TIMEOUT_MS);
  },
};

export const h1ToH2c: LoadRow = {
  ...h1,
  id: 'h1-h2c',
  title: 'HTTP/1.1, 64 kept connections, 1 KiB reply, upstream h2c',
  target: (stage) => ({ protocol: 'h2c', port: stage.files.h2cPort }),
};

async function findLogLine(file: string): Promise<void> {
  const lines = (await readFile(file, 'utf8')).split('\n');
  const logged = lines.some((line) => line.startsWith('{') && line.includes(SMALL.path));
  if (!logged) throw new Error(`no line of JSON with ${SMALL.path} in its log`);
}

export const tcp: LoadRow = {
  ...h1,
  id: 'tcp',
  title: 'raw TCP behind TLS, 64 connections, 1 KiB reply',
  target: (stage) => ({ protocol: 'tcp', port: stage.files.port }),
};

export const upload: LoadRow = {
  id: 'upload',
  title: 'HTTP/1.1 upload of 1 MiB, 16 connections',
  unit: 'µs/request',
  tools: [wrk],
  target: (stage) => ({ protocol: 'http', port: stage.http.port }),
  async verify({ stage, subject }) {
    const answer = await askHttp1(stage, subject.port, { path: '/', body: Buffer.alloc(UPLOAD.bytes, 'x') });
    expectAnswer(answer, String(UPLOAD.bytes).length);
    if (answer.body.toString() !== String(UPLOAD.bytes)) throw new Error(`only ${answer.body} bytes arrived`);
  },
  load: ({ stage, subject }) =>
    startWrk(stage, {
      port: subject.port,
      path: '/',
      connections: UPLOAD.connections,
      uploadBytes: UPLOAD.bytes,
      replyBytes: String(UPLOAD.bytes).length,
      units: stage.http.served,
    }),
};

export const h2: LoadRow = {
  id: 'h2',
  title: 'HTTP/2, 32 connections of 8 streams, 1 KiB reply',
  unit: 'µs/request',
  tools: [h2load],
  target: (stage) => ({ protocol: 'http', port: stage.files.port }),
  async verify({ stage, subject }) {
    expectAnswer(await askHttp2(stage, subject.port, { path: SMALL.path }), SMALL.bytes);
  },
  load: ({ stage, subject, durationMs }) =>
    startH2load({
      ...H2,
      port: subject.port,
      path: SMALL.path,
      durationMs,
      replyBytes: SMALL.bytes,
      units: stage.files.served,
    }),
};

export const downloadRow: SingleRow = {
  id: 'download',
  title: 'download of 100 MiB',
  unit: 'ms',
  tools: [curl],
  target: (stage) => ({ protocol: 'http', port: stage.files.port }),
  verify: ({ stage, subject }) => download(stage, subject.port, LARGE, 1),
  async measure({ stage, subject }) {
    const beforeUs = cpuTimeUs(subject.pid);
    await download(stage, subject.port, LARGE, DOWNLOADS);
    return (cpuTimeUs(subject.pid) - beforeUs) / DOWNLOADS / 1_000;
  },
};
