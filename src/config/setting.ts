// One entry of the table of settings.

export interface Setting {
  readonly name: string;
  /** Older names that still work. */
  readonly aliases?: readonly string[];
  readonly meaning: string;
  /** Empty: there is none. */
  readonly byDefault: string;
  readonly example: string;
  /** What another choice does to the security of the deployment. */
  readonly security?: string;
  /** Shown to nobody, and may stand in a file that `NAME_FILE` names. */
  readonly secret?: true;
}
