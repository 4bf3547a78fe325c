// What carrying out rules needs beside the proxy itself: the rules, who counts for their limits, who looks at passwords.

import { isDeepStrictEqual } from 'node:util';
import { compile, compileInSteps } from '../rules/compile.ts';
import type { CompiledRules } from '../rules/compiled.ts';
import { createLocalLimiter, type Limiter } from '../rules/limits.ts';
import type { ClientAuth, RuleSet } from '../rules/model.ts';
import { type Compare, createPasswords, type Passwords } from './passwords.ts';

export interface RulesInUse {
  /** The newest. A request keeps those that it began with. */
  rules(): CompiledRules | undefined;
  readonly limiter: Limiter;
  readonly passwords: Passwords;
}

export interface Rules {
  readonly inUse: RulesInUse;
  /** Compiles before anything changes: it throws, and those of before go on, if that fails. */
  set(rules: RuleSet | CompiledRules | undefined): void;
  /** The label of the site that a host belongs to by a name. */
  siteFor(host: string): string | undefined;
  /** The label of the site that takes what no name fits. */
  defaultSite(): string | undefined;
  /** What the site that takes this host asks of its clients' certificates. */
  clientAuthFor(host: string): ClientAuth | undefined;
  /** Whether any site asks for them. */
  asksClients(): boolean;
}

/** Those who are being served feel no more of it than this at a time. */
const LONGEST_PAUSE_MS = 5;

/**
 * What is compiled stays, and V8 copies what stays, all at once when its young generation is full: of 16 MiB in a pause of
 * 25 ms. Little by little it is as much, in pauses that nobody feels. The collection needs a process with gc().
 */
function collectYoung(): void {
  globalThis.gc?.({ type: 'minor' });
}

/** As compile(), with room for others in between: a thousand sites take a while. Rejects as it throws. */
export async function compileInPauses(
  rules: RuleSet,
  now: () => number = () => performance.now(),
): Promise<CompiledRules> {
  const steps = compileInSteps(rules);
  for (;;) {
    // Before the first step as well: the rules have just been read, which took its time.
    await new Promise((resolve) => setImmediate(resolve));
    for (const began = now(); now() - began < LONGEST_PAUSE_MS; ) {
      const step = steps.next();
      if (step.done === true) return step.value;
    }
    collectYoung();
  }
}

/** `limiter` and `compare`: who counts and compares passwords for all processes; default: this one for itself. */
export function createRules(
  limiter?: Limiter,
  compare?: Compare,
  refusing?: (refused: number) => void,
): Rules {
  let compiled: CompiledRules | undefined;
  let local = limiter ?? createLocalLimiter([]);
  const passwords = createPasswords(undefined, compare, refusing);
  return {
    inUse: {
      rules: () => compiled,
      get limiter() {
        return local;
      },
      passwords,
    },
    set(rules) {
      const next = rules === undefined || 'find' in rules ? rules : compile(rules);
      // What has been counted goes on counting, unless it is counted otherwise now.
      const same = isDeepStrictEqual(compiled?.requestZones ?? [], next?.requestZones ?? []);
      if (limiter === undefined && !same) local = createLocalLimiter(next?.requestZones ?? []);
      compiled = next;
    },
    siteFor: (host) => compiled?.findNamed(host)?.label,
    defaultSite: () => compiled?.byDefault?.label,
    clientAuthFor: (host) => compiled?.find(host)?.clientAuth,
    asksClients: () => compiled?.sites.some(({ clientAuth }) => clientAuth !== undefined) === true,
  };
}
