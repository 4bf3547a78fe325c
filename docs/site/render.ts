// Renders the pages of docs/ to a folder of static HTML with a table of contents and a search that works offline.

import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { escapeHtml, type Page, renderPage } from './markdown.ts';
import { groups } from './pages.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const here = fileURLToPath(new URL('.', import.meta.url));
const files = groups.flatMap((group) => group.files);

/** Nothing from elsewhere, nothing inline. */
const POLICY =
  "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'";

if (import.meta.main) {
  const outdir = process.argv[2] ?? join(root, 'dist-docs');
  renderSite(outdir);
  process.stdout.write(`${join(outdir, 'index.html')}\n`);
}

/** Replaces the folder. Throws for a page that is missing, and for a link that leads nowhere. */
export function renderSite(outdir: string): void {
  rmSync(outdir, { recursive: true, force: true });
  mkdirSync(outdir, { recursive: true });
  const attached = new Set<string>();
  const pages = files.map((file) =>
    renderPage(file, readFileSync(join(root, file), 'utf8'), (path) => linkTo(path, attached)),
  );
  for (const [i, page] of pages.entries())
    writeFileSync(join(outdir, outputOf(page.file)), documentOf(page, pages, i));
  for (const path of attached) attach(path, outdir);
  writeFileSync(
    join(outdir, 'search-index.js'),
    `globalThis.sections = ${JSON.stringify(indexOf(pages))};\n`,
  );
  for (const asset of ['style.css', 'search.js']) cpSync(join(here, asset), join(outdir, asset));
  const minisearch = dirname(createRequire(import.meta.url).resolve('minisearch'));
  cpSync(join(minisearch, '../umd/index.js'), join(outdir, 'minisearch.js'));
}

function outputOf(file: string): string {
  return file === 'README.md' ? 'index.html' : `${basename(file, '.md').toLowerCase()}.html`;
}

/** All pages lie in one folder; what is no page is attached beside them, under its own path. A folder of sources is not. */
function linkTo(path: string, attached: Set<string>): string | undefined {
  if (files.includes(path)) return outputOf(path);
  const absolute = join(root, path);
  if (!existsSync(absolute)) throw new Error(`a page links to ${path}, which is not there`);
  const file = statSync(absolute).isDirectory() ? join(path, 'compose.yaml') : path;
  if (!existsSync(join(root, file))) return undefined;
  attached.add(file);
  return file;
}

function attach(path: string, outdir: string): void {
  const place = join(outdir, path);
  mkdirSync(dirname(place), { recursive: true });
  cpSync(join(root, path), place);
}

interface Indexed {
  readonly id: number;
  readonly href: string;
  readonly page: string;
  readonly heading: string;
  readonly text: string;
}

function indexOf(pages: readonly Page[]): Indexed[] {
  return pages
    .flatMap((page) =>
      page.sections
        .filter(({ text, heading }) => text !== '' || heading !== '')
        .map(({ id, heading, text }) => ({
          href: `${outputOf(page.file)}${id === '' ? '' : `#${id}`}`,
          page: page.title,
          heading,
          text,
        })),
    )
    .map((section, id) => ({ id, ...section }));
}

function documentOf(page: Page, pages: readonly Page[], place: number): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escapeHtml(page.title)}${page.file === 'README.md' ? '' : ' · dstack-ingress'}</title>
<link rel="stylesheet" href="style.css">
</head>
<body>
<a class="skip" href="#content">Skip to the text</a>
<header>
<a class="brand" href="index.html">dstack-ingress</a>
<div class="search" role="search">
<input id="query" type="search" placeholder="Search (press /)" aria-label="Search the pages" aria-controls="results" autocomplete="off">
<ol id="results" hidden></ol>
</div>
</header>
<div class="columns">
<nav aria-label="Pages">${navigation(page, pages)}</nav>
<main id="content">
${page.html}
${neighbours(pages, place)}
</main>
<aside aria-label="On this page">${contents(page)}</aside>
</div>
<script src="minisearch.js"></script>
<script src="search-index.js"></script>
<script src="search.js"></script>
</body>
</html>
`;
}

function navigation(current: Page, pages: readonly Page[]): string {
  return groups
    .map(({ title, files }) => {
      const items = files.map((file) => {
        const page = pages.find((one) => one.file === file)!;
        const mark = page === current ? ' aria-current="page"' : '';
        const name = file === 'README.md' ? 'Overview' : page.title;
        return `<li><a href="${outputOf(file)}"${mark}>${escapeHtml(name)}</a></li>`;
      });
      return `<h2>${title}</h2><ul>${items.join('')}</ul>`;
    })
    .join('');
}

function contents({ headings }: Page): string {
  const items = headings
    .filter(({ level }) => level === 2 || level === 3)
    .map(({ level, id, text }) => `<li class="level-${level}"><a href="#${id}">${escapeHtml(text)}</a></li>`);
  return items.length === 0 ? '' : `<h2>On this page</h2><ul>${items.join('')}</ul>`;
}

function neighbours(pages: readonly Page[], place: number): string {
  const link = (page: Page | undefined, rel: 'prev' | 'next') =>
    page === undefined
      ? '<span></span>'
      : `<a rel="${rel}" href="${relative('.', outputOf(page.file))}">${escapeHtml(page.title)}</a>`;
  return `<div class="neighbours">${link(pages[place - 1], 'prev')}${link(pages[place + 1], 'next')}</div>`;
}
