// Caddy with its defaults, and a certificate from files.

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { HTTP_ROWS } from '../rows/ids.ts';
import { type Peer, type Site, speaksHttp2 } from './peer.ts';

export const caddy: Peer = {
  id: 'caddy',
  title: 'Caddy',
  needs: { program: 'caddy', package: 'caddy' },
  version: { program: 'caddy', args: ['version'] },
  rows: [...HTTP_ROWS, 'h1-h2c'],
  async prepare(site) {
    const file = join(site.folder, 'Caddyfile');
    await writeFile(file, configText(site));
    return {
      program: 'caddy',
      args: ['run', '--config', file, '--adapter', 'caddyfile'],
      env: { XDG_DATA_HOME: site.folder, XDG_CONFIG_HOME: site.folder },
    };
  },
};

function configText(site: Site): string {
  const scheme = speaksHttp2(site.target) ? 'h2c://' : '';
  return `{
  admin off
  auto_https off
  log {
    level ERROR
  }
  servers {
    protocols h1 h2
  }
}
https://localhost:${site.port} {
  bind 127.0.0.1
  tls ${site.certificate.chain} ${site.certificate.key}
  reverse_proxy ${scheme}127.0.0.1:${site.target.port}
}
`;
}
