// One page of Markdown as HTML, with its headings and its sections as text for the search.

import { dirname, join, normalize } from 'node:path';
import { Marked, type Tokens } from 'marked';

export interface Heading {
  readonly level: number;
  readonly id: string;
  /** Plain text. */
  readonly text: string;
}

export interface Section {
  /** Empty before the first heading. */
  readonly id: string;
  readonly heading: string;
  readonly text: string;
}

export interface Page {
  /** From the root of the repository, as all paths here. */
  readonly file: string;
  readonly title: string;
  readonly html: string;
  readonly headings: readonly Heading[];
  readonly sections: readonly Section[];
}

/** Where a file of the repository is found in the site; undefined if it is not in it. */
type LinkTo = (path: string) => string | undefined;

export function renderPage(file: string, markdown: string, linkTo: LinkTo): Page {
  const headings: Heading[] = [];
  const sections: { id: string; heading: string; text: string }[] = [{ id: '', heading: '', text: '' }];
  const ids = new Map<string, number>();
  const marked = new Marked({ gfm: true });
  marked.use({
    renderer: {
      heading({ tokens, depth }) {
        const text = plain(this.parser.parseInline(tokens));
        const id = unique(slug(text), ids);
        headings.push({ level: depth, id, text });
        return `<h${depth} id="${id}"><a class="anchor" href="#${id}">${this.parser.parseInline(tokens)}</a></h${depth}>\n`;
      },
      link({ href, tokens }) {
        const found = target(file, href, linkTo);
        const text = this.parser.parseInline(tokens);
        return found === undefined ? text : `<a href="${escapeHtml(found)}">${text}</a>`;
      },
      image({ href, text }) {
        return `<img src="${escapeHtml(target(file, href, linkTo) ?? '')}" alt="${escapeHtml(text)}">`;
      },
      table(token) {
        return `<div class="wide">${tableOf(token, (cell) => this.parser.parseInline(cell.tokens))}</div>\n`;
      },
    },
  });
  const tokens = marked.lexer(markdown.replace(/<!--.*?-->/gs, ''));
  const html = marked.parser(tokens);
  for (const token of tokens) {
    if (token.type === 'heading') {
      const { id, text } = headings[sections.length - 1]!;
      sections.push({ id, heading: text, text: '' });
    } else sections.at(-1)!.text += ` ${plain(marked.parser([token]))}`;
  }
  const title = headings.find(({ level }) => level === 1)?.text ?? file;
  return { file, title, html, headings, sections };
}

function tableOf({ header, rows, align }: Tokens.Table, inline: (cell: Tokens.TableCell) => string): string {
  const cells = (row: Tokens.TableCell[], tag: 'td' | 'th') =>
    row
      .map((cell, i) => `<${tag}${align[i] === 'right' ? ' class="number"' : ''}>${inline(cell)}</${tag}>`)
      .join('');
  const body = rows.map((row) => `<tr>${cells(row, 'td')}</tr>`).join('\n');
  return `<table><thead><tr>${cells(header, 'th')}</tr></thead><tbody>${body}</tbody></table>`;
}

function target(from: string, href: string, linkTo: LinkTo): string | undefined {
  if (/^(?:[a-z]+:|#)/.test(href)) return href;
  const [path = '', fragment] = href.split('#');
  const found = linkTo(normalize(join(dirname(from), path)));
  return found === undefined || fragment === undefined ? found : `${found}#${fragment}`;
}

/** As GitHub makes them, so that a link works in both places. */
function slug(text: string): string {
  return text
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, '')
    .replaceAll(' ', '-');
}

function unique(id: string, taken: Map<string, number>): string {
  const count = taken.get(id) ?? 0;
  taken.set(id, count + 1);
  return count === 0 ? id : `${id}-${count}`;
}

function plain(html: string): string {
  return html
    .replace(/<[^>]+>/g, ' ')
    .replaceAll('&lt;', '<')
    .replaceAll('&gt;', '>')
    .replaceAll('&quot;', '"')
    .replaceAll('&#39;', "'")
    .replaceAll('&amp;', '&')
    .replace(/\s+/g, ' ')
    .trim();
}

export function escapeHtml(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}
