import type { InputParameter } from '@tomaat/client';
import { formatPoints, parsePoints, type Vec3 } from '@tomaat/core';
import { useState } from 'react';
import { Checkbox, Label, Radio, RadioGroup } from 'react-aria-components';
import { formatBytes, formatMm } from '../format.ts';
import { faultOf } from '../ui.tsx';
import type { InputOf, ServiceInput } from './inputs.ts';
import { transformPicker } from './scan.ts';
import { PlainSlider } from './slider.tsx';

/** The field of a parameter, according to its type. */
export function ParameterField({
  input,
  value,
  onChange,
}: {
  input: ServiceInput;
  value: InputParameter;
  onChange(value: InputParameter): void;
}) {
  const label = input.label ?? input.name;
  const help = input.description && <p className="fine">{input.description}</p>;
  if (input.type === 'slider') {
    const step = input.step ?? niceStep(input.maximum - input.minimum);
    return (
      <div className="field">
        <PlainSlider
          label={label}
          value={value as number}
          minimum={input.minimum}
          maximum={input.maximum}
          step={step}
          format={(number) => `${Number(number.toFixed(6))}${input.unit ? ` ${input.unit}` : ''}`}
          onChange={onChange}
        />
        {help}
      </div>
    );
  }
  if (input.type === 'checkbox') {
    return (
      <div className="field">
        <Checkbox className="checkbox" isSelected={value as boolean} onChange={onChange}>
          <span className="box" aria-hidden="true" />
          {label}
        </Checkbox>
        {help}
      </div>
    );
  }
  if (input.type === 'radiobutton') {
    return (
      <div className="field">
        <RadioGroup className="radios" value={value as string} onChange={onChange}>
          <Label>{label}</Label>
          {input.options.map((option) => (
            <Radio key={option} value={option}>
              <span className="dot" aria-hidden="true" />
              {option}
            </Radio>
          ))}
        </RadioGroup>
        {help}
      </div>
    );
  }
  return null;
}

function niceStep(span: number): number {
  const power = 10 ** Math.floor(Math.log10(span / 100));
  return power;
}

/** Points: placed by clicking in the preview, or typed. */
export function PointsField({
  input,
  points,
  placing,
  canPlace,
  onPlacing,
  onChange,
}: {
  input: InputOf<'fiducials'>;
  points: readonly Vec3[];
  placing: boolean;
  canPlace: boolean;
  onPlacing(placing: boolean): void;
  onChange(points: readonly Vec3[]): void;
}) {
  const [draft, setDraft] = useState<string>();
  const [fault, setFault] = useState<string>();
  const label = input.label ?? input.name;
  const id = `points-${input.name}`;
  const take = (text: string) => {
    try {
      onChange(parsePoints(text, input.name));
      setDraft(undefined);
      setFault(undefined);
    } catch (error) {
      setFault(faultOf(error).message);
    }
  };
  return (
    <section className="field" aria-labelledby={id}>
      <h2 id={id}>
        {label}
        {input.optional && <span className="fine"> optional</span>}
      </h2>
      {input.description && <p className="fine">{input.description}</p>}
      <p className="fine">
        {input.minimumPoints === input.maximumPoints
          ? `${input.minimumPoints} points`
          : `At least ${input.minimumPoints} ${input.minimumPoints === 1 ? 'point' : 'points'}`}
        , in mm (right, anterior, superior).
      </p>
      <button
        type="button"
        className={placing ? '' : 'quiet'}
        aria-pressed={placing}
        disabled={!canPlace}
        onClick={() => onPlacing(!placing)}
      >
        {placing
          ? 'Click in the slices to add points; press here to stop'
          : canPlace
            ? 'Place points in the slices'
            : 'Drop a volume to place points in it'}
      </button>
      {points.length > 0 && (
        <ol className="points">
          {points.map((point, i) => (
            // biome-ignore lint/suspicious/noArrayIndexKey: a point is its place in the list
            <li key={`${i} ${point.join()}`}>
              <span>{point.map(formatMm).join(', ')}</span>
              <button
                type="button"
                className="quiet small"
                aria-label={`Remove point ${i + 1}`}
                onClick={() => onChange(points.filter((_, j) => j !== i))}
              >
                Remove
              </button>
            </li>
          ))}
        </ol>
      )}
      <label className="stacked">
        As text: x,y,z;x,y,z
        <input
          value={draft ?? formatPoints(points)}
          aria-invalid={fault !== undefined}
          aria-describedby={fault ? `${id}-fault` : undefined}
          onChange={(event) => setDraft(event.target.value)}
          onBlur={() => draft !== undefined && take(draft)}
          onKeyDown={(event) => event.key === 'Enter' && draft !== undefined && take(draft)}
        />
      </label>
      {fault && (
        <p id={`${id}-fault`} className="field-fault" role="alert">
          {fault}
        </p>
      )}
    </section>
  );
}

export function TransformField({
  input,
  file,
  onChange,
}: {
  input: InputOf<'transform'>;
  file?: File;
  onChange(file: File | undefined): void;
}) {
  return (
    <div className="field">
      <label className="stacked">
        <span>
          {input.label ?? input.name}
          {input.optional && <span className="fine"> optional</span>}
        </span>
        <input
          type="file"
          accept={transformPicker.join(',')}
          onChange={(event) => onChange(event.target.files?.[0])}
        />
      </label>
      {input.description && <p className="fine">{input.description}</p>}
      {file && <p className="fine">{formatBytes(file.size)}</p>}
    </div>
  );
}
