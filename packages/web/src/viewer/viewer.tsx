import { type Mesh, mmDigits, spacingOf, type Vec3, type Volume } from '@tomaat/core';
import { useMemo, useRef, useState } from 'react';
import { ToggleButton, ToggleButtonGroup } from 'react-aria-components';
import { PlainSlider } from '../form/slider.tsx';
import { faultOf, Problem } from '../ui.tsx';
import { createProbe } from './labels.ts';
import { Resolution } from './resolution.tsx';
import type { LabelStyle, View } from './scene.ts';
import { useScene } from './use-scene.ts';
import { isSameWindow, type ScanDisplay, type Window, type WindowPreset } from './windows.ts';

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
  /** What is shown first. */
  firstView?: View;
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
  firstView = 'slices',
  onMove,
}: ViewerProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [view, setView] = useState<View>(firstView);
  const [opacity, setOpacity] = useState(0.55);
  const { scene, ready, error, presets, range, window, setWindow, position, detail, drawFully } = useScene(
    canvas,
    {
      scan,
      labelMap,
      labels,
      mesh,
      points,
      display,
      target,
      view,
      opacity,
      onMove,
    },
  );

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
      {ready && <Resolution detail={detail} onFull={drawFully} />}
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
