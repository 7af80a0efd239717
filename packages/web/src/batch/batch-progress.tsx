import { useRef } from 'react';
import { formatClock } from '../format.ts';
import { PartBar } from '../part-bar.tsx';
import type { BatchState } from './queue.ts';
import { isOver, type RowState } from './rows.ts';

/** Scans after whose end the rest is estimated. */
const fewest = 3;

/** How far a batch is, and how long the rest takes if it goes on as it did since this page has been sending. */
export function BatchProgress({ state: { rows, running } }: { state: BatchState }) {
  const count = (...states: readonly RowState[]) => rows.filter(({ state }) => states.includes(state)).length;
  const ended = rows.filter(isOver).length;
  const since = useRef<{ ms: number; ended: number }>(undefined);
  if (!running) since.current = undefined;
  else since.current ??= { ms: Date.now(), ended };
  const secondsLeft =
    since.current && ended - since.current.ended >= fewest
      ? ((rows.length - ended) * (Date.now() - since.current.ms)) / (ended - since.current.ended) / 1000
      : undefined;
  const [failed, unfit] = [count('failed'), count('unfit')];
  return (
    <>
      {running && <PartBar label="Scans" part={ended / rows.length} />}
      <p role="status" className="fine">
        {count('done')} of {rows.length} done
        {failed > 0 && `, ${failed} failed`}
        {unfit > 0 && `, ${unfit} do not fit`}
        {secondsLeft !== undefined && `, about ${formatClock(secondsLeft)} left`}
        {!running &&
          count('sending', 'computing') > 0 &&
          '. Nothing more is sent; what the server has is finished'}
      </p>
    </>
  );
}
