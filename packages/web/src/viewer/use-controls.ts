import type { Grid, Vec3, Volume } from '@tomaat/core';
import { type RefObject, useEffect, useMemo, useRef, useState } from 'react';
import { save } from '../save.ts';
import { keyCommands } from './key-commands.ts';
import type { LabelStyle } from './labels.ts';
import { aspectOf, type KeptView, keepView, keptView, type Plane, planes, type View } from './layouts.ts';
import { type OverlayContent, planeNames } from './overlay-shapes.ts';
import { type Tool, usePointer } from './pointer.ts';
import { resolutionName } from './resolution.tsx';
import type { Detail, Scene } from './scene.ts';
import { takeScreenshot } from './screenshot.ts';
import { extentOf, moveByVoxels, moveToSlice, sliceNumber, stacksOf } from './stack.ts';
import { useKeys } from './use-keys.ts';
import { useMeasures } from './use-measures.ts';
import type { ShownWindow } from './window-controls.tsx';
import { dragWindow, formatValue, type ValueRange } from './windows.ts';

interface ControlsOf {
  /** The whole viewer, and the frame of its canvas. */
  viewer: RefObject<HTMLElement | null>;
  frame: RefObject<HTMLElement | null>;
  /** Undefined until it shows the scan, or without one the labels. */
  scene?: Scene;
  scan?: Volume;
  labelMap?: Volume;
  labels: readonly LabelStyle[];
  position?: Vec3;
  window?: ShownWindow;
  range?: ValueRange;
  /** How fine the slices are. */
  detail?: Detail;
  setWindow(window: ShownWindow): void;
  /** What is shown first, in place of what was chosen last. */
  firstView?: View;
  /** Lines below a screenshot. */
  caption?: string;
  onFault(error: unknown): void;
}

/** The state of the controls, and what they do with the scene. */
export function useControls(of: ControlsOf) {
  const { viewer, frame, scene, scan, labelMap, labels, position, window: shown, range } = of;
  const [kept, setKept] = useState(
    (): KeptView => ({ ...keptView(), ...(of.firstView && { view: of.firstView }) }),
  );
  const [tool, setTool] = useState<Tool>('crosshair');
  const [isOutlined, setOutlined] = useState(false);
  const [isFull, setFull] = useState(false);
  const [isTouched, setTouched] = useState(false);
  const [isHelpOpen, setHelpOpen] = useState(false);
  const before = useRef<KeptView>({ view: 'slices', main: 'axial' });
  const dragged = useRef<ShownWindow>(undefined);

  const grid: Grid | undefined = scan ?? labelMap;
  const measures = useMeasures(grid, position);
  const stacks = useMemo(() => grid && stacksOf(grid), [grid]);
  useEffect(() => {
    const followBrowser = () => document.fullscreenElement === null && setFull(false);
    document.addEventListener('fullscreenchange', followBrowser);
    return () => document.removeEventListener('fullscreenchange', followBrowser);
  }, []);
  useEffect(() => {
    if (!isTouched) return;
    const leave = (event: PointerEvent) =>
      !frame.current?.contains(event.target as Node) && setTouched(false);
    document.addEventListener('pointerdown', leave);
    return () => document.removeEventListener('pointerdown', leave);
  }, [isTouched, frame]);

  const show = (next: KeptView) => {
    setKept(next);
    keepView(next);
  };
  const setMain = (main: Plane) => show({ ...kept, main });
  const enlarge = (what: Plane | '3d') => {
    const next: KeptView = what === '3d' ? { ...kept, view: '3d' } : { view: 'one', main: what };
    const isThere = next.view === kept.view && next.main === kept.main;
    if (!isThere) before.current = kept;
    const back =
      before.current.view === kept.view ? ({ view: 'slices', main: kept.main } as const) : before.current;
    show(isThere ? back : next);
  };
  const step = (plane: Plane, slices: number) => {
    if (scene && grid && stacks && position) scene.goTo(moveByVoxels(grid, stacks[plane], position, slices));
  };
  const goToSlice = (number: number) => {
    if (scene && grid && stacks && position)
      scene.goTo(moveToSlice(grid, stacks[kept.main], position, number));
  };
  const toggleFull = () => {
    setFull(!isFull);
    if (isFull) {
      if (document.fullscreenElement) void document.exitFullscreen();
      return;
    }
    // Where the browser refuses, as on a telephone, the viewer fills its window.
    void viewer.current?.requestFullscreen?.().catch(() => undefined);
  };

  const content: OverlayContent | undefined =
    grid && stacks && position
      ? {
          grid,
          stacks,
          main: kept.main,
          position,
          measures: measures.drawn,
          outlined: isOutlined && labelMap ? { labelMap, labels } : undefined,
        }
      : undefined;

  const takeShot = () => {
    if (!scene) return;
    const slices =
      content &&
      planes
        .map(
          (plane) =>
            `${planeNames[plane]} ${sliceNumber(content.grid, content.stacks[plane], content.position)}`,
        )
        .join(', ');
    const window = shown && `level ${formatValue(shown.level)}, width ${formatValue(shown.width)}`;
    const resolution = of.detail && of.detail.factor > 1 && resolutionName(of.detail);
    const caption = [
      of.caption ?? 'TOMAAT',
      [kept.view === '3d' ? '3-D view' : slices, window, resolution].filter(Boolean).join(' · '),
    ];
    takeScreenshot(scene, kept.view === '3d' ? undefined : content, caption, frame.current!.clientWidth).then(
      (blob) => save(blob, 'tomaat-view.png'),
      of.onFault,
    );
  };

  usePointer(frame, scene, {
    tool,
    takesTouch: isTouched || isFull,
    onTap: () => setTouched(true),
    onWheel: step,
    onEnlarge: enlarge,
    onWindow(phase, across, down) {
      if (phase === 'start') dragged.current = shown;
      else if (dragged.current && range) of.setWindow(dragWindow(dragged.current, across, down, range));
    },
    onRuler: (phase, plane, at) => (phase === 'start' ? measures.begin(plane, at) : measures.drag(at)),
    onRulerEnd: measures.finish,
  });

  const commands = keyCommands({
    step: (plane, slices) => step(plane, slices),
    main: kept.main,
    goToSlice,
    setMain,
    enlarge: () => enlarge(kept.main),
    zoom: (factor) => scene?.zoom(factor),
    resetZoom: () => scene?.resetZoom(),
    dragWindow: (across, down) => shown && range && of.setWindow(dragWindow(shown, across, down, range)),
    mark: () => position && measures.markAt(kept.main, position),
    toggleOutline: () => setOutlined(!isOutlined),
    takeShot,
    toggleFull,
    openHelp: () => setHelpOpen(true),
    giveUp: () => (measures.hasMark ? measures.unmark() : isFull && toggleFull()),
  });
  useKeys(frame, commands);

  return {
    kept,
    setView: (view: View) => show({ ...kept, view }),
    setMain,
    tool,
    setTool,
    isOutlined,
    setOutlined,
    isFull,
    toggleFull,
    isTouched,
    hasRulers: measures.list.length > 0,
    removeRulers: measures.clear,
    isHelpOpen,
    openHelp: () => setHelpOpen(true),
    closeHelp: () => setHelpOpen(false),
    takeShot,
    goToSlice,
    commands,
    content,
    /** Width by height of the three planes in a row. */
    rowAspect: grid && stacks && rowAspect(extentOf(grid, stacks)),
    hasScan: scan !== undefined,
    hasLabels: labelMap !== undefined,
    slice:
      grid && stacks && position
        ? {
            plane: kept.main,
            number: sliceNumber(grid, stacks[kept.main], position),
            count: stacks[kept.main].count,
          }
        : undefined,
  };
}

export type Controls = ReturnType<typeof useControls>;

const rowAspect = (extent: Vec3): number => planes.reduce((sum, plane) => sum + aspectOf(plane, extent), 0);
