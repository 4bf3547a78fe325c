// A plot of lines over a logarithmic axis, as SVG text.

export interface Series {
  readonly title: string;
  readonly points: readonly { readonly x: number; readonly y: number }[];
}

export interface PlotText {
  readonly title: string;
  readonly x: string;
  readonly y: string;
}

const WIDTH = 760;
const HEIGHT = 420;
const FRAME = { left: 64, right: 190, top: 48, bottom: 56 };
const INNER = { width: WIDTH - FRAME.left - FRAME.right, height: HEIGHT - FRAME.top - FRAME.bottom };
/** Colours that colour-blind people can tell apart (Okabe and Ito). */
const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00', '#000000'];

/** The y axis begins at 0: a line that looks flat is flat. */
export function renderPlot(series: readonly Series[], text: PlotText): string {
  const all = series.flatMap(({ points }) => points);
  const steps = niceSteps(Math.max(...all.map((point) => point.y)));
  const xs = [...new Set(all.map((point) => point.x))].sort((a, b) => a - b);
  const top = steps.at(-1)!;
  const x = (value: number) => FRAME.left + position(value, xs[0]!, xs.at(-1)!) * INNER.width;
  const y = (value: number) => FRAME.top + (1 - value / top) * INNER.height;
  const parts = [
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#ffffff"/>`,
    label(FRAME.left, 26, text.title, 'start', 15),
    ...steps.map((step) => horizontal(y(step), step.toLocaleString('en'))),
    ...xs.map((value) => label(x(value), HEIGHT - FRAME.bottom + 20, value.toLocaleString('en'), 'middle')),
    label(FRAME.left + INNER.width / 2, HEIGHT - 14, text.x, 'middle'),
    label(FRAME.left, FRAME.top - 8, text.y, 'start', 11),
    ...series.map((each, index) => line(each, COLOURS[index % COLOURS.length]!, x, y)),
    ...legend(series, y),
  ];
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" ` +
    `role="img" font-family="sans-serif" font-size="12">\n<title>${escapeXml(text.title)}</title>\n${parts.join('\n')}\n</svg>\n`
  );
}

/** From 0 to at least `most` in at most six equal, round steps. */
export function niceSteps(most: number): number[] {
  const magnitude = 10 ** Math.floor(Math.log10(most / 5));
  const step = [1, 2, 5, 10].map((factor) => factor * magnitude).find((size) => size * 5 >= most)!;
  const count = Math.ceil(most / step - 1e-9);
  return Array.from({ length: count + 1 }, (_, index) => index * step);
}

function position(value: number, first: number, last: number): number {
  return first === last ? 0.5 : Math.log(value / first) / Math.log(last / first);
}

function horizontal(y: number, text: string): string {
  const right = FRAME.left + INNER.width;
  return (
    `<line x1="${FRAME.left}" x2="${right}" y1="${y.toFixed(1)}" y2="${y.toFixed(1)}" stroke="#dddddd"/>` +
    label(FRAME.left - 8, y + 4, text, 'end')
  );
}

function line(
  series: Series,
  colour: string,
  x: (value: number) => number,
  y: (value: number) => number,
): string {
  const at = series.points.map((point) => [x(point.x).toFixed(1), y(point.y).toFixed(1)] as const);
  const dots = at.map(([cx, cy]) => `<circle cx="${cx}" cy="${cy}" r="3" fill="${colour}"/>`);
  const path = at.map((pair) => pair.join(',')).join(' ');
  return `<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="2"/>${dots.join('')}`;
}

/** Beside the end of each line, pushed apart where lines end close to each other. */
function legend(series: readonly Series[], y: (value: number) => number): string[] {
  const ends = series
    .map(({ title, points }, index) => ({ title, index, at: y(points.at(-1)?.y ?? 0) }))
    .sort((a, b) => a.at - b.at);
  let last = Number.NEGATIVE_INFINITY;
  return ends.map(({ title, index, at }) => {
    last = Math.max(at, last + 16);
    const colour = COLOURS[index % COLOURS.length]!;
    return label(FRAME.left + INNER.width + 10, last + 4, title, 'start', 12, colour);
  });
}

function label(
  x: number,
  y: number,
  text: string,
  anchor: 'start' | 'middle' | 'end',
  size = 12,
  colour = '#333333',
): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}" font-size="${size}" fill="${colour}">${escapeXml(text)}</text>`;
}

function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
