import { useEffect, useRef } from 'react';
import type { KeyCommand } from './use-keys.ts';

const pointerLines: readonly (readonly [string, string])[] = [
  ['Click, drag', 'moves the crosshair, or what the tool does'],
  ['Right button, drag', 'window: right is wider, up is brighter'],
  ['Wheel', 'next or previous slice of the plane under the pointer'],
  ['Ctrl + wheel', 'zoom'],
  ['Shift + drag, middle button', 'moves the slices'],
  ['Double click', 'shows a plane alone, and back'],
  [
    'Finger',
    'tap the picture first; then drag with one finger, zoom with two. Tap beside it to scroll the page',
  ],
];

/** What mouse, fingers and keys do. */
export function Help({ commands, onClose }: { commands: readonly KeyCommand[]; onClose(): void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current!.showModal(), []);
  return (
    <dialog ref={dialog} className="viewer-help" aria-labelledby="viewer-help-title" onClose={onClose}>
      <h2 id="viewer-help-title">The viewer</h2>
      <Lines title="Mouse and fingers" lines={pointerLines} />
      <Lines
        title="Keys, while the picture has the focus"
        lines={commands.map(({ shown, does }) => [shown, does])}
      />
      <button type="button" className="primary" onClick={() => dialog.current!.close()}>
        Close
      </button>
    </dialog>
  );
}

function Lines({ title, lines }: { title: string; lines: readonly (readonly [string, string])[] }) {
  return (
    <>
      <h3>{title}</h3>
      <dl>
        {lines.map(([what, does]) => (
          <div key={what}>
            <dt>{what}</dt>
            <dd>{does}</dd>
          </div>
        ))}
      </dl>
    </>
  );
}
