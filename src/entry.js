// Where the program begins: JavaScript that every Node can read, so that one too old to read TypeScript is told so.
//
// main.ts is a link to this file. Node follows a link before it looks at the ending, and `node src/main.ts` runs on any.

const OLDEST_MAJOR = 24;
const OLDEST_MINOR = 12;
const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);

if (major > OLDEST_MAJOR || (major === OLDEST_MAJOR && minor >= OLDEST_MINOR)) {
  await import('./command-line.ts');
} else {
  process.stderr.write(
    `dstack-ingress needs Node ${OLDEST_MAJOR}.${OLDEST_MINOR} or newer, this is ${process.versions.node}: ` +
      'npm ci brings one along, and npm start uses it\n',
  );
  process.exitCode = 1;
}
