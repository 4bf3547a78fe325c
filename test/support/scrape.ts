// A scrape as numbers: each sample by its name and labels.

import { request } from 'node:http';
import { text } from 'node:stream/consumers';

export interface Asked {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

/** One request to an admin server, over a socket or an address. */
export function askAdmin(
  where: { socketPath: string } | { host: string; port: number },
  path: string,
  options: { method?: string; headers?: Readonly<Record<string, string>> } = {},
): Promise<Asked> {
  return new Promise((resolve, reject) => {
    const asked = request({ ...where, path, agent: false, ...options }, (response) => {
      text(response).then(
        (body) => resolve({ status: response.statusCode!, headers: response.headers, body }),
        reject,
      );
    });
    asked.on('error', reject);
    asked.end();
  });
}

export interface Scrape {
  /** The sum over all samples of that name whose labels have these values; 0: there is none. */
  sum(name: string, labels?: Readonly<Record<string, string>>): number;
  /** Every name, without the endings of histograms. */
  readonly names: ReadonlySet<string>;
}

export function parseScrape(body: string): Scrape {
  const samples = body.split('\n').flatMap((line) => {
    const found = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (found === null) return [];
    const [, name, pairs = '', value] = found;
    const labels = new Map(
      [...pairs.matchAll(/([a-z]+)="((?:[^"\\]|\\.)*)"/g)].map(([, label, text]) => [label!, text!]),
    );
    return [{ name: name!, labels, value: Number(value) }];
  });
  return {
    sum: (name, labels = {}) =>
      samples
        .filter((one) => one.name === name)
        .filter((one) => Object.entries(labels).every(([label, value]) => one.labels.get(label) === value))
        .reduce((sum, { value }) => sum + value, 0),
    names: new Set(samples.map(({ name }) => name.replace(/_(bucket|sum|count)$/, ''))),
  };
}
