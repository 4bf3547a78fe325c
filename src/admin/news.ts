// The last lines of the log of this process, kept so that the status page can show and search them.

export interface NewsItem {
  /** Rises with each; never the same twice. */
  readonly number: number;
  /** ISO 8601. */
  readonly at: string;
  readonly level: string;
  readonly msg: string;
  /** What else the line says, as JSON; cut where it is long. */
  readonly fields: string;
}

export interface News {
  /** To be handed to the log, see LogOptions. */
  take(line: string): void;
  /** Those behind this number, oldest first. */
  since(number: number): readonly NewsItem[];
}

const MOST_KEPT = 500;
const LONGEST_FIELDS = 1_000;

export function createNews(): News {
  const kept: NewsItem[] = [];
  let number = 0;
  return {
    take(line) {
      const { time, level, msg, ...fields } = JSON.parse(line) as Record<string, unknown>;
      const text = Object.keys(fields).length === 0 ? '' : JSON.stringify(fields);
      kept.push({
        number: ++number,
        at: String(time),
        level: String(level),
        msg: String(msg),
        fields: text.length > LONGEST_FIELDS ? `${text.slice(0, LONGEST_FIELDS)}…` : text,
      });
      if (kept.length > MOST_KEPT) kept.shift();
    },
    since: (last) => kept.filter((item) => item.number > last),
  };
}
