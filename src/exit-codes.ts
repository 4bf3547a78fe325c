// The codes that the program ends with.

/** What the process ends with; part of the interface, see docs/operation.md. */
export const exitCodes = {
  ok: 0,
  failed: 1,
  usage: 2,
  /** Nothing failed, and not everything could be found out. */
  unknown: 3,
  /** EX_CONFIG of sysexits.h. */
  configuration: 78,
} as const;

/** As commands are given them. */
export type ExitCodes = Readonly<Record<keyof typeof exitCodes, number>>;
