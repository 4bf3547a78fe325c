// The parts of an nginx configuration that have nothing to do with what is measured.

import { join } from 'node:path';

/** One worker, in the foreground, room for many connections. */
export function nginxProcess(pidFile: string): string {
  // Started by root, the worker would run as the user nobody, which may not read root's files: 403 for everything.
  const user = process.getuid?.() === 0 ? 'user root;' : '';
  return `${user}
daemon off;
pid ${pidFile};
error_log stderr error;
worker_processes 1;
worker_rlimit_nofile 20000;
events { worker_connections 18000; }`;
}

export function nginxTemporaryFolders(folder: string): string {
  return ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `${name}_temp_path ${join(folder, `${name}_temp`)};`)
    .join('\n  ');
}
