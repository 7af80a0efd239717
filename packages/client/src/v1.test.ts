import { describe, expect, it } from 'vitest';
import { startValueV1 } from './v1.ts';

const slider = (minimum: number, maximum: number, stated?: unknown) =>
  startValueV1({ type: 'slider', destination: 'x', minimum, maximum, default: stated as number });

describe('startValueV1()', () => {
  it('takes the stated default of a slider, within its limits', () => {
    expect(slider(-950, 150, -350)).toBe(-350);
    expect(slider(0, 10, '6')).toBe(6);
    expect(slider(0, 10, 0)).toBe(0);
    expect(slider(0, 10, 99)).toBe(10);
    expect(slider(0, 10, -99)).toBe(0);
  });

  it('starts a slider where the 3D Slicer extension does', () => {
    expect(slider(0, 1)).toBe(0.5);
    expect(slider(2, 10)).toBe(4);
    expect(slider(-200, 100)).toBe(100);
    expect(slider(-100, -50)).toBe(-50);
    expect(slider(90, 100)).toBe(90);
    for (const bad of ['', 'much', true, Number.NaN]) expect(slider(0, 10, bad)).toBe(5);
  });

  it('leaves a checkbox unchecked and chooses the first option', () => {
    const element = { destination: 'x', options: ['a', 'b'] };
    expect(startValueV1({ type: 'checkbox', ...element })).toBe(false);
    expect(startValueV1({ type: 'checkbox', ...element, default: true })).toBe(true);
    expect(startValueV1({ type: 'checkbox', ...element, default: 'True' })).toBe(true);
    expect(startValueV1({ type: 'radiobutton', ...element })).toBe('a');
    expect(startValueV1({ type: 'radiobutton', ...element, default: 'b' })).toBe('b');
    expect(startValueV1({ type: 'radiobutton', ...element, default: 'c' })).toBe('a');
  });

  it('has no value for files and points', () => {
    for (const type of ['volume', 'fiducials', 'transform', 'hologram'])
      expect(startValueV1({ type, destination: 'x' })).toBeUndefined();
  });
});
