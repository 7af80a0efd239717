import { type Plane, planes } from './layouts.ts';
import type { KeyCommand } from './use-keys.ts';

export interface KeyActions {
  /** The plane that the keys move. */
  readonly main: Plane;
  step(plane: Plane, slices: number): void;
  goToSlice(number: number): void;
  setMain(plane: Plane): void;
  enlarge(): void;
  zoom(factor: number): void;
  resetZoom(): void;
  /** As a drag by these CSS pixels. */
  dragWindow(across: number, down: number): void;
  mark(): void;
  toggleOutline(): void;
  takeShot(): void;
  toggleFull(): void;
  openHelp(): void;
  giveUp(): void;
}

/** The keys, in the order of the help. */
export function keyCommands(actions: KeyActions): readonly KeyCommand[] {
  const { main, step, goToSlice, setMain, enlarge, zoom, resetZoom, dragWindow, mark, toggleOutline } =
    actions;
  const { takeShot, toggleFull, openHelp, giveUp } = actions;
  return [
    { keys: ['ArrowUp', 'ArrowRight'], shown: '↑ →', does: 'next slice', run: () => step(main, 1) },
    {
      keys: ['ArrowDown', 'ArrowLeft'],
      shown: '↓ ←',
      does: 'previous slice',
      run: () => step(main, -1),
    },
    {
      keys: ['PageUp', 'PageDown'],
      shown: 'Page up, Page down',
      does: 'ten slices on or back',
      run: (key) => step(main, key === 'PageUp' ? 10 : -10),
    },
    {
      keys: ['Home', 'End'],
      shown: 'Home, End',
      does: 'first, last slice',
      run: (key) => goToSlice(key === 'Home' ? 1 : Number.MAX_SAFE_INTEGER),
    },
    {
      keys: ['Shift+ArrowLeft', 'Shift+ArrowRight', 'Shift+ArrowUp', 'Shift+ArrowDown'],
      shown: 'Shift + arrows',
      does: 'move the crosshair in the plane, by a voxel',
      run: (key) => {
        const [sideways, upwards] = otherPlanes(main);
        // In radiological convention the patient's right is on the left.
        const toRight = main === 'sagittal' ? 1 : -1;
        if (key === 'Shift+ArrowLeft' || key === 'Shift+ArrowRight')
          step(sideways, key === 'Shift+ArrowRight' ? toRight : -toRight);
        else step(upwards, key === 'Shift+ArrowUp' ? 1 : -1);
      },
    },
    {
      keys: ['1', '2', '3'],
      shown: '1, 2, 3',
      does: 'axial, coronal, sagittal plane',
      run: (key) => setMain(planes[Number(key) - 1]),
    },
    { keys: ['Enter'], shown: 'Enter', does: 'this plane alone, and back', run: enlarge },
    {
      keys: ['+', '=', '-'],
      shown: '+ −',
      does: 'zoom',
      run: (key) => zoom(key === '-' ? 0.8 : 1.25),
    },
    { keys: ['0'], shown: '0', does: 'zoom back', run: resetZoom },
    {
      keys: ['w', 's', 'a', 'd'],
      shown: 'W S, A D',
      does: 'brighter, darker; narrower, wider window',
      run: (key) => {
        const [x, y] = { w: [0, -12], s: [0, 12], a: [-12, 0], d: [12, 0] }[key] ?? [0, 0];
        dragWindow(x, y);
      },
    },
    {
      keys: ['m'],
      shown: 'M',
      does: 'ruler: its first end, then its other end, at the crosshair',
      run: mark,
    },
    { keys: ['o'], shown: 'O', does: 'labels as outlines or filled', run: toggleOutline },
    { keys: ['p'], shown: 'P', does: 'screenshot', run: takeShot },
    { keys: ['f'], shown: 'F', does: 'full screen', run: toggleFull },
    { keys: ['?'], shown: '?', does: 'this help', run: openHelp },
    {
      keys: ['Escape'],
      shown: 'Esc',
      does: 'gives up a ruler, leaves full screen',
      run: giveUp,
    },
  ];
}

/** The planes whose slices a step to the side and a step upwards in a plane go through. */
const otherPlanes = (plane: Plane): readonly [Plane, Plane] =>
  plane === 'axial'
    ? ['sagittal', 'coronal']
    : plane === 'coronal'
      ? ['sagittal', 'axial']
      : ['coronal', 'axial'];
