// Each directive against the table: known, in its place, with as many arguments as it takes, and as often as it may be.

import type { Mistake } from '../../config/mistake.ts';
import { quote } from '../../config/values.ts';
import { nearest, nearestName } from '../../lib/spelling.ts';
import { type Directive, placeOf } from './blocks.ts';
import type { Notes } from './notes.ts';
import { type Context, type DirectiveRule, directiveNames, directiveRule } from './table.ts';

/** What is sound and has a meaning here. Everything else became a mistake or a note. */
export function checkDirectives(
  directives: readonly Directive[],
  mistakes: Mistake[],
  notes: Notes,
): readonly Directive[] {
  return new Checker(mistakes, notes).level(directives, 'http');
}

class Checker {
  readonly #mistakes: Mistake[];
  readonly #notes: Notes;
  /** Reasons by file: the tenth fastcgi_param says nothing new. */
  readonly #refused = new Set<string>();

  constructor(mistakes: Mistake[], notes: Notes) {
    this.#mistakes = mistakes;
    this.#notes = notes;
  }

  level(directives: readonly Directive[], context: Context): Directive[] {
    const seen = new Set<string>();
    return directives.flatMap((directive) => {
      const { name } = directive;
      const rule = directiveRule(name.text, context);
      if (rule === undefined) return this.#unknown(directive, context);
      if (!this.#isSound(directive, rule, context)) return [];
      if (!rule.many && seen.has(name.text))
        return this.#refuse(directive, 'is written twice here', 'wants one of them');
      seen.add(name.text);
      return this.#take(directive, rule, context);
    });
  }

  #take(directive: Directive, { handling }: DirectiveRule, context: Context): Directive[] {
    const { name, args, block } = directive;
    if (handling.do === 'accept') {
      const quiet = args.length > 0 && args.every(({ text }) => handling.quietIf?.test(text) === true);
      if (!quiet) this.#notes.accepted(handling.kind, name);
      return [];
    }
    if (block === undefined || !(name.text in inside || name.text === 'if')) return [directive];
    const within = name.text === 'if' ? (`if in ${context}` as Context) : inside[name.text]!;
    return [{ ...directive, block: this.level(block, within) }];
  }

  #isSound(directive: Directive, rule: DirectiveRule, context: Context): boolean {
    const { args, block } = directive;
    const { handling, contexts, isSwitch } = rule;
    if (handling.do === 'refuse') {
      const allowed =
        handling.unless !== undefined && args.length === 1 && handling.unless.test(args[0]!.text);
      if (!allowed) this.#refuseOnce(directive, handling.why, handling.cure);
      return false;
    }
    if (!contexts.includes(context)) return this.#misplaced(directive, contexts, context);
    if (rule.hasBlock !== (block !== undefined)) return this.#wrongBlock(directive, rule);
    if (!this.#hasRightCount(directive, rule)) return false;
    if (isSwitch && !/^(on|off)$/i.test(args[0]!.text)) {
      this.#refuse(directive, `wants on or off, not ${quote(args[0]!.text)}`, 'write one of the two');
      return false;
    }
    return true;
  }

  #unknown(directive: Directive, context: Context): Directive[] {
    const { name } = directive;
    const like = this.#mistakes.length < MOST_GUESSES ? meant(name.text) : undefined;
    const cure = like === undefined ? `take it away: it means nothing in ${context}` : `was ${like} meant?`;
    this.#mistakes.push({
      place: placeOf(name),
      subject: `${quote(name.text)} is not a directive that is known here`,
      cure,
    });
    return [];
  }

  #misplaced({ name }: Directive, contexts: readonly Context[], context: Context): false {
    this.#mistakes.push({
      place: placeOf(name),
      subject: `${name.text} may not stand in ${inWords(context)}`,
      cure: `wants it in ${contexts.map(inWords).join(', ')}`,
    });
    return false;
  }

  #wrongBlock(directive: Directive, { hasBlock }: DirectiveRule): false {
    const behind = forgottenSemicolon(directive);
    if (hasBlock) this.#refuse(directive, 'has no block', 'wants { … } behind it');
    else this.#refuse(directive, 'takes no block', behind ?? 'end it with ;');
    return false;
  }

  #hasRightCount(directive: Directive, { args: [least, most] }: DirectiveRule): boolean {
    const { length } = directive.args;
    if (length >= least && length <= most) return true;
    const wanted =
      least === most
        ? `${least}`
        : most === Number.POSITIVE_INFINITY
          ? `${least} or more`
          : `${least} to ${most}`;
    const noun = wanted === '1' ? 'argument' : 'arguments';
    this.#refuse(
      directive,
      `takes ${wanted} ${noun}, not ${length}`,
      forgottenSemicolon(directive) ??
        (length < least ? 'write what is missing' : 'quote what belongs together'),
    );
    return false;
  }

  #refuseOnce(directive: Directive, why: string, cure: string): void {
    const key = `${directive.name.file}\0${why}`;
    if (this.#refused.has(key)) return;
    this.#refused.add(key);
    this.#refuse(directive, `is refused: ${why}`, cure);
  }

  #refuse({ name }: Directive, subject: string, cure: string): [] {
    this.#mistakes.push({ place: placeOf(name), subject: `${name.text} ${subject}`, cure });
    return [];
  }
}

const inside: Readonly<Record<string, Context>> = {
  __proto__: null as never,
  server: 'server',
  location: 'location',
  limit_except: 'limit_except',
  upstream: 'upstream',
};

function inWords(context: Context): string {
  return context === 'http' ? 'the file itself, outside of blocks' : context.replace(/^if in/, 'an if in');
}

/** A guess looks at every name that is known, and nobody reads a hundred of them. */
const MOST_GUESSES = 100;

function meant(name: string): string | undefined {
  return nearestName(name, directiveNames()) ?? nearest(name.toLowerCase(), directiveNames());
}

/** The next directive is among its arguments, on a line of its own. */
function forgottenSemicolon({ name, args }: Directive): string | undefined {
  const swallowed = args.find((arg, i) => {
    const before = args[i - 1] ?? name;
    return arg.line > before.line && directiveRule(arg.text) !== undefined;
  });
  if (swallowed === undefined) return undefined;
  const before = args[args.indexOf(swallowed) - 1] ?? name;
  return `end line ${before.line} with ;`;
}
