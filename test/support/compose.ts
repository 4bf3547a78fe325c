// Compose files as tests need them: what each service would find in its container (environment, volumes, configs).

import { readFileSync } from 'node:fs';
import { parse } from 'yaml';

export interface Service {
  readonly name: string;
  readonly image: string;
  readonly environment: Readonly<Record<string, string>>;
  /** Where something of the host or of a volume is mounted, in the container. */
  readonly mounts: readonly string[];
  /** What the file gives it to read: path in the container -> content. */
  readonly configs: Readonly<Record<string, string>>;
}

export interface Compose {
  readonly services: readonly Service[];
  /** The file as it stands. */
  readonly text: string;
}

interface RawService {
  image?: string;
  environment?: Record<string, unknown> | string[];
  volumes?: string[];
  configs?: { source: string; target: string }[];
}

interface RawCompose {
  services: Record<string, RawService>;
  configs?: Record<string, { content: string }>;
}

/** `variables` are those of the `.env` file. Throws for one that the file demands with `:?` and that is not there. */
export function readCompose(path: string, variables: Readonly<Record<string, string>>): Compose {
  const text = readFileSync(path, 'utf8');
  const raw = interpolated(parse(text), variables) as RawCompose;
  const services = Object.entries(raw.services).map(([name, service]) => ({
    name,
    image: service.image ?? '',
    environment: environmentOf(service),
    mounts: (service.volumes ?? []).map((volume) => volume.split(':')[1]!),
    configs: Object.fromEntries(
      (service.configs ?? []).map(({ source, target }) => [target, raw.configs![source]!.content]),
    ),
  }));
  return { services, text };
}

function environmentOf({ environment = {} }: RawService): Record<string, string> {
  if (!Array.isArray(environment))
    return Object.fromEntries(
      Object.entries(environment).flatMap(([name, value]) => (value === null ? [] : [[name, String(value)]])),
    );
  return Object.fromEntries(
    environment.map((entry) => {
      const equals = entry.indexOf('=');
      return [entry.slice(0, equals), entry.slice(equals + 1)];
    }),
  );
}

/** In values, not in keys, as Compose does it. */
function interpolated(value: unknown, variables: Readonly<Record<string, string>>): unknown {
  if (typeof value === 'string') return interpolate(value, variables);
  if (Array.isArray(value)) return value.map((one) => interpolated(one, variables));
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, interpolated(one, variables)]));
}

function interpolate(text: string, variables: Readonly<Record<string, string>>): string {
  return text.replace(/\$\$|\$\{(\w+)(?:(:?[-?])([^}]*))?\}|\$(\w+)/g, (whole, braced, sign, rest, bare) => {
    if (whole === '$$') return '$';
    const name: string = braced ?? bare;
    const value = variables[name];
    if (value !== undefined && (value !== '' || !sign?.startsWith(':'))) return value;
    if (sign?.endsWith('?')) throw new Error(`${name}: ${rest}`);
    return sign?.endsWith('-') ? rest : '';
  });
}
