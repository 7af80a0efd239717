import { PlainSlider } from '../form/slider.tsx';
import { NumberField } from './number-field.tsx';
import {
  formatValue,
  isSameWindow,
  type ValueRange,
  type Window,
  type WindowPreset,
  windowStep,
} from './windows.ts';

export interface ShownWindow extends Window {
  readonly name?: string;
}

interface WindowProps {
  presets: readonly WindowPreset[];
  window: ShownWindow;
  onChange(window: ShownWindow): void;
}

/** The windows by name, and which one is shown. */
export function WindowField({ presets, window, onChange }: WindowProps) {
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

/** Level and width, by slider and by number. */
export function WindowNumbers({
  window: { level, width },
  range,
  onChange,
}: Omit<WindowProps, 'presets'> & { range: ValueRange }) {
  const step = windowStep(range);
  const rows = [
    {
      name: 'Level',
      value: level,
      minimum: Math.floor(Math.min(range.lowest, level) / step) * step,
      maximum: Math.ceil(Math.max(range.highest, level) / step) * step,
      least: undefined,
      change: (value: number) => onChange({ level: value, width }),
    },
    {
      name: 'Width',
      value: width,
      minimum: Math.floor(Math.min(step, width) / step) * step,
      maximum: Math.ceil(Math.max(range.highest - range.lowest, width, step * 2) / step) * step,
      least: Math.min(step, 1e-6),
      change: (value: number) => onChange({ level, width: value }),
    },
  ];
  return rows.map(({ name, value, minimum, maximum, least, change }) => (
    <div className="slider-with-number" key={name}>
      <PlainSlider
        label={name}
        value={value}
        minimum={minimum}
        maximum={maximum}
        step={step}
        format={formatValue}
        onChange={change}
      />
      <NumberField
        label={`${name} as a number`}
        shown=""
        value={formatValue(value)}
        minimum={least}
        onChange={change}
      />
    </div>
  ));
}
