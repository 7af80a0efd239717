import type { ComparedNames, ErrorData, LabelComparison, LabelName, Volume } from '@tomaat/core';

/* What the page and the thread that compares tell each other. */

export interface Request {
  readonly found: Volume;
  readonly expected: Volume;
  readonly files: ComparedNames;
  readonly names: readonly LabelName[];
}

/** `difference` lies on the grid of the expected label map; its values are `differenceLabels` of core. */
export interface Compared {
  readonly comparison: LabelComparison;
  readonly difference: Volume;
}

export type Reply = Compared | { readonly error: ErrorData };
