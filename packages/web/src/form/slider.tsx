import { Label, Slider, SliderOutput, SliderThumb, SliderTrack } from 'react-aria-components';

/** A slider with its name and its value. */
export function PlainSlider({
  label,
  value,
  minimum,
  maximum,
  step,
  format,
  onChange,
}: {
  label: string;
  value: number;
  minimum: number;
  maximum: number;
  step: number;
  format(value: number): string;
  onChange(value: number): void;
}) {
  return (
    <Slider
      className="slider"
      value={value}
      minValue={minimum}
      maxValue={maximum}
      step={step}
      onChange={onChange}
    >
      <Label>{label}</Label>
      <SliderOutput>{format(value)}</SliderOutput>
      <SliderTrack>
        {({ state }) => (
          <>
            <div className="slider-fill" style={{ width: `${state.getThumbPercent(0) * 100}%` }} />
            <SliderThumb />
          </>
        )}
      </SliderTrack>
    </Slider>
  );
}
