// All files of the comparison, and the folder that their roots lead to.

import type { Case } from './case.ts';
import { access } from './files/access.ts';
import { errors } from './files/errors.ts';
import { locations } from './files/locations.ts';
import { proxying } from './files/proxying.ts';
import { rewriting } from './files/rewriting.ts';
import { servers } from './files/servers.ts';
import { statics } from './files/statics.ts';
import { variables } from './files/variables.ts';

export const cases: readonly Case[] = [
  ...servers,
  ...locations,
  ...proxying,
  ...rewriting,
  ...errors,
  ...access,
  ...statics,
  ...variables,
];

export const disk = {
  users: `ann:{PLAIN}secret\nbob:{SHA}2PRZAyDhNDqRW2OUFwZQqPNdaSY=\ncid:$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/\n`,
  'www/index.html': '<p>front',
  'www/file.txt': '0123456789',
  'www/page.html': '<p>page',
  'www/data.json': '{}',
  'www/img.PNG': 'png',
  'www/noext': 'none',
  'www/.hidden': 'dot',
  'www/big.css': 'a{}'.repeat(100),
  'www/empty.txt': '',
  'www/a b.txt': 'space',
  'www/404.html': '<p>404',
  'www/50x.html': '<p>50x',
  'www/sorry.html': '<p>sorry',
  'www/static500.txt': 'static 500',
  'www/sub/index.html': '<p>sub',
  'www/sub/other.html': '<p>other',
  'www/noindex/x.txt': 'x',
  'www/idx/x': 'x',
  'www/abs/x': 'x',
  'www/d/x': 'x',
  'www/files/x.txt': 'files',
  'www/other/files/x.txt': 'other files',
  'www/nested/out/x.txt': 'out',
  'www/html.html': '<p>html',
  'www/up/file.txt': 'up',
};
