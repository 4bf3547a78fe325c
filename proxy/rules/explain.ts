// What a request would meet, step by step, in sentences for people: site, location, rules, upstream.

import { textOf } from './bytes.ts';
import type { CompiledRules, Facts, Field, Pool } from './compiled.ts';
import { authorityOf } from './routes.ts';
import { beginRun } from './run.ts';
import type { Forward, Resumable, Step } from './step.ts';

export interface Sentence {
  readonly text: string;
  /** `file:line:column` */
  readonly origin: string | undefined;
  /** Of a request within the request. */
  readonly depth: number;
}

/** What is on the disk, for rules that ask. */
export type Disk = (kind: string, path: string) => boolean;

/** Passwords are taken to be right, other services to say yes and limits to have room: the way in is what is asked for. */
export function explain(rules: CompiledRules, facts: Facts, disk: Disk): readonly Sentence[] {
  const said: Sentence[] = [];
  let depth = 0;
  const say = (text: string, origin?: string) => said.push({ text: textOf(text), origin, depth });
  const run = beginRun(rules, facts, {
    place: (place, taken) => {
      if (place.kind === 'pattern') say(`${place.written} ${taken ? 'fits' : 'does not fit'}`, place.origin);
    },
    operation: (operation, effect) => {
      if (operation.op !== 'enter')
        say(`${operation.written}${effect ? '' : ': does not apply'}`, operation.origin);
    },
    event: say,
  });
  if (run === undefined) {
    say(`no site takes ${facts.host}: 404`);
    return said;
  }
  say(`site ${run.site.label} takes ${run.host}`, run.site.origin);
  const walk = (one: Resumable, first: Step): void => {
    for (let step: Step | undefined = first, steps = 0; step !== undefined && steps < MOST_STEPS; steps++)
      step = follow(one, step);
  };
  const follow = (one: Resumable, step: Step): Step | undefined => {
    switch (step.do) {
      case 'look': {
        const found = disk(step.kind, textOf(step.path));
        say(
          `${step.path} is ${found ? '' : 'not '}there as ${step.kind === 'exists' ? 'anything' : step.kind}`,
        );
        return one.looked(found);
      }
      case 'charge':
        say(limitsText(rules, step));
        return one.charged({ waitMs: 0 });
      case 'wait':
        return one.waited();
      case 'check':
        say(`the password is checked${step.hash === undefined ? '; the user is unknown' : ''}`);
        return one.checked(step.hash !== undefined);
      case 'ask':
        say('asks whether it may go on:');
        depth++;
        walk(step.run, step.run.start());
        depth--;
        return one.answered(YES);
      default:
        for (const text of endTexts(step)) say(text);
        return undefined;
    }
  };
  walk(run, run.start());
  return said;
}

const MOST_STEPS = 1_000;
const YES = { status: 200, fields: { all: () => [] } };

function limitsText(rules: CompiledRules, { charges, seats }: Step & { do: 'charge' }): string {
  const requests = charges.map(
    ({ zone, key, burst }) => `zone ${rules.requestZones[zone]!.name} counts ${key}, burst ${burst}`,
  );
  const running = seats.map(({ zone, key, max }) => `zone ${zone} counts ${key}, at most ${max} at once`);
  return [...requests, ...running].join('; ');
}

function endTexts(step: Step): string[] {
  switch (step.do) {
    case 'forward':
      return forwardTexts(step);
    case 'own':
      return [`answers ${step.status} itself`, ...fieldTexts(step.fields)];
    case 'file':
      return [
        `answers ${step.status} with ${step.listing ? 'the list of' : ''} ${step.path}`,
        ...fieldTexts(step.fieldsWith([])),
      ];
    case 'close':
      return ['closes the connection without a reply'];
    default:
      return [];
  }
}

function forwardTexts({ pool, method, target, host, removed, own, maxBodyBytes }: Forward): string[] {
  const texts = [`forwards ${method} ${target} to ${poolText(pool)}`];
  if (host !== undefined) texts.push(`  Host: ${host}`);
  texts.push(...fieldTexts(own));
  if (removed.size > 0) texts.push(`  of the client's fields these stay behind: ${[...removed].join(', ')}`);
  if (maxBodyBytes > 0) texts.push(`  with a body of at most ${maxBodyBytes} bytes`);
  return texts;
}

function poolText({ name, protocol, addresses }: Pool): string {
  const list = addresses.map(authorityOf).join(', ');
  return list === name ? `${protocol}://${name}` : `${protocol}://${name} (${list})`;
}

function fieldTexts(fields: readonly Field[]): string[] {
  return fields.map(({ name, value }) => `  ${name}: ${value}`);
}
