// A worker's side of limits: what it may decide by itself, what it asks its supervisor, and what it does without an answer.

import { createHmac } from 'node:crypto';
import {
  type Admission,
  type Charge,
  createLocalLimits,
  createRefusals,
  type Limits,
  type LimitZones,
  once,
  type Seat,
} from '../../proxy/rules/limits.ts';
import { MOST_LIMIT_ITEMS } from './channel.ts';
import type { Counted, LimitQuestions } from './messages.ts';
import type { LimitSettings } from './serving.ts';

/*
 * Questions of one turn of the loop go as one message, and the next message waits for the answer: neither side can fill
 * the other's memory, and the more is asked, the more goes into a message.
 *
 * A supervisor that does not answer in time. To refuse all would make its pause an outage of every limited path; to let
 * all through would lift the limits on passwords for whoever can make it pause. So the worker counts by itself until it
 * answers again: each limit then holds in each worker, at worst times the number of workers.
 */

export interface LimitQuestionsOptions {
  readonly send: (asked: LimitQuestions) => void;
  /** In milliseconds, never going back. */
  readonly now?: () => number;
  readonly patienceMs?: number;
}

export interface AskedLimits extends Limits {
  set(generation: number, settings: LimitSettings): void;
  counted(answers: readonly Counted[]): void;
}

/** Far more than a supervisor takes that is well. */
const PATIENCE_MS = 1_000;
/** Of 16 bytes, in base64url. */
const KEY_LETTERS = 22;
/** A charge or seat of a zone that is no longer there. */
const GONE = -1;

interface Open {
  readonly question: LimitQuestions['questions'][number];
  readonly charges: readonly Charge[];
  readonly askedAt: number;
  resolve(admission: Admission): void;
  /** Counted here, because the supervisor did not answer. */
  decideHere: () => Admission;
}

/** Where the zones of rules stand in the newest list. */
interface Places {
  readonly requests: readonly number[];
  readonly connections: readonly number[];
}

export function createLimitQuestions(options: LimitQuestionsOptions): AskedLimits {
  const { send, now = () => performance.now(), patienceMs = PATIENCE_MS } = options;
  let secret: Uint8Array = new Uint8Array();
  let generation = 0;
  let zones: LimitZones = { requestZones: [], connectionZones: [] };
  let placesOf = new WeakMap<LimitZones, Places>();
  let refusals = createRefusals();
  let local = createLocalLimits(now);
  const waiting: Open[] = [];
  const open = new Map<number, Open>();
  const left: number[] = [];
  let last = 0;
  let isAsking = false;
  let isAway = false;
  let turn: NodeJS.Immediate | undefined;
  let patience: NodeJS.Timeout | undefined;

  function placesIn(of: LimitZones): Places {
    const known = placesOf.get(of);
    if (known !== undefined) return known;
    const places = {
      requests: of.requestZones.map(({ name }) => zones.requestZones.findIndex((zone) => zone.name === name)),
      connections: of.connectionZones.map(({ name }) =>
        zones.connectionZones.findIndex((zone) => zone.name === name),
      ),
    };
    placesOf.set(of, places);
    return places;
  }

  function digestOf(key: string): string {
    return createHmac('sha256', secret).update(key).digest('base64url').slice(0, KEY_LETTERS);
  }

  function askAtEndOfTurn(): void {
    if (isAsking || turn !== undefined || waiting.length + left.length === 0) return;
    turn = setImmediate(() => {
      turn = undefined;
      ask();
    });
  }

  function ask(): void {
    const freed = left.splice(0, MOST_LIMIT_ITEMS / 2);
    let items = freed.length;
    let count = 0;
    while (count < waiting.length) {
      const { charges, seats } = waiting[count]!.question;
      items += charges.length + seats.length;
      if (items > MOST_LIMIT_ITEMS) break;
      count++;
    }
    const asked = waiting.splice(0, count);
    for (const one of asked) open.set(one.question.question, one);
    isAsking = true;
    patience = setTimeout(giveUp, patienceMs).unref();
    send({ questions: asked.map(({ question }) => question), left: freed });
  }

  function giveUp(): void {
    isAway = true;
    for (const one of [...open.values(), ...waiting.splice(0)]) one.resolve(one.decideHere());
  }

  function admissionOf(answer: Counted, { charges, askedAt }: Open): Admission {
    if (answer.passes) {
      const { waitMs, ticket } = answer;
      return { waitMs, leave: ticket === undefined ? () => {} : once(() => leave(ticket)) };
    }
    if (answer.by === 'requests') refusals.remember(charges, answer, askedAt);
    return answer.by;
  }

  function leave(ticket: number): void {
    left.push(ticket);
    askAtEndOfTurn();
  }

  return {
    set(newGeneration, settings) {
      generation = newGeneration;
      ({ zones, secret } = settings);
      placesOf = new WeakMap();
      // By places in the list.
      refusals = createRefusals();
      local = createLocalLimits(now);
    },
    charge(of, wantedCharges, wantedSeats) {
      const places = placesIn(of);
      const charges = wantedCharges
        .map((charge) => ({
          ...charge,
          zone: places.requests[charge.zone] ?? GONE,
          key: digestOf(charge.key),
        }))
        .filter(({ zone }) => zone !== GONE);
      const seats: Seat[] = wantedSeats
        .map((seat) => ({ ...seat, zone: places.connections[seat.zone] ?? GONE, key: digestOf(seat.key) }))
        .filter(({ zone }) => zone !== GONE);
      if (charges.length + seats.length === 0) return { waitMs: 0, leave() {} };
      const askedAt = now();
      if (refusals.has(charges, askedAt)) return 'requests';
      const here = zones;
      const decideHere = () => local.charge(here, charges, seats) as Admission;
      if (isAway || charges.length + seats.length > MOST_LIMIT_ITEMS / 2) return decideHere();
      const question = {
        question: ++last,
        zones: generation,
        charges: charges.map(({ zone, key, burst, delay }) => [zone, key, burst, delay] as Quadruple),
        seats: seats.map(({ zone, key, max }) => [zone, key, max] as Triple),
      };
      return new Promise((resolve) => {
        waiting.push({ question, charges, askedAt, resolve, decideHere });
        askAtEndOfTurn();
      });
    },
    counted(answers) {
      clearTimeout(patience);
      isAsking = false;
      const wasAway = isAway;
      isAway = false;
      for (const answer of answers) {
        const one = open.get(answer.question);
        if (one === undefined) continue;
        open.delete(answer.question);
        const admission = admissionOf(answer, one);
        // It has been decided here meanwhile.
        if (wasAway) leaveLate(admission);
        else one.resolve(admission);
      }
      askAtEndOfTurn();
    },
  };
}

function leaveLate(admission: Admission): void {
  if (typeof admission === 'object') admission.leave();
}

type Quadruple = [number, string, number, number];
type Triple = [number, string, number];
