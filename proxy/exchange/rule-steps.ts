// Carries out the steps of a run of rules that concern neither the client nor its upstream, and leaves the others to its kinds.

import type { Reply } from '../rules/compiled.ts';
import type {
  Ask,
  Charging,
  Check,
  Close,
  Forward,
  Look,
  Own,
  Pass,
  Resumable,
  SendFile,
  Step,
} from '../rules/step.ts';
import { isOnDisk } from './disk.ts';
import type { RulesInUse } from './rules-in-use.ts';

export type LastStep = Pass | Own | SendFile | Close;

/** The answer to a question that rules asked of another service. */
export interface Answer extends Reply {
  /** As they came; nothing of the connection is among them. */
  readonly sent: readonly (readonly [name: string, value: string])[];
  readonly body: Buffer;
}

/** A question under way. */
export interface Asking {
  giveUp(): void;
}

export abstract class RuleSteps {
  protected readonly run: Resumable;
  protected readonly service: RulesInUse;
  /** Of the last question. */
  protected answer: Answer | undefined = undefined;
  /** Nobody waits for an outcome any more: what is still being asked about comes to nothing. */
  protected isOver = false;
  private timer: NodeJS.Timeout | undefined = undefined;
  private asking: Asking | undefined = undefined;
  private leaveSeats: (() => void) | undefined = undefined;

  constructor(run: Resumable, service: RulesInUse) {
    this.run = run;
    this.service = service;
  }

  protected abstract forward(step: Forward): void;
  protected abstract finish(step: LastStep): void;
  protected abstract ask(step: Ask, answered: (answer: Answer | undefined) => void): Asking;
  /** The rules themselves have failed. */
  protected abstract broken(error: unknown): void;

  /** Goes on with what `next` says. */
  protected resume(next: () => Step) {
    if (this.isOver) return;
    let step: Step;
    try {
      step = next();
    } catch (error) {
      this.broken(error);
      return;
    }
    this.carryOut(step);
  }

  protected carryOut(step: Step) {
    const { run } = this;
    switch (step.do) {
      case 'look':
        return this.look(step);
      case 'charge':
        return this.charge(step);
      case 'wait':
        this.timer = setTimeout(() => this.resume(() => run.waited()), step.ms);
        return;
      case 'check':
        return this.check(step);
      case 'ask':
        this.asking = this.ask(step, (answer) => {
          this.asking = undefined;
          this.answer = answer;
          this.resume(() => run.answered(answer));
        });
        return;
      case 'forward':
        return this.forward(step);
      default:
        return this.finish(step);
    }
  }

  private look({ kind, path, root }: Look): void {
    isOnDisk(kind, path, root)
      .then((found) => this.resume(() => this.run.looked(found)))
      .catch((error) => this.broken(error));
  }

  private check({ hash, like, password }: Check): void {
    this.service.passwords
      .check(hash, password, like)
      .then((outcome) =>
        outcome === 'busy' ? this.busy() : this.resume(() => this.run.checked(outcome === 'right')),
      )
      .catch((error) => this.broken(error));
  }

  /** Too many passwords wait to be looked at: a guess would let strangers in, or keep friends out. */
  private busy(): void {
    if (!this.isOver) this.tooBusy();
  }

  protected abstract tooBusy(): void;

  private charge(step: Charging): void {
    // Rules may be replaced meanwhile, and with them who counts.
    const { limiter } = this.service;
    limiter.charge(step.charges, step.seats, (result) => {
      if (typeof result !== 'string' && step.seats.length > 0) {
        if (this.isOver) return limiter.leave(step.seats);
        this.leaveSeats = () => limiter.leave(step.seats);
      }
      this.resume(() => this.run.charged(result));
    });
  }

  /** It has ended, however it did. */
  over(): void {
    if (this.isOver) return;
    this.isOver = true;
    clearTimeout(this.timer);
    this.asking?.giveUp();
    this.leaveSeats?.();
  }
}
