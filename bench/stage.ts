// What every measurement needs and none of them measures: a scratch folder, a certificate, the upstreams.

import { rmSync } from 'node:fs';
import { chmod, mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type FilesUpstream, startFilesUpstream } from './files-upstream.ts';
import { startUpstream, type Upstream } from './load/children.ts';
import { LOAD_CORE, runToEnd } from './processes.ts';

export interface Stage {
  readonly folder: string;
  readonly certificate: CertificateFiles;
  /** nginx: /1k and /100m. */
  readonly files: FilesUpstream;
  /** Uploads, WebSocket echo. */
  readonly http: Upstream;
  /** gRPC echo, HTTP/2 without TLS. */
  readonly grpc: Upstream;
  /** The file that takes the output of whatever is started. */
  readonly log: string;
  close(): Promise<void>;
}

/** Paths of a self-signed P-256 certificate of `localhost` and `*.localhost`, PEM. */
export interface CertificateFiles {
  readonly chain: string;
  readonly key: string;
}

export async function openStage(): Promise<Stage> {
  const folder = await mkdtemp(join(tmpdir(), 'ingress-bench-'));
  // Also when the benchmark is interrupted.
  const remove = () => rmSync(folder, { recursive: true, force: true });
  process.on('exit', remove);
  // Peers that drop root still have to read it.
  await chmod(folder, 0o755);
  const log = join(folder, 'output.log');
  const certificate = await makeCertificate(folder);
  const files = await startFilesUpstream(folder, log);
  const http = await startUpstream('http-upstream.ts', log);
  const grpc = await startUpstream('grpc-upstream.ts', log);
  return {
    folder,
    certificate,
    log,
    files,
    http,
    grpc,
    async close() {
      await Promise.all([files, http, grpc].map((upstream) => upstream.running.stop()));
      process.off('exit', remove);
      remove();
    },
  };
}

async function makeCertificate(folder: string): Promise<CertificateFiles> {
  const files = { chain: join(folder, 'chain.pem'), key: join(folder, 'key.pem') };
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,DNS:*.localhost'];
  const output = ['-days', '365', '-keyout', files.key, '-out', files.chain];
  await runToEnd({ program: 'openssl', args: ['req', '-x509', ...curve, ...names, ...output] }, LOAD_CORE);
  await chmod(files.key, 0o644);
  return files;
}
