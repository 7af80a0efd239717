import type { Grid, Vec3 } from '@tomaat/core';
import { useState } from 'react';
import type { Plane } from './layouts.ts';
import { lengthMm, type Measure } from './ruler.ts';

interface Measures {
  readonly grid?: Grid;
  readonly list: readonly Measure[];
  /** The first end of a ruler that the keyboard has begun. */
  readonly mark?: { readonly plane: Plane; readonly from: Vec3 };
}

const none: Measures = { list: [] };

/** The rulers on a volume; those of another volume are forgotten. */
export function useMeasures(grid: Grid | undefined, position: Vec3 | undefined) {
  const [state, setState] = useState(none);
  const current = (state: Measures) => (state.grid === grid ? state : { ...none, grid });
  const update = (change: (measures: Measures) => Partial<Measures>) =>
    setState((old) => ({ ...current(old), ...change(current(old)) }));
  const { list, mark } = current(state);
  return {
    list,
    hasMark: mark !== undefined,
    /** With the one that follows the crosshair until its other end is marked. */
    drawn: mark && position ? [...list, { ...mark, to: position }] : list,
    clear: () => update(() => none),
    begin: (plane: Plane, at: Vec3) =>
      update(({ list }) => ({ list: [...list, { plane, from: at, to: at }] })),
    drag: (to: Vec3) => update(({ list }) => ({ list: list.with(-1, { ...list.at(-1)!, to }) })),
    /** A click measures nothing. */
    finish: () => update(({ list }) => ({ list: list.filter((measure) => lengthMm(measure) > 0) })),
    markAt: (plane: Plane, at: Vec3) =>
      update(({ list, mark }) =>
        mark ? { mark: undefined, list: [...list, { ...mark, to: at }] } : { mark: { plane, from: at } },
      ),
    unmark: () => update(() => ({ mark: undefined })),
  };
}
