import { describe, expect, it } from 'vitest';
import { ctWindows, dragWindow, windowPresets, windowStep } from './windows.ts';

const automatic = { level: 100, width: 900 };
const range = { lowest: -1024, highest: 1976 };
const namesOf = (...given: Parameters<typeof windowPresets>) =>
  windowPresets(...given).map(({ name }) => name);

describe('ctWindows', () => {
  it('are those of radiology, HU', () => {
    // Level and width as reading rooms set them (Radiopaedia, "Windowing (CT)").
    expect(ctWindows.map(({ name, level, width }) => [name, level, width])).toEqual([
      ['Soft tissue', 40, 400],
      ['Lung', -600, 1500],
      ['Bone', 400, 1800],
      ['Brain', 40, 80],
      ['Mediastinum', 50, 350],
      ['Liver', 30, 150],
    ]);
  });
});

describe('windowPresets()', () => {
  const ofCt = ['Soft tissue', 'Lung', 'Bone', 'Brain', 'Mediastinum', 'Liver'];

  it('puts the stored window first, then the automatic one', () => {
    const found = windowPresets({ modality: 'CT', windows: [{ level: 40, width: 80 }] }, automatic, range);
    expect(found.slice(0, 2)).toEqual([
      { name: 'As stored', level: 40, width: 80 },
      { name: 'Automatic', level: 100, width: 900 },
    ]);
    expect(found.slice(2).map(({ name }) => name)).toEqual(ofCt);
  });

  it('names several stored windows apart, and drops the same one', () => {
    const windows = [
      { level: 40, width: 400, name: 'WINDOW1' },
      { level: 40, width: 400, name: 'WINDOW2' },
      { level: -500, width: 1400, name: 'LUNG' },
      { level: 300, width: 1500 },
      { level: 10, width: 20, name: 'LUNG' },
    ];
    expect(namesOf({ modality: 'CT', windows }, automatic, range).slice(0, 4)).toEqual([
      'As stored: WINDOW1',
      'As stored: 2',
      'As stored: 3',
      'As stored: 4',
    ]);
  });

  it('leaves out a stored window beside all values', () => {
    const windows = [{ level: 40_000, width: 100 }];
    expect(namesOf({ modality: 'MR', windows }, automatic, range)).toEqual(['Automatic', 'Full range']);
  });

  it('offers the windows of CT for Hounsfield units alone', () => {
    expect(namesOf({ modality: 'ct' }, automatic, range)).toEqual(['Automatic', ...ofCt]);
    expect(namesOf({ modality: 'CT', units: 'HU' }, automatic, range)).toContain('Bone');
    expect(namesOf({ modality: 'CT', units: 'MGML' }, automatic, range)).not.toContain('Bone');
    expect(namesOf({ modality: 'MR', units: 'HU' }, automatic, range)).not.toContain('Bone');
    expect(namesOf({}, automatic, range)).not.toContain('Bone');
  });

  it('offers the full range of other modalities, if there is one', () => {
    expect(windowPresets({ modality: 'PT' }, automatic, range).at(-1)).toEqual({
      name: 'Full range',
      level: 476,
      width: 3000,
    });
    expect(namesOf({ modality: 'MR' }, automatic, { lowest: 7, highest: 7 })).toEqual(['Automatic']);
  });
});

describe('dragWindow()', () => {
  const start = { level: 40, width: 400 };

  it('widens to the right and brightens upwards', () => {
    // 250 pixels change by the window's own width.
    expect(dragWindow(start, 250, 0, range)).toEqual({ level: 40, width: 800 });
    expect(dragWindow(start, 0, -25, range)).toEqual({ level: 0, width: 400 });
    expect(dragWindow(start, -125, 50, range)).toEqual({ level: 120, width: 200 });
  });

  it('never makes the width 0 or negative', () => {
    expect(dragWindow(start, -9999, 0, range).width).toBe(1);
    const small = { lowest: 0, highest: 0.4 };
    expect(dragWindow({ level: 0.2, width: 0.1 }, -9999, 0, small).width).toBe(windowStep(small));
  });
});

describe('windowStep()', () => {
  it.each([
    [3000, 1],
    [450, 0.5],
    [100, 0.2],
    [1, 0.002],
    [0, 1],
  ])('is round for a range of %d', (highest, step) => {
    expect(windowStep({ lowest: 0, highest })).toBeCloseTo(step, 12);
  });
});
