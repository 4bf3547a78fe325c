// For tests of the reader of nginx files: a folder that is an object, and what Debian's nginx says of the same text.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeMistake } from '../../../../src/config/mistake.ts';
import { type NginxRules, readNginxFiles } from '../../../../src/routes/nginx/read.ts';

export const FOLDER = '/etc/nginx/conf.d';

/** Names without a folder are in FOLDER. */
export function readAll(files: Readonly<Record<string, string>>): NginxRules {
  const all = new Map(
    Object.entries(files).map(([name, text]) => [name.startsWith('/') ? name : `${FOLDER}/${name}`, text]),
  );
  return readNginxFiles(FOLDER, {
    readFile(path) {
      const text = all.get(path);
      if (text === undefined) throw Object.assign(new Error(path), { code: 'ENOENT' });
      return text;
    },
    listFolder(path) {
      const names = [...all.keys()].flatMap((file) =>
        file.startsWith(`${path}/`) ? [file.slice(path.length + 1).split('/')[0]!] : [],
      );
      if (names.length === 0 && path !== FOLDER) throw Object.assign(new Error(path), { code: 'ENOENT' });
      return [...new Set(names)];
    },
  });
}

export function read(text: string): NginxRules {
  return readAll({ 'a.conf': text });
}

/** Without the folder: `a.conf:1:1: subject: cure`. */
export function mistakesOf(text: string): string[] {
  return read(text).mistakes.map((mistake) => describeMistake(mistake).replaceAll(`${FOLDER}/`, ''));
}

export interface NginxJudge {
  /** Undefined: it would start. Otherwise what it says first. */
  fault(text: string): Promise<string | undefined>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** `nginx -t` with the text where conf.d is included. */
export async function createNginxJudge(): Promise<NginxJudge> {
  const folder = await mkdtemp(join(tmpdir(), 'nginx-judge-'));
  const kinds = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  let count = 0;
  return {
    async fault(text) {
      const id = ++count;
      await writeFile(join(folder, `${id}.inc`), text);
      await writeFile(
        join(folder, `${id}.conf`),
        `daemon off; pid ${folder}/${id}.pid; error_log stderr; events {}
         http { access_log off; ${kinds.map((kind) => `${kind}_temp_path ${folder}/${kind};`).join(' ')} include ${folder}/${id}.inc; }`,
      );
      const child = spawn('nginx', ['-t', '-p', folder, '-c', join(folder, `${id}.conf`), '-e', 'stderr'], {
        env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
        stdio: ['ignore', 'ignore', 'pipe'],
      });
      let said = '';
      child.stderr.on('data', (part) => (said += part));
      const [code] = await once(child, 'close');
      return code === 0 ? undefined : (/\[emerg\] (?:\d+#\d+: )?(.*)/.exec(said)?.[1] ?? said);
    },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}
