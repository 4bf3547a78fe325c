// Debian's nginx as a real upstream, in a folder of its own, in the foreground.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

export interface NginxServer {
  readonly port: number;
  readonly folder: string;
  stop(): Promise<void>;
}

export interface NginxOptions {
  readonly port: number;
  /** The inside of the server block. */
  readonly server: string;
  /** Of its listen directive, as `http2`. */
  readonly listen?: string;
  /** Server blocks beside it. */
  readonly beside?: string;
  /** What files without a known extension are. Default: text/plain. */
  readonly defaultType?: string;
  /** A password file: `folder`/users. */
  readonly users?: string;
  /** Files under `folder`/www, by name. `FOLDER` in the configuration is the folder. */
  readonly files?: Readonly<Record<string, string | Uint8Array>>;
}

export async function startNginx({
  port,
  server,
  listen = '',
  beside = '',
  defaultType = 'text/plain',
  users,
  files = {},
}: NginxOptions): Promise<NginxServer> {
  const folder = await mkdtemp(join(tmpdir(), 'upstream-nginx-'));
  await mkdir(join(folder, 'www'));
  await mkdir(join(folder, 'tmp'));
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, 'www', name)), { recursive: true });
    await writeFile(join(folder, 'www', name), content);
  }
  if (users !== undefined) await writeFile(join(folder, 'users'), users);
  const kinds = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  await writeFile(
    join(folder, 'nginx.conf'),
    `${process.getuid?.() === 0 ? 'user root;' : ''}
daemon off; worker_processes 1; pid ${folder}/nginx.pid; error_log ${folder}/error.log warn;
events { worker_connections 4096; }
http {
  access_log off; default_type ${defaultType}; keepalive_requests 1000000;
  ${kinds.map((kind) => `${kind}_temp_path ${folder}/tmp/${kind};`).join(' ')}
  server { listen 127.0.0.1:${port} ${listen}; root ${folder}/www; client_max_body_size 0; ${server} }
  ${beside.replaceAll('FOLDER', folder)}
}
`,
  );
  const child = spawn(
    'nginx',
    ['-p', folder, '-c', join(folder, 'nginx.conf'), '-e', join(folder, 'error.log')],
    {
      // Debian keeps it where only root's PATH leads.
      env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
      stdio: 'inherit',
    },
  );
  const ended = once(child, 'exit');
  await accepting(port).catch((error: unknown) => {
    child.kill('SIGKILL');
    throw error;
  });
  return {
    port,
    folder,
    async stop() {
      child.kill('SIGTERM');
      await ended;
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function accepting(port: number): Promise<void> {
  for (let tries = 0; tries < 1200; tries++) {
    const socket = connect(port, '127.0.0.1');
    const open = await Promise.race([
      once(socket, 'connect').then(
        () => true,
        () => false,
      ),
    ]);
    socket.destroy();
    if (open) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error(`nginx does not accept connections on port ${port}`);
}
