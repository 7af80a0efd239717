import { applyAffine, type Mesh, type Vec3, type Volume } from '@tomaat/core';
import { type RefObject, useEffect, useEffectEvent, useState } from 'react';
import type { LabelStyle, Scene, View } from './scene.ts';
import {
  type ScanDisplay,
  type ValueRange,
  type Window,
  type WindowPreset,
  windowPresets,
} from './windows.ts';

/** What is drawn, and how. Each part that changes is drawn again, and no other. */
export interface SceneProps {
  readonly scan?: Volume;
  readonly labelMap?: Volume;
  readonly labels: readonly LabelStyle[];
  readonly mesh?: Mesh;
  readonly points?: readonly Vec3[];
  readonly display?: ScanDisplay;
  /** A new object moves the crosshair there; RAS+ mm. */
  readonly target?: { readonly position: Vec3 };
  readonly view: View;
  /** Of the labels, 0 to 1. */
  readonly opacity: number;
  /** The position of the crosshair, RAS+ mm, and whether the user clicked there. */
  onMove?(position: Vec3, clicked: boolean): void;
}

/** A window, with the name of the preset that it came from. */
export type NamedWindow = Window & { readonly name?: string };

export interface SceneState {
  /** Undefined until WebGL is set up. */
  readonly scene?: Scene;
  /** The slices are drawn. */
  readonly ready: boolean;
  readonly error?: unknown;
  readonly presets: readonly WindowPreset[];
  /** The values of the scan. */
  readonly range?: ValueRange;
  readonly window?: NamedWindow;
  setWindow(window: NamedWindow): void;
  /** Of the crosshair, RAS+ mm. */
  readonly position?: Vec3;
}

/** Opens a scene on the canvas, which it closes with the component, and keeps it as the properties say. */
export function useScene(canvas: RefObject<HTMLCanvasElement | null>, props: SceneProps): SceneState {
  const { scan, labelMap, labels, mesh, points, display, target, view, opacity, onMove } = props;
  const [scene, setScene] = useState<Scene>();
  const [ready, setReady] = useState(false);
  const [error, setError] = useState<unknown>();
  const [range, setRange] = useState<ValueRange>();
  const [presets, setPresets] = useState<readonly WindowPreset[]>([]);
  const [window, setWindow] = useState<NamedWindow>();
  const [position, setPosition] = useState<Vec3>();
  const moved = useEffectEvent((at: Vec3, clicked: boolean) => {
    setPosition(at);
    onMove?.(at, clicked);
  });
  const currentLabels = useEffectEvent(() => labels);
  const presetsFor = useEffectEvent((automatic: Window, range: ValueRange) =>
    windowPresets(display ?? {}, automatic, range),
  );

  useEffect(() => {
    let opened: Scene | undefined;
    let closed = false;
    (async () => {
      const { openScene } = await import('./scene.ts');
      if (closed) return;
      opened = await openScene(canvas.current!, (at, clicked) => moved(at, clicked));
      if (closed) opened.close();
      else setScene(opened);
    })().catch(setError);
    return () => {
      closed = true;
      opened?.close();
      setScene(undefined);
    };
  }, []);

  useEffect(() => {
    if (!scene || (!scan && !labelMap)) return;
    let stale = false;
    setReady(false);
    (async () => {
      if (scan) {
        const { low, high, lowest, highest } = await scene.setScan(scan);
        if (stale) return;
        const automatic = { level: (low + high) / 2, width: Math.max(high - low, 1e-6) };
        const found = presetsFor(automatic, { lowest, highest });
        setPresets(found);
        setRange({ lowest, highest });
        setWindow(found[0]);
      }
      if (labelMap && !stale) await scene.setLabels(labelMap, currentLabels());
      if (!stale) {
        scene.goTo(centreOf(scan ?? labelMap!));
        setReady(true);
      }
    })().catch(setError);
    return () => {
      stale = true;
    };
  }, [scene, scan, labelMap]);

  useEffect(() => {
    if (ready) scene?.styleLabels(labels);
  }, [scene, ready, labels]);
  useEffect(() => {
    if (ready && mesh) scene?.setMesh(mesh, currentLabels());
  }, [scene, ready, mesh]);
  useEffect(() => {
    if (ready) scene?.setPoints(points ?? []);
  }, [scene, ready, points]);
  useEffect(() => {
    if (ready) scene?.setOpacity(opacity);
  }, [scene, ready, opacity]);
  useEffect(() => {
    if (ready && window) scene?.setWindow(window.level - window.width / 2, window.level + window.width / 2);
  }, [scene, ready, window]);
  useEffect(() => {
    if (ready) scene?.setView(view);
  }, [scene, ready, view]);
  useEffect(() => {
    if (ready && target) scene?.goTo(target.position);
  }, [scene, ready, target]);

  return { scene, ready, error, presets, range, window, setWindow, position };
}

/** The voxel in the middle, RAS+ mm. */
function centreOf({ affine, size }: Volume): Vec3 {
  const [x, y, z] = size.map((n) => Math.floor((n - 1) / 2));
  return applyAffine(affine, [x, y, z]);
}
