// Looks at every state that can be reached, each once, until one is found that must not be.

import { type Behaviour, createAutomaton } from './replica.ts';
import { beginning, judge, nameOf, type Scene, type State, type Step, steps, Violation } from './world.ts';

export interface Found {
  readonly states: number;
  readonly steps: number;
  /** States in which nothing more can happen. */
  readonly ends: number;
  readonly nodes: number;
  readonly reruns: number;
  /** Most certificates that were ordered in any state. */
  readonly mostOrders: number;
  readonly violation: { readonly why: string; readonly path: readonly string[] } | undefined;
}

export async function search(
  scene: Scene,
  behaviour: Omit<Behaviour, 'validates'>,
  { most = Number.POSITIVE_INFINITY, tell }: { most?: number; tell?: (found: Found) => void } = {},
): Promise<Found> {
  const automaton = createAutomaton({ ...behaviour, validates: scene.validates });
  const seen = new Set<string>();
  const path: { says: string; state: State; rest: Step[] }[] = [];
  let [count, ends, mostOrders] = [0, 0, 0];
  const found = (why?: string) => ({
    states: seen.size,
    steps: count,
    ends,
    nodes: automaton.nodes,
    reruns: automaton.reruns,
    mostOrders,
    violation: why === undefined ? undefined : { why, path: path.slice(1).map(({ says }) => says) },
  });
  function enter(says: string, state: State): void {
    seen.add(nameOf(state));
    const rest = steps(scene, automaton, state);
    if (rest.length === 0) ends += 1;
    mostOrders = Math.max(mostOrders, state.orders.length);
    path.push({ says, state, rest: rest.reverse() });
  }
  try {
    enter('', await beginning(scene, automaton));
    while (path.length > 0) {
      const top = path.at(-1)!;
      const step = top.rest.pop();
      if (step === undefined) {
        path.pop();
        continue;
      }
      count += 1;
      const next = await step.to();
      if (seen.has(nameOf(next))) continue;
      if (seen.size >= most) throw new Error(`more than ${most} states`);
      enter(step.says, next);
      if (seen.size % 10_000 === 0) tell?.(found());
      judge(next, top.state, scene);
    }
    return found();
  } catch (error) {
    if (error instanceof Violation) return found(error.message);
    throw error;
  } finally {
    automaton.close();
  }
}
