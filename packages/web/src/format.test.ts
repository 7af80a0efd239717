import { describe, expect, it } from 'vitest';
import { deviceName, formatRelative, formatTime } from './format.ts';

describe('formatRelative()', () => {
  const now = Date.parse('2026-03-01T12:00:00Z');
  const at = (seconds: number) => new Date(now + seconds * 1000).toISOString();

  it.each([
    [0, 'just now'],
    [-59, 'just now'],
    [-60, '1 minute ago'],
    [-180, '3 minutes ago'],
    [59, 'in less than a minute'],
    [3569, 'in 59 minutes'],
    [3571, 'in 1 hour'],
    [-3599, '1 hour ago'],
    [23 * 3600, 'in 23 hours'],
    [-86_399, '1 day ago'],
    [7 * 86_400, 'in 7 days'],
  ])('says what is %d s away', (seconds, text) => {
    expect(formatRelative(at(seconds), now)).toBe(text);
  });

  it('gives times more than a week away, and what is no time, as they are', () => {
    expect(formatRelative(at(-8 * 86_400), now)).toBe(formatTime(at(-8 * 86_400)));
    expect(formatRelative('soon', now)).toBe('soon');
  });
});

describe('deviceName()', () => {
  it.each([
    ['cpu', 'CPU'],
    ['cuda', 'CUDA'],
    ['cuda:1', 'CUDA, card 1'],
    ['webgpu', 'WebGPU'],
    ['npu', 'npu'],
  ])('of %s is %s', (device, name) => {
    expect(deviceName(device)).toBe(name);
  });
});
