// The nginx that serves the files every proxy is asked for, and counts how often it was asked.

import { mkdir, open, writeFile } from 'node:fs/promises';
import { get } from 'node:http';
import { join } from 'node:path';
import { nginxProcess, nginxTemporaryFolders } from './nginx-config.ts';
import { freePort } from './ports.ts';
import { LOAD_CORE, type Running, start } from './processes.ts';
import { until } from './until.ts';

export const SMALL = { path: '/1k', bytes: 1_024 };
export const LARGE = { path: '/100m', bytes: 100 * 1_024 * 1_024 };

export interface FilesUpstream {
  readonly running: Running;
  /** The folder of the files. */
  readonly root: string;
  /** On 127.0.0.1, HTTP/1.1. */
  readonly port: number;
  /** The same over HTTP/2 without TLS. */
  readonly h2cPort: number;
  /** Requests answered so far, without those that ask for this number. */
  served(): Promise<number>;
}

export async function startFilesUpstream(folder: string, log: string): Promise<FilesUpstream> {
  const root = join(folder, 'files');
  await mkdir(root);
  await writeFile(join(root, SMALL.path), 'x'.repeat(SMALL.bytes));
  const large = await open(join(root, LARGE.path), 'w');
  await large.truncate(LARGE.bytes);
  await large.close();
  const port = await freePort();
  const h2cPort = await freePort();
  const config = join(folder, 'files.conf');
  await writeFile(config, configText({ folder, root, port, h2cPort }));
  const running = start({ program: 'nginx', args: ['-p', folder, '-c', config] }, LOAD_CORE, { output: log });
  let questions = 0;
  const served = async () => {
    const requests = await requestsSeen(port);
    questions += 1;
    return requests - questions;
  };
  await until(served, 5_000);
  return { running, root, port, h2cPort, served };
}

function configText(options: { folder: string; root: string; port: number; h2cPort: number }): string {
  const { folder, root, port, h2cPort } = options;
  return `
${nginxProcess(join(folder, 'files.pid'))}
http {
  access_log off;
  ${nginxTemporaryFolders(folder)}
  sendfile on;
  tcp_nopush on;
  keepalive_timeout 300s;
  keepalive_requests 100000000;
  default_type application/octet-stream;
  server {
    listen 127.0.0.1:${port} backlog=8192;
    listen 127.0.0.1:${h2cPort} http2 backlog=8192;
    root ${root};
    open_file_cache max=10;
    location = /status { stub_status; }
  }
}
`;
}

async function requestsSeen(port: number): Promise<number> {
  const text = await getText(`http://127.0.0.1:${port}/status`);
  const requests = /^ *\d+ \d+ (\d+) *$/m.exec(text)?.[1];
  if (requests === undefined) throw new Error(`the nginx upstream gave no status: ${text.slice(0, 200)}`);
  return Number(requests);
}

function getText(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    get(url, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => resolve(Buffer.concat(chunks).toString()));
    }).on('error', reject);
  });
}
