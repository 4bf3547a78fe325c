// The rewrite phase: set, if, rewrite, return and break, as one flat program for each level.

import type { Matcher, Operation, Place, Replacement, Run, Value } from './compiled.ts';
import { compileMatcher, fits } from './match.ts';
import type { Condition, If, Instruction, Template } from './model.ts';
import type { Scope } from './scope.ts';
import { compileTemplate, type Resolve, templateText } from './template.ts';
import { escapeArgument } from './uri.ts';

/** `placeOf` makes the place that holds once an `if` was true; undefined: it changes nothing but variables and URI. */
export function compileProgram(
  instructions: readonly Instruction[],
  scope: Scope,
  placeOf: (branch: If) => Place | undefined,
): Operation[] {
  const program: Operation[] = [];
  for (const instruction of instructions) {
    if (instruction.do !== 'if') {
      program.push(compileStep(instruction, scope));
      continue;
    }
    const at = program.length;
    const guarded = compileProgram(instruction.body, scope, placeOf).map((operation) =>
      moved(operation, at + 1),
    );
    const place = placeOf(instruction);
    const about = { origin: instruction.origin, written: conditionText(instruction.condition) };
    const enter = place === undefined ? [] : [{ op: 'enter' as const, place, ...about }];
    const inside = [...enter, ...guarded.map((operation) => moved(operation, enter.length))];
    program.push(compileCondition(instruction.condition, scope, at + 1 + inside.length, about), ...inside);
  }
  return program;
}

function moved(operation: Operation, by: number): Operation {
  return 'otherwise' in operation ? { ...operation, otherwise: operation.otherwise + by } : operation;
}

function compileStep(step: Exclude<Instruction, If>, scope: Scope): Operation {
  const { origin } = step;
  switch (step.do) {
    case 'set':
      return {
        op: 'set',
        name: step.variable,
        slot: scope.slotOf(step.variable),
        value: compileTemplate(step.value, inProgram(scope.resolve)),
        origin,
        written: `set $${step.variable} ${templateText(step.value)}`,
      };
    case 'rewrite': {
      const redirects = isAbsolute(step.to) && step.flag !== 'permanent';
      const flag = redirects ? 'redirect' : step.flag;
      return {
        op: 'rewrite',
        matcher: compileMatcher(step.pattern, scope.slotOf),
        replacement: compileReplacement(step.to, flag === 'redirect' || flag === 'permanent', scope),
        flag,
        origin,
        written: `rewrite ${step.pattern.source} ${templateText(step.to)}${flag === 'next' ? '' : ` ${flag}`}`,
      };
    }
    case 'return':
      return {
        op: 'return',
        status: step.status,
        body: step.body && compileTemplate(step.body, scope.resolve),
        location: step.location && compileTemplate(step.location, scope.resolve),
        origin,
        written: `return ${step.status} ${templateText(step.location ?? step.body ?? [])}`.trimEnd(),
      };
    case 'break':
      return { op: 'break', origin, written: 'break' };
  }
}

function isAbsolute([first]: Template): boolean {
  return typeof first === 'string' ? /^https?:\/\//.test(first) : first?.name === 'scheme';
}

/** The query begins at the first `?` of the text itself; captures in it, and all those of a redirect, are escaped. */
function compileReplacement(to: Template, redirects: boolean, { resolve }: Scope): Replacement {
  const last = to.at(-1);
  const drops = typeof last === 'string' && last.endsWith('?');
  const parts = drops ? [...to.slice(0, -1), last.slice(0, -1)] : to;
  const at = parts.findIndex((part) => typeof part === 'string' && part.includes('?'));
  if (at < 0 || redirects) {
    const path = compileParts(parts, redirects ? 'escaped' : 'plain', resolve);
    return { path, args: at < 0 ? undefined : EMPTY, keepsArgs: !drops };
  }
  const text = parts[at] as string;
  const question = text.indexOf('?');
  return {
    path: compileParts([...parts.slice(0, at), text.slice(0, question)], 'plain', resolve),
    args: compileParts([text.slice(question + 1), ...parts.slice(at + 1)], 'escaped', resolve),
    keepsArgs: !drops,
  };
}

const EMPTY: Value = () => '';

function compileParts(parts: Template, captures: 'plain' | 'escaped', resolve: Resolve): Value {
  return compileTemplate(
    parts,
    captures === 'plain' ? resolve : (name) => escapedCapture(name, resolve(name)),
  );
}

/** nginx escapes what a client has escaped, until a rewrite has had its way. */
function inProgram(resolve: Resolve): Resolve {
  return (name) => {
    const value = resolve(name);
    const escaped = escapedCapture(name, value);
    return value === escaped ? value : (run) => (run.escapesCaptures ? escaped(run) : value(run));
  };
}

function escapedCapture(name: string, value: Value): Value {
  if (!/^\d$/.test(name)) return value;
  return (run) => (run.quoted || run.plus ? escapeArgument(value(run)) : value(run));
}

function compileCondition(
  condition: Condition,
  { resolve, slotOf }: Scope,
  otherwise: number,
  about: Pick<Operation, 'origin' | 'written'>,
): Operation {
  if (condition.test === 'set') {
    const value = resolve(condition.variable);
    const test = (run: Run) => {
      const text = value(run);
      return text !== '' && text !== '0';
    };
    return { op: 'if', test, otherwise, ...about };
  }
  const not = condition.not === true;
  if (condition.test === 'equal') {
    const value = resolve(condition.variable);
    const wanted = compileTemplate(condition.value, inProgram(resolve));
    return { op: 'if', test: (run) => (value(run) === wanted(run)) !== not, otherwise, ...about };
  }
  if (condition.test === 'match') {
    const value = resolve(condition.variable);
    const matcher = compileMatcher(condition.pattern, slotOf);
    return { op: 'if', test: (run) => matches(matcher, value(run), run) !== not, otherwise, ...about };
  }
  const path = compileTemplate(condition.path, inProgram(resolve));
  return { op: 'look', kind: condition.test, path, not, otherwise, ...about };
}

/** In programs, a pattern that does not fit forgets the captures of the one before. */
function matches(matcher: Matcher, subject: string, run: Run): boolean {
  const fitting = fits(matcher, subject, run);
  if (!fitting) run.captures = NO_CAPTURES;
  return fitting;
}

const NO_CAPTURES: readonly string[] = [];

export function conditionText(condition: Condition): string {
  if (condition.test === 'set') return `if ($${condition.variable})`;
  const not = condition.not === true ? '!' : '';
  if (condition.test === 'equal')
    return `if ($${condition.variable} ${not}= ${templateText(condition.value)})`;
  if (condition.test === 'match') {
    const { source, flags } = condition.pattern;
    return `if ($${condition.variable} ${not}~${flags === 'i' ? '*' : ''} ${source})`;
  }
  const flag = { file: '-f', directory: '-d', exists: '-e', executable: '-x' }[condition.test];
  return `if (${not}${flag} ${templateText(condition.path)})`;
}

/** What a program came to. */
export type Outcome =
  | { readonly did: 'end' }
  | { readonly did: 'return'; readonly status: number; readonly body?: string; readonly location?: string }
  /** Go on with `resumeProgram` once the path has been looked at. */
  | { readonly did: 'look'; readonly at: number; readonly kind: LookKind; readonly path: string }
  /** The rewritten URI is empty. */
  | { readonly did: 'fail' };

export type LookKind = (Operation & { readonly op: 'look' })['kind'];

/** Told of each operation and whether it had an effect, for `--explain`. */
export type WatchOperation = (operation: Operation, effect: boolean) => void;

const END: Outcome = { did: 'end' };

/** Runs on from operation `from`; `run.place` changes with an `if` that is true. */
export function runProgram(
  program: readonly Operation[],
  from: number,
  run: Run,
  watch?: WatchOperation,
): Outcome {
  if (from === 0) run.escapesCaptures = true;
  let at = from;
  while (at < program.length) {
    const operation = program[at]!;
    switch (operation.op) {
      case 'set':
        assign(run, operation.name, operation.slot, operation.value(run));
        break;
      case 'if':
        if (!operation.test(run)) {
          watch?.(operation, false);
          at = operation.otherwise;
          continue;
        }
        break;
      case 'enter':
        run.place = operation.place;
        break;
      case 'look':
        return { did: 'look', at, kind: operation.kind, path: operation.path(run) };
      case 'rewrite': {
        const fitting = matches(operation.matcher, run.uri, run);
        if (!fitting) {
          watch?.(operation, false);
          break;
        }
        watch?.(operation, true);
        const outcome = rewrite(operation, run);
        if (outcome !== undefined) return outcome;
        at++;
        continue;
      }
      case 'return':
        watch?.(operation, true);
        return returned(operation, run);
      case 'break':
        // As after a rewrite with that flag.
        if (run.uriChanged) run.placeHolds = false;
        run.uriChanged = false;
        watch?.(operation, true);
        return END;
    }
    watch?.(operation, true);
    at++;
  }
  return END;
}

/** After the look of operation `at`. */
export function resumeProgram(
  program: readonly Operation[],
  at: number,
  found: boolean,
  run: Run,
  watch?: WatchOperation,
): Outcome {
  const operation = program[at]!;
  if (operation.op !== 'look') return runProgram(program, at, run, watch);
  const holds = found !== operation.not;
  watch?.(operation, holds);
  return runProgram(program, holds ? at + 1 : operation.otherwise, run, watch);
}

function assign(run: Run, name: string, slot: number, value: string): void {
  if (name === 'args') {
    run.args = value;
    run.targetHolds = false;
  } else run.slots[slot] = value;
}

function returned({ status, body, location }: Operation & { op: 'return' }, run: Run): Outcome {
  // What the text says of `$status` is this, unless an error page has said another.
  if (run.status === 0) run.status = status;
  return {
    did: 'return',
    status,
    ...(body === undefined ? {} : { body: body(run) }),
    ...(location === undefined ? {} : { location: location(run) }),
  };
}

/** Undefined: the program goes on. */
function rewrite({ replacement, flag }: Operation & { op: 'rewrite' }, run: Run): Outcome | undefined {
  const { path, args, keepsArgs } = replacement;
  run.escapesCaptures = false;
  const kept = keepsArgs ? run.args : '';
  if (flag === 'redirect' || flag === 'permanent') {
    const target = unescapeRedirect(path(run));
    const joint = kept === '' ? '' : args === undefined ? '?' : '&';
    return { did: 'return', status: flag === 'redirect' ? 302 : 301, location: target + joint + kept };
  }
  const uri = path(run);
  if (uri === '') return { did: 'fail' };
  if (args !== undefined) run.args = kept === '' ? args(run) : `${args(run)}&${kept}`;
  else if (!keepsArgs) run.args = '';
  run.uri = uri;
  run.internal = true;
  run.targetHolds = false;
  run.uriChanged = flag !== 'break';
  if (flag === 'break') run.placeHolds = false;
  return flag === 'next' ? undefined : END;
}

/** What was escaped for safety comes back where it is harmless: printable bytes above `%`, up to a `?`. */
function unescapeRedirect(text: string): string {
  if (!text.includes('%')) return text;
  const question = /\?|%3f/i.exec(text);
  const path = question === null ? text : text.slice(0, question.index);
  const decoded = path.replaceAll(/%([0-9A-Fa-f]?)([0-9A-Fa-f]?)/g, harmless);
  return question === null ? decoded : `${decoded}?${text.slice(question.index + question[0].length)}`;
}

/** Of what is no whole escape, nginx leaves nothing. */
function harmless(escaped: string, high: string, low: string): string {
  if (low === '') return '';
  const byte = Number.parseInt(high + low, 16);
  return byte > 37 && byte < 127 ? String.fromCharCode(byte) : escaped;
}
