// The key-provider event: where the keys of an app come from, as the machine has measured it.

import * as z from 'zod';

export interface KeyProviderEvent {
  readonly name: string;
  /** Hex; empty where there is no service. */
  readonly id: string;
}

const schema = z.object({ name: z.string(), id: z.string().regex(/^([0-9a-f]{2})*$/i) });

/** Undefined: the event does not say what it should. */
export function readKeyProvider(text: string): KeyProviderEvent | undefined {
  try {
    const { name, id } = schema.parse(JSON.parse(text));
    return { name, id: id.toLowerCase() };
  } catch {
    return undefined;
  }
}
