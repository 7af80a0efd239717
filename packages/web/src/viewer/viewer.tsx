import { applyAffine, type Mesh, mmDigits, spacingOf, type Vec3, type Volume } from '@tomaat/core';
import { useEffect, useEffectEvent, useMemo, useRef, useState } from 'react';
import { ToggleButton, ToggleButtonGroup } from 'react-aria-components';
import { PlainSlider } from '../form/slider.tsx';
import { faultOf, Problem } from '../ui.tsx';
import { createProbe } from './labels.ts';
import type { LabelStyle, Scene, View } from './scene.ts';
import {
  isSameWindow,
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
  onMove?(position: Vec3, clicked: boolean): void;
}

const views: readonly { id: View; name: string }[] = [
  { id: 'slices', name: 'Slices' },
  { id: 'all', name: 'Slices and 3-D' },
  { id: '3d', name: '3-D' },
];

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
  onMove,
}: ViewerProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [scene, setScene] = useState<Scene>();
  const [ready, setReady] = useState(false);
  const [error, setError] = useState<unknown>();
  const [view, setView] = useState<View>('slices');
  const [opacity, setOpacity] = useState(0.55);
  const [range, setRange] = useState<ValueRange>();
  const [presets, setPresets] = useState<readonly WindowPreset[]>([]);
  const [window, setWindow] = useState<Window & { name?: string }>();
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

  return (
    <div className={plain ? 'viewer plain-viewer' : 'viewer'} data-ready={ready}>
      <div className="canvas-frame">
        <canvas
          ref={canvas}
          aria-label="Slices through the volume; the position of the crosshair is given below"
        />
        {error !== undefined && <Problem fault={faultOf(error)} />}
        {!ready && error === undefined && <p className="canvas-note">Opening the viewer …</p>}
      </div>
      <Position
        position={position}
        scan={scan}
        labelMap={labelMap}
        labels={labels}
        onGo={(at) => scene?.goTo(at)}
      />
      <div className="viewer-controls">
        <ToggleButtonGroup
          aria-label="View"
          className="segments"
          selectionMode="single"
          disallowEmptySelection
          selectedKeys={[view]}
          onSelectionChange={(keys) => setView([...keys][0] as View)}
        >
          {views.map(({ id, name }) => (
            <ToggleButton key={id} id={id}>
              {name}
            </ToggleButton>
          ))}
        </ToggleButtonGroup>
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
          <>
            <PlainSlider
              label="Level"
              value={window.level}
              minimum={Math.min(range.lowest, window.level)}
              maximum={Math.max(range.highest, window.level)}
              step={stepOf(range)}
              format={formatValue}
              onChange={(level) => setWindow({ level, width: window.width })}
            />
            <PlainSlider
              label="Width"
              value={window.width}
              minimum={stepOf(range)}
              maximum={Math.max(range.highest - range.lowest, window.width, stepOf(range) * 2)}
              step={stepOf(range)}
              format={formatValue}
              onChange={(width) => setWindow({ level: window.level, width })}
            />
          </>
        )}
      </div>
    </div>
  );
}

/** The windows by name, and which one is shown. */
function WindowField({
  presets,
  window,
  onChange,
}: {
  presets: readonly WindowPreset[];
  window: Window & { name?: string };
  onChange(preset: WindowPreset): void;
}) {
  const shown = window.name ?? presets.find((preset) => isSameWindow(preset, window))?.name;
  return (
    <label className="inline-field">
      Window
      <select
        value={shown ?? ''}
        onChange={(event) => {
          const preset = presets.find(({ name }) => name === event.target.value);
          if (preset) onChange(preset);
        }}
      >
        {shown === undefined && <option value="">Other</option>}
        {presets.map(({ name, level, width }) => (
          <option key={name} value={name}>
            {name} ({formatValue(level)} / {formatValue(width)})
          </option>
        ))}
      </select>
    </label>
  );
}

/** The voxel in the middle, RAS+ mm. */
function centreOf({ affine, size }: Volume): Vec3 {
  const [x, y, z] = size.map((n) => Math.floor((n - 1) / 2));
  return applyAffine(affine, [x, y, z]);
}

const stepOf = ({ lowest, highest }: { lowest: number; highest: number }) => {
  const span = highest - lowest;
  return span > 500 ? 1 : span > 0 ? span / 500 : 1;
};
const formatValue = (value: number) =>
  Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));

/** The position of the crosshair, and what is there; the fields also move it, for users without a pointer. */
function Position({
  position,
  scan,
  labelMap,
  labels,
  onGo,
}: {
  position?: Vec3;
  scan?: Volume;
  labelMap?: Volume;
  labels: readonly LabelStyle[];
  onGo(position: Vec3): void;
}) {
  const probeScan = useMemo(() => scan && createProbe(scan), [scan]);
  const probeLabel = useMemo(() => labelMap && createProbe(labelMap), [labelMap]);
  const [draft, setDraft] = useState<{ axis: number; text: string }>();
  if (!position) return <div className="position" />;
  const shown = scan ?? labelMap;
  const digits = mmDigits(shown ? Math.min(...spacingOf(shown.affine)) : 1);
  const value = probeScan?.(position);
  const label = probeLabel?.(position);
  const named = label ? (labels.find((style) => style.value === label)?.name ?? `label ${label}`) : 'none';
  const go = (axis: number, text: string) => {
    setDraft(undefined);
    const mm = Number(text);
    if (text.trim() !== '' && Number.isFinite(mm))
      onGo(position.map((old, i) => (i === axis ? mm : old)) as [number, number, number]);
  };
  return (
    <div className="position">
      <fieldset>
        <legend>Crosshair, mm</legend>
        {(['R', 'A', 'S'] as const).map((axis, i) => (
          <label key={axis}>
            <span title={['to the right', 'to the front', 'upwards'][i]}>{axis}</span>
            <input
              type="number"
              step="any"
              aria-label={`Crosshair ${['right', 'anterior', 'superior'][i]}, mm`}
              value={draft?.axis === i ? draft.text : position[i].toFixed(digits)}
              onChange={(event) => setDraft({ axis: i, text: event.target.value })}
              onBlur={() => draft?.axis === i && go(i, draft.text)}
              onKeyDown={(event) => event.key === 'Enter' && draft?.axis === i && go(i, draft.text)}
            />
          </label>
        ))}
      </fieldset>
      {value !== undefined && (
        <span>
          Value <output data-testid="value">{formatValue(value)}</output>
        </span>
      )}
      {probeLabel && (
        <span>
          Label <output data-testid="label">{named}</output>
        </span>
      )}
    </div>
  );
}
