import { useEffect } from 'react';

/* The viewer ahead of what it will show. Nothing of it is loaded with this file. */

export const importViewer = () => import('./viewer.tsx');

/**
 * Loads the viewer, then starts WebGL, while the page has nothing else to do: both are there when there is something to
 * show.
 *
 * @param isExpected whether something will be shown
 * @param afterMs how long the page is looked at before that
 */
export function useViewerAhead(isExpected: boolean, afterMs: number): void {
  useEffect(() => {
    if (!isExpected || typeof requestIdleCallback === 'undefined') return;
    let waiting: ReturnType<typeof setTimeout> | undefined;
    let isGone = false;
    const openSoon = ({ openAhead }: Awaited<ReturnType<typeof importViewer>>) => {
      if (!isGone) waiting = setTimeout(() => requestIdleCallback(() => isGone || openAhead()), afterMs);
    };
    // If it cannot be loaded now, it is loaded with the scan, which then says why not.
    const idle = requestIdleCallback(() => void importViewer().then(openSoon, () => undefined));
    return () => {
      isGone = true;
      cancelIdleCallback(idle);
      clearTimeout(waiting);
    };
  }, [isExpected, afterMs]);
}
