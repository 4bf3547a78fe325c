// The variables that rules may use: those that every request has, and those that sets, maps and named groups define.

import type { Run, Value } from './compiled.ts';
import { compileMap, remembered } from './map.ts';
import type { Origin, VariableMap } from './model.ts';
import type { Resolve } from './template.ts';
import { builtIn } from './variables.ts';

/** What a reader should have refused. */
export class RuleSetError extends Error {
  override readonly name = 'RuleSetError';
  readonly fault: string;
  readonly origin: Origin | undefined;
  constructor(fault: string, origin: Origin | undefined) {
    super(origin === undefined ? fault : `${origin}: ${fault}`);
    this.fault = fault;
    this.origin = origin;
  }
}

export interface Scope {
  readonly resolve: Resolve;
  readonly slotOf: (name: string) => number;
  /** So far. */
  slotCount(): number;
}

export function createScope(maps: readonly VariableMap[]): Scope {
  const slots = new Map<string, number>();
  const slotOf = (name: string): number => {
    const known = slots.get(name);
    if (known !== undefined) return known;
    slots.set(name, slots.size);
    return slots.size - 1;
  };
  const mapped = new Map(maps.map((map) => [map.variable, map]));
  const values = new Map<string, Value>();
  const underWay = new Set<string>();
  const compiled = (map: VariableMap): Value => {
    if (underWay.has(map.variable))
      throw new RuleSetError(`the map of $${map.variable} depends on itself`, map.origin);
    underWay.add(map.variable);
    const value = remembered(compileMap(map, resolve, slotOf), slotOf(map.variable));
    underWay.delete(map.variable);
    return value;
  };
  const resolve: Resolve = (name) => {
    const known = values.get(name);
    if (known !== undefined) return known;
    const map = mapped.get(name);
    const value = map !== undefined ? compiled(map) : (builtIn(name) ?? ofSlot(slotOf(name)));
    values.set(name, value);
    return value;
  };
  return { resolve, slotOf, slotCount: () => slots.size };
}

function ofSlot(slot: number): Value {
  return (run: Run) => run.slots[slot] ?? '';
}
