import type { Job, Service } from '@tomaat/client';
import { labelsWith, type Volume } from '@tomaat/core';
import { useEffect, useMemo, useState } from 'react';
import { type LabelStyle, labelStyles, labelsIn } from '../viewer/labels.ts';
import { nextFrameSeen } from '../viewer/next-frame.ts';

const none: readonly number[] = [];

/**
 * How the labels of a result are drawn and listed. Values in the map that the service does not list are known a moment
 * later: looking for them takes a tenth of a second in 100 million voxels, and the scan is drawn before.
 */
export function useLabelStyles(
  map: Volume | undefined,
  service: Service | undefined,
  parameters: Job['parameters'],
): readonly LabelStyle[] {
  const [unlisted, setUnlisted] = useState(none);
  const listed = useMemo(() => labelsWith(service?.labels ?? [], parameters), [service, parameters]);
  useEffect(() => {
    if (!map) return;
    let isGone = false;
    void nextFrameSeen()
      .then(whenIdle)
      .then(() => {
        if (isGone) return;
        const others = labelsIn(map).filter((value) => !listed.some((label) => label.value === value));
        setUnlisted((old) => (old.join() === others.join() ? old : others));
      });
    return () => {
      isGone = true;
    };
  }, [map, listed]);
  return useMemo(() => labelStyles(service, parameters, unlisted), [service, parameters, unlisted]);
}

/** While the scan is prepared in a worker, and in any case before its labels are drawn. */
const whenIdle = (): Promise<unknown> =>
  new Promise((resolve) =>
    typeof requestIdleCallback === 'undefined'
      ? resolve(undefined)
      : requestIdleCallback(resolve, { timeout: 300 }),
  );
