import { describe, expect, it } from 'vitest';
import { arrange, aspectOf, coverage, type Tile, views } from './layouts.ts';

const rooms = [
  { width: 880, height: 612, gap: 6 },
  { width: 1400, height: 820, gap: 6 },
  { width: 600, height: 520, gap: 6 },
  { width: 356, height: 409, gap: 6 },
];
/** A wide CT, a tall one, a brain, a stack of few slices, mm. */
const extents = [
  [500, 340, 160],
  [350, 350, 900],
  [160, 210, 180],
  [180, 180, 8],
] as const;

const overlap = (a: Tile, b: Tile) =>
  Math.min(a.left + a.width, b.left + b.width) - Math.max(a.left, b.left) > 1e-9 &&
  Math.min(a.top + a.height, b.top + b.height) - Math.max(a.top, b.top) > 1e-9;

describe('arrange()', () => {
  it.each(views)('keeps the tiles of %s on the canvas, and apart', (view) => {
    for (const room of rooms) {
      for (const extent of extents) {
        const tiles = arrange(view, 'coronal', extent, room);
        for (const [i, tile] of tiles.entries()) {
          expect(Math.min(tile.left, tile.top)).toBeGreaterThanOrEqual(0);
          expect(Math.min(tile.width, tile.height)).toBeGreaterThanOrEqual(1);
          expect(tile.left + tile.width).toBeLessThanOrEqual(room.width + 1e-9);
          expect(tile.top + tile.height).toBeLessThanOrEqual(room.height + 1e-9);
          for (const other of tiles.slice(i + 1)) expect(overlap(tile, other)).toBe(false);
        }
      }
    }
  });

  it('shows each plane once, the large one first', () => {
    const ofs = (view: (typeof views)[number]) =>
      arrange(view, 'sagittal', extents[0], rooms[0]).map((tile) => tile.of);
    expect(ofs('slices')).toEqual(['sagittal', 'axial', 'coronal']);
    expect(ofs('row')).toEqual(['axial', 'coronal', 'sagittal']);
    expect(ofs('one')).toEqual(['sagittal']);
    expect(ofs('all')).toEqual(['sagittal', 'axial', 'coronal', '3d']);
    expect(ofs('3d')).toEqual(['3d']);
  });

  it('covers more than half of the canvas on a wide CT', () => {
    for (const room of rooms) {
      const found = coverage(arrange('slices', 'axial', extents[0], room), extents[0], room);
      expect(found, `${room.width}`).toBeGreaterThan(0.55);
    }
  });

  it('gives the large plane the most room', () => {
    for (const room of rooms) {
      for (const extent of extents) {
        const [first, ...others] = arrange('slices', 'axial', extent, room);
        for (const { width, height } of others)
          expect(first.width * first.height).toBeGreaterThanOrEqual(width * height);
      }
    }
  });
});

describe('aspectOf()', () => {
  it('is width by height of each plane', () => {
    expect([
      aspectOf('axial', [6, 3, 2]),
      aspectOf('coronal', [6, 3, 2]),
      aspectOf('sagittal', [6, 3, 2]),
    ]).toEqual([2, 3, 1.5]);
  });
});
