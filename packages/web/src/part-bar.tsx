import { ProgressBar } from 'react-aria-components';

/** @param part how much is done, 0 to 1; undefined if that is unknown */
export function PartBar({ label, part }: { label: string; part: number | undefined }) {
  return (
    <ProgressBar
      className="progress"
      value={100 * (part ?? 0)}
      isIndeterminate={part === undefined}
      aria-label={label}
    >
      {({ percentage, isIndeterminate }) => (
        <div className={isIndeterminate ? 'bar waiting' : 'bar'}>
          <div className="bar-fill" style={{ width: isIndeterminate ? '30%' : `${percentage}%` }} />
        </div>
      )}
    </ProgressBar>
  );
}
