import type { Vec3 } from '@tomaat/core';

/** How the canvas is divided among the planes and the 3-D view. */

export const planes = ['axial', 'coronal', 'sagittal'] as const;
export type Plane = (typeof planes)[number];

/** 'slices': one large plane and the other two. 'row': three of equal rank. 'all': 'slices' with the 3-D view. */
export const views = ['slices', 'row', 'one', 'all', '3d'] as const;
export type View = (typeof views)[number];

/** A part of the canvas, all in the unit of its width and height. */
export interface Tile {
  readonly of: Plane | '3d';
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

export interface Room {
  readonly width: number;
  readonly height: number;
  /** Between tiles. */
  readonly gap: number;
}

/**
 * The tiles of a view that leave the least of the canvas empty.
 *
 * @param main the large plane
 * @param extent of the volume along the axes nearest to R, A and S, mm
 */
export function arrange(view: View, main: Plane, extent: Vec3, room: Room): Tile[] {
  const others = planes.filter((plane) => plane !== main);
  if (view === '3d') return [{ of: '3d', left: 0, top: 0, width: room.width, height: room.height }];
  if (view === 'one') return [{ of: main, left: 0, top: 0, width: room.width, height: room.height }];
  const shapeOf = (of: Tile['of']) => ({ of, aspect: of === '3d' ? 1 : aspectOf(of, extent) });
  const candidates =
    view === 'row'
      ? [line(planes.map(shapeOf), room, true), line(planes.map(shapeOf), room, false)]
      : view === 'all'
        ? besideMain(shapeOf(main), [...others, '3d' as const].map(shapeOf), room, 64)
        : besideMain(shapeOf(main), others.map(shapeOf), room, 75);
  return best(candidates, extent);
}

/** Width by height of what a plane shows. */
export const aspectOf = (plane: Plane, [r, a, s]: Vec3): number =>
  plane === 'axial' ? r / a : plane === 'coronal' ? r / s : a / s;

/** The part of the canvas that is drawn on, from 0 to 1. */
export function coverage(tiles: readonly Tile[], extent: Vec3, { width, height }: Room): number {
  return tiles.reduce((sum, tile) => sum + drawnArea(tile, extent), 0) / (width * height);
}

function drawnArea({ of, width, height }: Tile, extent: Vec3): number {
  if (of === '3d') return width * height;
  const aspect = aspectOf(of, extent);
  return Math.min(width, height * aspect) * Math.min(height, width / aspect);
}

interface Shape {
  readonly of: Tile['of'];
  readonly aspect: number;
}

/** Tiles next to each other, of one height, or below each other, of one width. */
function line(
  shapes: readonly Shape[],
  { width, height, gap }: Room,
  across: boolean,
  left = 0,
  top = 0,
): Tile[] {
  const long = (across ? width : height) - gap * (shapes.length - 1);
  // Never less than a quarter of an even share: a stack of few slices is still to be seen.
  const weights = shapes.map(({ aspect }) => (across ? aspect : 1 / aspect));
  const mean = weights.reduce((a, b) => a + b, 0) / shapes.length;
  const lifted = weights.map((weight) => Math.max(weight, mean / 4));
  const total = lifted.reduce((a, b) => a + b, 0);
  let at = 0;
  return shapes.map(({ of }, i) => {
    const share = Math.max(1, (long * lifted[i]) / total);
    const tile = across
      ? { of, left: left + at, top, width: share, height }
      : { of, left, top: top + at, width, height: share };
    at += share + gap;
    return tile;
  });
}

/**
 * The main plane left of the others, or above them, at several sizes.
 *
 * @param most percent of the canvas for the main plane: beyond it the others are too small to find one's way
 */
function besideMain(main: Shape, others: readonly Shape[], room: Room, most: number): Tile[][] {
  const { width, height, gap } = room;
  const found: Tile[][] = [];
  for (let percent = 50; percent <= most; percent++) {
    const wide = (width - gap) * (percent / 100);
    found.push([
      { of: main.of, left: 0, top: 0, width: wide, height },
      ...line(others, { width: width - gap - wide, height, gap }, false, wide + gap, 0),
    ]);
    const tall = (height - gap) * (percent / 100);
    found.push([
      { of: main.of, left: 0, top: 0, width, height: tall },
      ...line(others, { width, height: height - gap - tall, gap }, true, 0, tall + gap),
    ]);
  }
  // The large plane is the largest, where there is a choice.
  const isLed = (tiles: Tile[]) =>
    tiles.every(({ of, width, height }) => of === '3d' || width * height <= tiles[0].width * tiles[0].height);
  const led = found.filter(isLed);
  return led.length > 0 ? led : found;
}

function best(candidates: readonly Tile[][], extent: Vec3): Tile[] {
  // What the large plane covers counts more: it is the one that is read.
  const score = (tiles: readonly Tile[]) =>
    tiles.reduce((sum, tile) => sum + drawnArea(tile, extent), 0) + drawnArea(tiles[0], extent) / 2;
  return candidates.reduce((a, b) => (score(b) > score(a) ? b : a));
}

// ---- The choice, kept in this browser ----

export interface KeptView {
  readonly view: View;
  readonly main: Plane;
}

const key = 'tomaat.view';

export function keptView(): KeptView {
  try {
    const { view, main } = JSON.parse(localStorage.getItem(key) ?? '{}') as Partial<KeptView>;
    return {
      view: views.find((one) => one === view) ?? 'slices',
      main: planes.find((one) => one === main) ?? 'axial',
    };
  } catch {
    return { view: 'slices', main: 'axial' };
  }
}

export function keepView(kept: KeptView): void {
  try {
    localStorage.setItem(key, JSON.stringify(kept));
  } catch {
    // Without storage the choice lasts as long as the page.
  }
}
