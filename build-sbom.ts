// Writes what the program is made of, as CycloneDX and as SPDX, the same bytes for the same lockfile.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('.', import.meta.url));

if (import.meta.main) writeSboms(process.argv[2] ?? 'dist');

export function writeSboms(outdir: string): void {
  mkdirSync(outdir, { recursive: true });
  const manifest = npm(['pkg', 'get', 'name', 'version']) as { name: string; version: string };
  const cyclonedx = normalizedCyclonedx(sbom('cyclonedx') as unknown as Cyclonedx, manifest.name);
  writeFileSync(join(outdir, 'sbom.cdx.json'), text(cyclonedx));
  writeFileSync(join(outdir, 'sbom.spdx.json'), text(normalizedSpdx(sbom('spdx') as unknown as Spdx)));
}

/**
 * From the lockfile, so that it does not matter what else is installed. npm's own `--omit dev` leaves out packages that
 * a development dependency asks for as well: what is for development alone is left out by the lockfile's marks.
 */
function sbom(format: 'cyclonedx' | 'spdx'): object {
  return npm(['sbom', '--sbom-format', format, '--package-lock-only']);
}

interface Lockfile {
  readonly packages: Readonly<Record<string, { version: string; dev?: boolean; devOptional?: boolean }>>;
}

/** `name@version` of each package that is for development alone. */
function developmentOnly(): ReadonlySet<string> {
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as Lockfile;
  const named = Object.entries(packages).map(([place, { version, dev, devOptional }]) => ({
    name: `${place.split('node_modules/').at(-1)}@${version}`,
    forDevelopment: dev === true || devOptional === true,
  }));
  const shipped = new Set(named.filter(({ forDevelopment }) => !forDevelopment).map(({ name }) => name));
  return new Set(
    named.filter(({ name, forDevelopment }) => forDevelopment && !shipped.has(name)).map(({ name }) => name),
  );
}

function npm(args: readonly string[]): object {
  return JSON.parse(execFileSync('npm', args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 26 })) as object;
}

interface Cyclonedx {
  components: { 'bom-ref': string; name: string; version: string }[];
  dependencies: { ref: string; dependsOn: string[] }[];
  serialNumber: string;
  metadata: { timestamp?: string; tools: { version?: string }[]; component: { name: string } };
}

/** npm puts the time, a random number, its own version and the name of the folder into it. */
function normalizedCyclonedx(document: Cyclonedx, name: string): Cyclonedx {
  const { timestamp: _, tools, component, ...metadata } = document.metadata;
  const omitted = developmentOnly();
  const components = document.components.filter((one) => !omitted.has(`${one.name}@${one.version}`));
  const kept = new Set(components.map((one) => one['bom-ref']));
  const isKept = (ref: string) => kept.has(ref) || ref.startsWith(`${name}@`);
  const plain = {
    ...document,
    components,
    dependencies: document.dependencies
      .filter(({ ref }) => isKept(ref))
      .map(({ ref, dependsOn }) => ({ ref, dependsOn: dependsOn.filter(isKept) })),
    serialNumber: '',
    metadata: {
      ...metadata,
      tools: tools.map(({ version: __, ...tool }) => tool),
      component: { ...component, name },
    },
  };
  return { ...plain, serialNumber: `urn:uuid:${uuidOf(text(plain))}` };
}

interface Spdx {
  packages: { SPDXID: string; name: string; versionInfo: string }[];
  relationships: { spdxElementId: string; relatedSpdxElement: string }[];
  name: string;
  documentNamespace: string;
  creationInfo: { created: string; creators: string[] };
}

/** SPDX demands a time: the epoch, as in the image itself. */
function normalizedSpdx(document: Spdx): Spdx {
  const namespace = document.documentNamespace.replace(/-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, '');
  const omitted = developmentOnly();
  const packages = document.packages.filter((one) => !omitted.has(`${one.name}@${one.versionInfo}`));
  const kept = new Set(['SPDXRef-DOCUMENT', ...packages.map(({ SPDXID }) => SPDXID)]);
  const plain = {
    ...document,
    packages,
    relationships: document.relationships.filter(
      ({ spdxElementId, relatedSpdxElement }) => kept.has(spdxElementId) && kept.has(relatedSpdxElement),
    ),
    documentNamespace: namespace,
    creationInfo: { created: '1970-01-01T00:00:00Z', creators: ['Tool: npm/cli'] },
  };
  return { ...plain, documentNamespace: `${namespace}-${uuidOf(text(plain))}` };
}

/** Made of the content, in the form of a version 8 UUID (RFC 9562 §5.8). */
function uuidOf(content: string): string {
  const hex = createHash('sha256').update(content).digest('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

function text(document: object): string {
  return `${JSON.stringify(document, null, 2)}\n`;
}
