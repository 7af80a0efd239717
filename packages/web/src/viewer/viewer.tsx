import { applyAffine, type Mesh, type Vec3, type Volume } from '@tomaat/core';
import { type CSSProperties, useEffect, useEffectEvent, useRef, useState } from 'react';
import { PlainSlider } from '../form/slider.tsx';
import { faultOf, Problem } from '../ui.tsx';
import { Help } from './help.tsx';
import { Overlay } from './overlay.tsx';
import { HoverLine, Position } from './position.tsx';
import type { LabelStyle, Scene } from './scene.ts';
import { Toolbar } from './toolbar.tsx';
import { useControls } from './use-controls.ts';
import { type ShownWindow, WindowField, WindowNumbers } from './window-controls.tsx';
import {
  type ScanDisplay,
  type ValueRange,
  type Window,
  type WindowPreset,
  windowPresets,
} from './windows.ts';

export interface ViewerProps {
  scan?: Volume;
  labelMap?: Volume;
  labels?: readonly LabelStyle[];
  mesh?: Mesh;
  points?: readonly Vec3[];
  /** What is known about how the scan is to be shown. */
  display?: ScanDisplay;
  /** A new object moves the crosshair there; RAS+ mm. */
  target?: { position: Vec3 };
  /** Fewer controls, for a preview. */
  plain?: boolean;
  /** A line below screenshots: what computed the result. */
  caption?: string;
  onMove?(position: Vec3, clicked: boolean): void;
}

/** Slices and 3-D view of a scan with its labels. Everything that is drawn stays in this browser. */
export function Viewer({
  scan,
  labelMap,
  labels = [],
  mesh,
  points,
  display,
  target,
  plain = false,
  caption,
  onMove,
}: ViewerProps) {
  const viewer = useRef<HTMLDivElement>(null);
  const frame = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [scene, setScene] = useState<Scene>();
  const [ready, setReady] = useState(false);
  const [error, setError] = useState<unknown>();
  const [opacity, setOpacity] = useState(0.55);
  const [range, setRange] = useState<ValueRange>();
  const [presets, setPresets] = useState<readonly WindowPreset[]>([]);
  const [window, setWindow] = useState<ShownWindow>();
  const [position, setPosition] = useState<Vec3>();
  const moved = useEffectEvent((at: Vec3, clicked: boolean) => {
    setPosition(at);
    onMove?.(at, clicked);
  });
  const controls = useControls({
    viewer,
    frame,
    scene: ready ? scene : undefined,
    scan,
    labelMap,
    labels,
    position,
    window,
    range,
    setWindow,
    caption,
    onFault: setError,
  });
  const { view } = controls.kept;
  // Outlines take the place of the filled labels, which the 3-D view is made of.
  const shownOpacity = controls.isOutlined && view !== 'all' && view !== '3d' ? 0 : opacity;
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
    if (ready) scene?.setOpacity(shownOpacity);
  }, [scene, ready, shownOpacity]);
  useEffect(() => {
    if (ready && window) scene?.setWindow(window.level - window.width / 2, window.level + window.width / 2);
  }, [scene, ready, window]);
  useEffect(() => {
    if (ready) scene?.setView(view);
  }, [scene, ready, view]);
  useEffect(() => {
    if (ready && target) scene?.goTo(target.position);
  }, [scene, ready, target]);

  const isShown = ready && scene !== undefined;
  return (
    <div
      ref={viewer}
      className={`viewer${plain ? ' plain-viewer' : ''}${controls.isFull ? ' full-viewer' : ''}`}
      data-ready={ready}
    >
      <Toolbar controls={controls} plain={plain} />
      <div
        ref={frame}
        // The keys are the picture's: a screen reader passes them on.
        role="application"
        aria-label="Picture"
        className="canvas-frame"
        data-tool={controls.tool}
        data-view={view}
        style={{ '--row-aspect': controls.rowAspect } as CSSProperties}
        data-touched={controls.isTouched || controls.isFull}
      >
        <canvas
          ref={canvas}
          aria-label="Slices through the volume; the position of the crosshair is given below. Press the question mark for the keys"
        />
        {isShown && controls.content && <Overlay scene={scene} content={controls.content} />}
        {isShown && <HoverLine frame={frame} scene={scene} scan={scan} labelMap={labelMap} labels={labels} />}
        {error !== undefined && <Problem fault={faultOf(error)} />}
        {!ready && error === undefined && <p className="canvas-note">Opening the viewer …</p>}
      </div>
      <p className="touch-note">
        {controls.isTouched || controls.isFull
          ? 'One finger moves in the picture, two zoom.'
          : 'Tap the picture to move in it with your finger.'}
      </p>
      <Position
        position={position}
        scan={scan}
        labelMap={labelMap}
        labels={labels}
        onGo={(at) => scene?.goTo(at)}
      />
      <div className="viewer-controls">
        {scan && window && <WindowField presets={presets} window={window} onChange={setWindow} />}
        {labelMap && (
          <PlainSlider
            label="Label opacity"
            value={opacity}
            minimum={0}
            maximum={1}
            step={0.05}
            format={(value) => `${Math.round(value * 100)} %`}
            onChange={setOpacity}
          />
        )}
        {scan && window && range && !plain && (
          <WindowNumbers window={window} range={range} onChange={setWindow} />
        )}
      </div>
      {controls.isHelpOpen && <Help commands={controls.commands} onClose={controls.closeHelp} />}
    </div>
  );
}

/** The voxel in the middle, RAS+ mm. */
function centreOf({ affine, size }: Volume): Vec3 {
  const [x, y, z] = size.map((n) => Math.floor((n - 1) / 2));
  return applyAffine(affine, [x, y, z]);
}
