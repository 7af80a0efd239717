import { mmDigits, spacingOf, type Vec3, type Volume } from '@tomaat/core';
import { type RefObject, useEffect, useEffectEvent, useMemo, useState } from 'react';
import { createProbe, type LabelStyle } from './labels.ts';
import { NumberField } from './number-field.tsx';
import type { Scene } from './scene.ts';
import { formatValue } from './windows.ts';

interface Shown {
  scan?: Volume;
  labelMap?: Volume;
  labels: readonly LabelStyle[];
}

interface Found {
  /** The decimals that distinguish voxels. */
  readonly digits: number;
  readonly value?: string;
  readonly label?: string;
}

/** Reads what is at a position: the value of the scan, the name of the label. */
function useFinder({ scan, labelMap, labels }: Shown): (position: Vec3) => Found {
  const probeScan = useMemo(() => scan && createProbe(scan), [scan]);
  const probeLabel = useMemo(() => labelMap && createProbe(labelMap), [labelMap]);
  const shown = scan ?? labelMap;
  const digits = mmDigits(shown ? Math.min(...spacingOf(shown.affine)) : 1);
  return (position) => {
    const value = probeScan?.(position);
    const label = probeLabel?.(position);
    const name = label ? (labels.find((style) => style.value === label)?.name ?? `label ${label}`) : 'none';
    return {
      digits,
      value: value === undefined ? undefined : formatValue(value),
      label: probeLabel && name,
    };
  };
}

/** The position of the crosshair, and what is there; the fields also move it, for users without a pointer. */
export function Position({
  position,
  onGo,
  ...shown
}: Shown & { position?: Vec3; onGo(position: Vec3): void }) {
  const find = useFinder(shown);
  if (!position) return <div className="position" />;
  const { digits, value, label } = find(position);
  return (
    <div className="position">
      <fieldset>
        <legend>Crosshair, mm</legend>
        {(['R', 'A', 'S'] as const).map((axis, i) => (
          <NumberField
            key={axis}
            label={`Crosshair ${['right', 'anterior', 'superior'][i]}, mm`}
            shown={axis}
            hint={['to the right', 'to the front', 'upwards'][i]}
            value={position[i].toFixed(digits)}
            onChange={(mm) => onGo(position.with(i, mm) as unknown as Vec3)}
          />
        ))}
      </fieldset>
      {value !== undefined && (
        <span>
          Value <output data-testid="value">{value}</output>
        </span>
      )}
      {label !== undefined && (
        <span>
          Label <output data-testid="label">{label}</output>
        </span>
      )}
    </div>
  );
}

/** What is under the pointer, in a line over the picture. */
export function HoverLine({
  frame,
  scene,
  ...shown
}: Shown & { frame: RefObject<HTMLElement | null>; scene: Scene }) {
  const [position, setPosition] = useState<Vec3>();
  const find = useFinder(shown);
  const moved = useEffectEvent((event: PointerEvent) => {
    const box = frame.current!.getBoundingClientRect();
    const hit = scene.at(event.clientX - box.left, event.clientY - box.top);
    setPosition(hit && hit.plane !== '3d' ? hit.position : undefined);
  });
  useEffect(() => {
    const element = frame.current!;
    const move = (event: PointerEvent) => event.pointerType !== 'touch' && moved(event);
    const leave = () => setPosition(undefined);
    element.addEventListener('pointermove', move);
    element.addEventListener('pointerleave', leave);
    return () => {
      element.removeEventListener('pointermove', move);
      element.removeEventListener('pointerleave', leave);
    };
  }, [frame]);
  if (!position) return null;
  const { digits, value, label } = find(position);
  return (
    // The crosshair's line says the same to those who hear the page.
    <p className="hover-line" aria-hidden="true" data-testid="hover">
      {label !== undefined && label !== 'none' && <strong>{label}</strong>}
      {value !== undefined && <span>value {value}</span>}
      <span>{position.map((mm, i) => `${'RAS'[i]} ${mm.toFixed(digits)}`).join('  ')} mm</span>
    </p>
  );
}
