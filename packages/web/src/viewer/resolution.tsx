import { useState } from 'react';
import type { Detail } from './scene.ts';

/** What is drawn of every voxel, in words. */
export const resolutionName = ({ factor }: Detail): string =>
  factor === 2 ? 'half resolution' : `1/${factor} of the resolution`;

interface ResolutionProps {
  readonly detail?: Detail;
  readonly hasLabels: boolean;
  onFull(): Promise<void>;
}

/** Says how fine the slices are where they do not show every voxel, and offers those that do. */
export function Resolution({ detail, hasLabels, onFull }: ResolutionProps) {
  const [busy, setBusy] = useState(false);
  if (!detail || detail.factor === 1) return null;
  const { factor, isSoftware } = detail;
  return (
    <p className="fine resolution">
      Shown at {resolutionName(detail)}: each drawn voxel is {factor} × {factor} × {factor} of the scan
      {hasLabels &&
        ', and has a label if one of them has it, so that small labels are seen and all look larger'}
      . Values and labels below the picture are those of the full scan.{' '}
      {isSoftware && (
        <button
          type="button"
          className="quiet small"
          disabled={busy}
          title="This browser draws without a graphics card: it takes longer."
          onClick={() => {
            setBusy(true);
            void onFull().finally(() => setBusy(false));
          }}
        >
          {busy ? 'Drawing …' : 'Full resolution'}
        </button>
      )}
    </p>
  );
}
