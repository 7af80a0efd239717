import type { GatewaySeries, GatewaySeriesState, GatewayStep } from '@tomaat/client';
import { formatTime } from '../format.ts';

/** States, steps and results in words. */

export const stateNames: Record<GatewaySeriesState, { name: string; tone: 'good' | 'bad' | 'plain' }> = {
  waiting: { name: 'Waiting', tone: 'plain' },
  queued: { name: 'Queued', tone: 'plain' },
  running: { name: 'Running', tone: 'plain' },
  done: { name: 'Done', tone: 'good' },
  failed: { name: 'Failed', tone: 'bad' },
  dropped: { name: 'Dropped', tone: 'plain' },
};

const stepNames: Record<GatewayStep, string> = {
  fetch: 'fetching the images',
  predict: 'waiting for the service',
  store: 'storing the results',
};

/** What a series is called: a description is free text of the scanner. */
export const titleOf = ({ description, modality }: GatewaySeries): string =>
  description ?? `${modality ? `${modality} series` : 'Series'} without a description`;

/** What happens with it now, or came of it. */
export function courseOf(row: GatewaySeries): string {
  const due = row.dueTime === undefined ? '' : formatTime(row.dueTime);
  switch (row.state) {
    case 'waiting':
      return 'for more images';
    case 'queued':
      return row.attempts > 0
        ? `again at ${due} (${counted(row.attempts, 'attempt')} failed)`
        : 'for its turn';
    case 'running':
      return stepNames[row.step];
    case 'done':
      return resultsOf(row);
    case 'failed':
    case 'dropped':
      return `while ${stepNames[row.step]}`;
  }
}

function resultsOf({ results }: GatewaySeries): string {
  if (results.length === 0) return 'without a result';
  const formats = results.map(({ format }) => formatNames[format] ?? format);
  const places = [...new Set(results.flatMap(({ storedAt }) => storedAt))];
  return `${formats.join(', ')} in ${places.join(', ')}`;
}

export const formatNames: Record<string, string> = {
  'seg.dcm': 'SEG',
  'sr.dcm': 'SR',
  'rtstruct.dcm': 'RTSTRUCT',
  'key.dcm': 'key picture',
};

export const counted = (count: number, what: string): string => `${count} ${what}${count === 1 ? '' : 's'}`;
