import type { StoredWindow } from '@tomaat/core';

/** What is known about how a scan is to be shown. */
export interface ScanDisplay {
  readonly modality?: string;
  /** Windows that a DICOM series states itself. */
  readonly windows?: readonly StoredWindow[];
  /** Unit of the values, if the files state it. */
  readonly units?: string;
}

/** The values that are drawn from black to white: `level` ± half of `width`. */
export interface Window {
  readonly level: number;
  readonly width: number;
}

export interface WindowPreset extends Window {
  readonly name: string;
}

export interface ValueRange {
  readonly lowest: number;
  readonly highest: number;
}

/** The usual windows on CT, HU. */
export const ctWindows: readonly WindowPreset[] = [
  { name: 'Soft tissue', level: 40, width: 400 },
  { name: 'Lung', level: -600, width: 1500 },
  { name: 'Bone', level: 400, width: 1800 },
  { name: 'Brain', level: 40, width: 80 },
  { name: 'Mediastinum', level: 50, width: 350 },
  { name: 'Liver', level: 30, width: 150 },
];

/**
 * The windows that are offered for a scan, each by another name; the first one is shown at the beginning. Those of the
 * series come first: the scanner or the technologist chose them. Those of CT are for Hounsfield units alone; the
 * values of other modalities have no common scale.
 *
 * @param automatic from the percentiles of the values
 */
export function windowPresets(
  { modality, windows = [], units }: ScanDisplay,
  automatic: Window,
  { lowest, highest }: ValueRange,
): WindowPreset[] {
  // A window beside all values would show a black or white picture.
  const isVisible = ({ level, width }: Window) => level - width / 2 < highest && level + width / 2 > lowest;
  const stored = windows.filter(
    (window, i) => isVisible(window) && windows.findIndex((other) => isSameWindow(other, window)) === i,
  );
  const isHounsfield = modality?.toUpperCase() === 'CT' && (units === undefined || units === 'HU');
  return [
    ...storedPresets(stored),
    { name: 'Automatic', ...automatic },
    ...(isHounsfield ? ctWindows : fullRange(lowest, highest)),
  ];
}

const longestName = 40;

function storedPresets(windows: readonly StoredWindow[]): WindowPreset[] {
  const given = windows.map(({ name }) => name?.slice(0, longestName));
  return windows.map(({ level, width }, i) => {
    const isUnique = given[i] !== undefined && given.indexOf(given[i]) === given.lastIndexOf(given[i]);
    const which = isUnique ? given[i] : windows.length > 1 ? String(i + 1) : undefined;
    return { name: which === undefined ? 'As stored' : `As stored: ${which}`, level, width };
  });
}

const fullRange = (lowest: number, highest: number): WindowPreset[] =>
  highest > lowest ? [{ name: 'Full range', level: (lowest + highest) / 2, width: highest - lowest }] : [];

export const isSameWindow = (a: Window, b: Window): boolean => a.level === b.level && a.width === b.width;

/** The smallest change of a window that matters: 1, or a round number near a 500th of a small range. */
export function windowStep({ lowest, highest }: ValueRange): number {
  const span = highest - lowest;
  if (span > 500 || !(span > 0)) return 1;
  const decade = 10 ** Math.floor(Math.log10(span / 500));
  return [1, 2, 5].map((digit) => digit * decade).findLast((step) => step <= span / 500) ?? decade;
}

/**
 * The window after a drag, as DICOM viewers have it: to the right wider, upwards brighter. The way that changes it by its own
 * width is the same for every scale of values.
 *
 * @param across CSS pixels to the right
 * @param down CSS pixels downwards
 */
export function dragWindow(start: Window, across: number, down: number, range: ValueRange): Window {
  const step = windowStep(range);
  const perPixel = Math.max(start.width, step * 10) / 250;
  const toStep = (value: number) => (step >= 1 ? Math.round(value) : value);
  return {
    level: toStep(start.level + down * perPixel),
    width: Math.max(step, toStep(start.width + across * perPixel)),
  };
}

export const formatValue = (value: number): string =>
  Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
