// A container that shares the evidence folder and wishes ill: exchanges what is there for links, until it is killed.
// link-swapper.ts FOLDER SECRETS: SECRETS is the folder that the links lead to.

import { readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const [folder, secrets] = process.argv.slice(2) as [string, string];
const versions = join(folder, '.versions');

/** What the other side changes meanwhile makes one step fail or another; the next round is another chance. */
function attempt(step: () => void): void {
  try {
    step();
  } catch {}
}

/** The thing at this path is a link for a moment, and then itself again. */
function swap(path: string, target: string): void {
  const aside = `${path}.aside`;
  attempt(() => renameSync(path, aside));
  attempt(() => symlinkSync(target, path));
  attempt(() => rmSync(path));
  attempt(() => renameSync(aside, path));
}

console.log('started');
for (let round = 0; ; round++) {
  swap(versions, secrets);
  attempt(() => {
    for (const version of readdirSync(versions)) {
      swap(join(versions, version), secrets);
      attempt(() => symlinkSync(join(secrets, 'account.json'), join(versions, version, 'planted')));
    }
  });
  // As an older image's plain file, and in the next moment as a link.
  const name = join(folder, round % 2 === 0 ? 'quote.json' : 'cert-planted.example.com.pem');
  attempt(() => {
    writeFileSync(`${name}.staged`, 'plain');
    renameSync(`${name}.staged`, name);
  });
  swap(name, join(secrets, 'account.json'));
}
