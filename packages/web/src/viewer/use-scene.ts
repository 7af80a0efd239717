import type { Mesh, Vec3, Volume } from '@tomaat/core';
import { type RefObject, useCallback, useEffect, useEffectEvent, useMemo, useRef, useState } from 'react';
import { sampleWindow } from './auto-window.ts';
import type { LabelStyle } from './labels.ts';
import type { Plane, View } from './layouts.ts';
import { nextFrameSeen } from './next-frame.ts';
import type { Detail, Scene } from './scene.ts';
import { type PlacedScene, placeScene } from './scene-place.ts';
import { centreOf } from './stack.ts';
import type { ShownWindow } from './window-controls.tsx';
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
  /** The position of the crosshair, RAS+ mm, and whether the user clicked there. */
  onMove?(position: Vec3, clicked: boolean): void;
}

export interface SceneState {
  /** Undefined until WebGL is set up. */
  readonly scene?: Scene;
  /** Everything is drawn. */
  readonly ready: boolean;
  /** The scan is drawn, or without one everything: it can be moved in. */
  readonly isLive: boolean;
  /** What is drawn is of an earlier scan, or of none. */
  readonly isStale: boolean;
  /** In which the scan is drawn first. */
  readonly firstWindow?: Window;
  readonly error?: unknown;
  setError(error: unknown): void;
  readonly presets: readonly WindowPreset[];
  /** The values of the scan. */
  readonly range?: ValueRange;
  readonly window?: ShownWindow;
  setWindow(window: ShownWindow): void;
  /** How fine the slices are. */
  readonly detail?: Detail;
  /** Draws every voxel. */
  drawFully(): Promise<void>;
  /** Of the crosshair, RAS+ mm. */
  readonly position?: Vec3;
}

/** Shows a scene in an element, which it closes with the component, and keeps it as the properties say. */
export function useScene(place: RefObject<HTMLElement | null>, props: SceneProps): SceneState {
  const { scan, labelMap, labels, mesh, points, display, target, onMove } = props;
  const [scene, setScene] = useState<Scene>();
  const [scanShown, setScanShown] = useState<Volume>();
  const [labelsShown, setLabelsShown] = useState<Volume>();
  const [detail, setDetail] = useState<Detail>();
  const centred = useRef(false);
  const firstSeen = useRef<Promise<void>>(undefined);
  const sampled = useMemo(() => scan && sampleWindow(scan), [scan]);
  const firstWindow = sampled && windowPresets(display ?? {}, sampled.automatic, sampled.range)[0];
  const ready =
    scene !== undefined &&
    (scan !== undefined || labelMap !== undefined || mesh !== undefined) &&
    scanShown === scan &&
    labelsShown === labelMap;
  // It can be moved in before its labels are drawn.
  const isLive = scan ? scene !== undefined && scanShown === scan : ready;
  const [error, setError] = useState<unknown>();
  const [range, setRange] = useState<ValueRange>();
  const [presets, setPresets] = useState<readonly WindowPreset[]>([]);
  const [window, setWindow] = useState<ShownWindow>();
  const [position, setPosition] = useState<Vec3>();
  const moved = useEffectEvent((at: Vec3, clicked: boolean) => {
    setPosition(at);
    onMove?.(at, clicked);
  });
  const currentPlace = useEffectEvent(() => place.current!);
  const currentLabels = useEffectEvent(() => labels);
  const hasScan = useEffectEvent(() => scan !== undefined);
  const start = useEffectEvent(() => ({ automatic: sampled!.automatic, first: firstWindow! }));
  const presetsFor = useEffectEvent((automatic: Window, range: ValueRange) =>
    windowPresets(display ?? {}, automatic, range),
  );

  useEffect(() => {
    let placed: PlacedScene | undefined;
    let closed = false;
    (async () => {
      placed = await placeScene(currentPlace(), (at, clicked) => moved(at, clicked));
      if (closed) placed.close();
      else setScene(placed.scene);
    })().catch((fault) => !closed && setError(fault));
    return () => {
      closed = true;
      placed?.close();
      setScene(undefined);
    };
  }, []);

  useEffect(() => {
    if (scan) setPosition(centreOf(scan));
  }, [scan]);
  // Scan and labels are set apart, so that another label map leaves all else as it is.
  useEffect(() => {
    if (!scene || !scan) return;
    let stale = false;
    setScanShown(undefined);
    setError(undefined);
    const { automatic, first } = start();
    // Preparing all voxels would delay the slices that are seen meanwhile.
    const seen = nextFrameSeen();
    firstSeen.current = seen;
    (async () => {
      await seen;
      if (stale) return;
      const found = await scene.setScan(scan, first);
      if (!found || stale) return;
      const offered = presetsFor(automatic, found);
      setPresets(offered);
      setRange(found);
      setWindow(offered[0]);
      // With the scan, in the same frame: one texture.
      const { level, width } = offered[0];
      scene.setWindow(level - width / 2, level + width / 2);
      scene.goTo(centreOf(scan));
      setDetail(scene.detail());
      setScanShown(scan);
    })().catch((fault) => !stale && setError(fault));
    return () => {
      stale = true;
    };
  }, [scene, scan]);
  useEffect(() => {
    if (!scene) return;
    let stale = false;
    (async () => {
      await firstSeen.current;
      if (stale) return;
      await scene.setLabels(labelMap, () => currentLabels());
      if (stale) return;
      if (labelMap && !hasScan() && !centred.current) scene.goTo(centreOf(labelMap));
      centred.current ||= labelMap !== undefined;
      setDetail(scene.detail());
      setLabelsShown(labelMap);
    })().catch((fault) => !stale && setError(fault));
    return () => {
      stale = true;
    };
  }, [scene, labelMap]);
  const drawFully = useCallback(async () => {
    try {
      await scene?.drawFully();
      if (scene) setDetail(scene.detail());
    } catch (fault) {
      setError(fault);
    }
  }, [scene]);
  const isCoarse = ready && detail !== undefined && detail.factor > 1;
  useEffect(() => {
    if (!isCoarse || detail?.isSoftware || typeof requestIdleCallback === 'undefined') return;
    const idle = requestIdleCallback(() => void drawFully());
    return () => cancelIdleCallback(idle);
  }, [isCoarse, detail, drawFully]);

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
    if (isLive && window) scene?.setWindow(window.level - window.width / 2, window.level + window.width / 2);
  }, [scene, isLive, window]);
  useEffect(() => {
    if (isLive && target) scene?.goTo(target.position);
  }, [scene, isLive, target]);

  return {
    scene,
    ready,
    isLive,
    isStale: scanShown !== scan,
    firstWindow,
    error,
    setError,
    presets,
    range,
    window,
    setWindow,
    position,
    detail,
    drawFully,
  };
}

/** Keeps the view, its large plane, and the opacity of the labels, 0 to 1. */
export function useLook(scene: Scene | undefined, view: View, main: Plane, opacity: number): void {
  useEffect(() => scene?.setOpacity(opacity), [scene, opacity]);
  useEffect(() => scene?.setView(view), [scene, view]);
  useEffect(() => scene?.setPlane(main), [scene, main]);
}
