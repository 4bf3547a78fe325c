// What a terminal shows as an SVG: text with the few colours that `top` uses.

const CELL = { width: 8.4, height: 18 };
const MARGIN = 14;
const COLOURS: Readonly<Record<string, string>> = { 31: '#f2857c', 32: '#4cc9a4', 33: '#e2ac4d' };

/** `text`: lines with the sequences of colours, and those that clear the rest of a line. */
export function terminalPicture(text: string, columns: number): string {
  const lines = text.split(/\r*\n/).map((line) => line.replaceAll('\x1b[K', '').replaceAll('\r', ''));
  const width = Math.ceil(columns * CELL.width + 2 * MARGIN);
  const height = lines.length * CELL.height + 2 * MARGIN;
  const rows = lines.map((line, i) => lineOf(line, MARGIN + (i + 0.75) * CELL.height));
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="14">
<rect width="100%" height="100%" rx="10" fill="#0e1412"/>
${rows.filter((row) => row !== '').join('\n')}
</svg>
`;
}

function lineOf(line: string, y: number): string {
  let at = 0;
  const parts = line.split('\x1b[').flatMap((part, i) => {
    const [, code = '0', text = ''] = i === 0 ? [undefined, '0', part] : (/^(\d+)m(.*)$/.exec(part) ?? []);
    const x = MARGIN + at * CELL.width;
    at += [...text].length;
    if (text.trim() === '') return [];
    const fill = COLOURS[code] ?? (code === '2' ? '#74827c' : '#e6ece9');
    // Each piece as wide as its cells, whatever font there is.
    const wide = ([...text].length * CELL.width).toFixed(1);
    return [
      `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" fill="${fill}" textLength="${wide}" lengthAdjust="spacingAndGlyphs" xml:space="preserve"${code === '1' ? ' font-weight="600"' : ''}>${escaped(text)}</text>`,
    ];
  });
  return parts.join('');
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
