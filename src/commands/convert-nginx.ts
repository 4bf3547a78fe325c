// The convert-nginx command: prints the routes file that says what nginx files say, and lists what it cannot say.

import { readdirSync } from 'node:fs';
import { resolve } from 'node:path';
import { describeMistake } from '../config/mistake.ts';
import type { ExitCodes } from '../exit-codes.ts';
import { readGuardedFileSync } from '../lib/guarded-file.ts';
import { readNginxFiles } from '../routes/nginx/read.ts';
import { writeRoutes } from '../routes/write.ts';

interface Streams {
  readonly out: NodeJS.WritableStream;
  readonly err: NodeJS.WritableStream;
}

/** The file goes to `out`, all else to `err`. */
export function convertNginx(folder: string, { out, err }: Streams, exits: ExitCodes): number {
  const { rules, notes, mistakes } = readNginxFiles(resolve(folder), {
    readFile: readGuardedFileSync,
    listFolder: (path) => readdirSync(path),
  });
  if (mistakes.length > 0) {
    err.write(mistakes.map((mistake) => `${describeMistake(mistake)}\n`).join(''));
    return exits.configuration;
  }
  const { text, unsaid } = writeRoutes(rules);
  // Written into the file too: a rule that is lost may be one that kept somebody out.
  for (const { origin, what } of unsaid) {
    const where = origin === undefined ? '' : `${origin}: `;
    out.write(`# not said here: ${where}${what}\n`);
    err.write(`not said: ${where}${what}\n`);
  }
  for (const { text: note, directives } of notes) err.write(`note: ${note}: ${directives.join(', ')}\n`);
  out.write(text);
  return unsaid.length === 0 ? exits.ok : exits.failed;
}
