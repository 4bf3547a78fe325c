// Documents in the place of errors: error pages, and the word that a site is under maintenance. HTML or JSON, as asked.

import type { Node } from 'yaml';
import type { ErrorPage, Maintenance, Policy } from '../../../proxy/rules/model.ts';
import { quote } from '../../config/values.ts';
import { readAllowed } from './access.ts';
import {
  type Fields,
  isOff,
  isOn,
  kindOf,
  readFields,
  readInteger,
  readPairs,
  readSeconds,
  readString,
} from './fields.ts';
import { keys } from './keys.ts';
import { type Reading, readNamed } from './reading.ts';

export function readErrorPages(node: Node, reading: Reading): Policy {
  if (isOff(node)) return { errorPages: [], interceptErrors: false };
  const { mistakes } = reading;
  const pages: ErrorPage[] = [];
  let interceptErrors: boolean | undefined;
  for (const { name, key, value } of readPairs(node, '"error_pages"', mistakes)) {
    if (name === 'upstream') {
      if (!isOn(value) && !isOff(value))
        mistakes.at(value, `"upstream" is ${kindOf(value)}`, 'wants true or false, without quotes');
      interceptErrors = isOn(value);
      continue;
    }
    const statuses = readStatuses(name, key, reading);
    const fields = readFields(value, keys.document, `the page of ${quote(name)}`, mistakes);
    if (fields === undefined) continue;
    const page = readDocument(fields, reading);
    if (page.html === undefined && page.json === undefined && !hasAny(fields))
      mistakes.at(
        value,
        `the page of ${quote(name)} has no content`,
        'wants html, html_file, json or json_file',
      );
    pages.push({ statuses, target: { kind: 'document', ...page }, origin: mistakes.originOf(key) });
  }
  return { errorPages: pages, ...(interceptErrors !== undefined ? { interceptErrors } : {}) };
}

function hasAny(fields: Fields): boolean {
  return keys.document.some((key) => fields.find(key) !== undefined);
}

const [LEAST, MOST] = [400, 599];

/** `404`, `502-504`, `4xx`, `5xx`. */
function readStatuses(text: string, node: Node, { mistakes }: Reading): number[] {
  const [, hundreds] = /^([45])xx$/.exec(text) ?? [];
  const [, from, to] = /^(\d{3})(?:-(\d{3}))?$/.exec(text) ?? [];
  const first = hundreds === undefined ? Number(from) : Number(hundreds) * 100;
  const last = hundreds === undefined ? Number(to ?? from) : first + 99;
  if (first >= LEAST && last <= MOST && first <= last)
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  mistakes.at(
    node,
    `${quote(text)} is no status of an error`,
    'wants 404, 502-504, 4xx or 5xx, or "upstream"',
  );
  return [];
}

function readDocument(fields: Fields, reading: Reading): { html?: string; json?: string } {
  const html = readForm(fields, 'html', reading);
  const json = readForm(fields, 'json', reading);
  return { ...(html !== undefined && { html }), ...(json !== undefined && { json }) };
}

function readForm(fields: Fields, form: 'html' | 'json', reading: Reading): string | undefined {
  const [inline, file] = [fields.find(form), fields.find(`${form}_file`)];
  if (inline !== undefined && file !== undefined) {
    reading.mistakes.at(file, `both "${form}" and "${form}_file" are given`, 'wants one of them');
    return undefined;
  }
  if (file !== undefined) return readNamed(file, `"${form}_file"`, reading);
  return (
    inline && readString(inline, `"${form}"`, form === 'html' ? '<h1>Sorry</h1>' : '{}', reading.mistakes)
  );
}

/** Undefined: off, or a mistake. */
export function readMaintenance(node: Node, reading: Reading): MaintenanceWord | undefined {
  const { mistakes } = reading;
  if (isOff(node)) return undefined;
  if (isOn(node)) return { allow: undefined, content: { kind: 'maintenance' } };
  const fields = readFields(node, keys.maintenance, '"maintenance"', mistakes);
  if (fields === undefined) return undefined;
  const status = readInteger(fields.find('status'), '"status"', [200, MOST], mistakes);
  const retryAfterSeconds = readSeconds(fields, 'retry_after', mistakes);
  const allow = fields.find('allow');
  return {
    allow: allow && readAllowed(allow, '"allow"', reading),
    content: {
      kind: 'maintenance',
      ...readDocument(fields, reading),
      ...(status !== undefined && { status }),
      ...(retryAfterSeconds !== undefined && { retryAfterSeconds }),
    },
  };
}

export interface MaintenanceWord {
  /** Who gets what would be there otherwise. */
  readonly allow: NonNullable<Maintenance['except']>['addresses'] | undefined;
  readonly content: Maintenance;
}
