import type { Mesh, Vec3, Volume } from '@tomaat/core';
import { type CSSProperties, useEffect, useEffectEvent, useRef, useState } from 'react';
import { PlainSlider } from '../form/slider.tsx';
import { faultOf, Problem } from '../ui.tsx';
import { FirstSlices } from './first-slices-view.tsx';
import { Help } from './help.tsx';
import type { LabelStyle } from './labels.ts';
import type { View } from './layouts.ts';
import { Overlay } from './overlay.tsx';
import { HoverLine, Position } from './position.tsx';
import { Resolution } from './resolution.tsx';
import { Toolbar } from './toolbar.tsx';
import { useControls } from './use-controls.ts';
import { useHeldInput } from './use-held-input.ts';
import { useLook, useScene } from './use-scene.ts';
import { WindowField, WindowNumbers } from './window-controls.tsx';
import type { ScanDisplay } from './windows.ts';

export { openAhead } from './scene-place.ts';

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
  /** What is shown first; what the user chose last if missing. */
  firstView?: View;
  /** Said until there is something to show; the viewer is opened meanwhile. */
  waiting?: string;
  /** A line below screenshots: what computed the result. */
  caption?: string;
  /** What is to be shown is drawn, or cannot be. */
  onSettled?(): void;
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
  firstView,
  waiting,
  caption,
  onSettled,
  onMove,
}: ViewerProps) {
  const viewer = useRef<HTMLDivElement>(null);
  const frame = useRef<HTMLDivElement>(null);
  const place = useRef<HTMLDivElement>(null);
  const [opacity, setOpacity] = useState(0.55);
  const drawn = { scan, labelMap, labels, mesh, points, display, target, onMove };
  const {
    scene,
    ready,
    isLive,
    isStale,
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
  } = useScene(place, drawn);
  useHeldInput(frame, scan !== undefined && !isLive && error === undefined, isLive);
  const controls = useControls({
    viewer,
    frame,
    scene: isLive ? scene : undefined,
    scan,
    labelMap,
    labels,
    position,
    window,
    range,
    detail,
    setWindow,
    firstView,
    caption,
    onFault: setError,
  });
  const { view, main } = controls.kept;
  // Outlines take the place of the filled labels, which the 3-D view is made of.
  const isFilled = !controls.isOutlined || view === 'all' || view === '3d';
  useLook(scene, view, main, isFilled ? opacity : 0);
  const isFirst =
    scan !== undefined && firstWindow !== undefined && isStale && view !== '3d' && error === undefined;
  const isSettled = ready || error !== undefined;
  const settled = useEffectEvent(() => onSettled?.());
  useEffect(() => {
    if (isSettled) settled();
  }, [isSettled]);
  const isEmpty = scan === undefined && labelMap === undefined && mesh === undefined;
  return (
    <div
      ref={viewer}
      className={`viewer${plain ? ' plain-viewer' : ''}${controls.isFull ? ' full-viewer' : ''}`}
      data-ready={ready}
      data-stale={isStale}
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
        <div ref={place} />
        {isFirst && <FirstSlices scan={scan} window={firstWindow} view={view} main={main} />}
        {isLive && scene && controls.content && <Overlay scene={scene} content={controls.content} />}
        {isLive && scene && (
          <HoverLine frame={frame} scene={scene} scan={scan} labelMap={labelMap} labels={labels} />
        )}
        {error !== undefined && <Problem fault={faultOf(error)} />}
        {!isLive && !isFirst && error === undefined && (
          <p className="canvas-note">{isEmpty && waiting ? waiting : 'Opening the viewer …'}</p>
        )}
      </div>
      {ready && <Resolution detail={detail} hasLabels={labelMap !== undefined} onFull={drawFully} />}
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
