import type { Volume } from '@tomaat/core';
import { useLayoutEffect, useRef } from 'react';
import { firstVoxels } from './first-detail.ts';
import { type GreySlice, middleSlice } from './first-slices.ts';
import { arrange, aspectOf, type Plane, type Tile, type View } from './layouts.ts';
import { factorFor, reducedGrid } from './reduce.ts';
import {
  backgroundColor,
  type Color,
  canvasName,
  crosshairOf,
  crosshairSeen,
  letterColor,
  letterSize,
  tileGap,
} from './scene-look.ts';
import { extentOf, stacksOf } from './stack.ts';
import type { Window } from './windows.ts';

interface FirstSlicesProps {
  readonly scan: Volume;
  readonly window: Window;
  readonly view: View;
  readonly main: Plane;
}

/**
 * The slices through the middle of a scan, where the scene will draw them and in the same greys: it needs a while to
 * prepare all voxels. The 3-D view stays empty.
 */
export function FirstSlices({ scan, window: { level, width }, view, main }: FirstSlicesProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useLayoutEffect(
    () => drawSlices(canvas.current!, scan, { level, width }, view, main),
    [scan, level, width, view, main],
  );
  return <canvas ref={canvas} className="first-slices" tabIndex={0} aria-label={canvasName} />;
}

/** A rectangle in pixels of the canvas. */
interface Box {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

/** Starting a graphics card's 2-D drawing, or its emulation, takes longer than these few pixels. */
const onProcessor: CanvasRenderingContext2DSettings = { willReadFrequently: true, alpha: false };

function drawSlices(canvas: HTMLCanvasElement, scan: Volume, window: Window, view: View, main: Plane): void {
  const scale = devicePixelRatio || 1;
  canvas.width = canvas.offsetWidth * scale;
  canvas.height = canvas.offsetHeight * scale;
  const { width, height } = canvas;
  const pen = canvas.getContext('2d', onProcessor);
  if (!pen || !(width > 0 && height > 0)) return;
  pen.fillStyle = colorOf(backgroundColor);
  pen.fillRect(0, 0, width, height);
  const factor = factorFor(scan.size, firstVoxels());
  const grid = reducedGrid(scan, factor);
  const extent = extentOf(grid, stacksOf(grid));
  const crosshair = crosshairOf(extentOf(scan, stacksOf(scan)));
  const letterPx = letterSize(width / scale, height / scale) * scale;
  for (const tile of arrange(view, main, extent, { width, height, gap: tileGap * scale })) {
    if (tile.of === '3d') continue;
    const box = boxIn(tile, aspectOf(tile.of, extent), height);
    const slice = middleSlice(scan, tile.of, factor, window);
    pen.drawImage(imageOf(slice), box.left, box.top, box.width, box.height);
    drawCrosshair(pen, box, slice, crosshair);
    drawLetters(pen, box, tile.of, letterPx);
  }
}

/** Where NiiVue draws a slice: in the middle of its tile, on whole pixels counted from the canvas's lower end. */
function boxIn({ left, top, width, height }: Tile, aspect: number, canvasHeight: number): Box {
  const wide = Math.min(width, height * aspect);
  const tall = Math.min(height, width / aspect);
  const [x, y] = [left + Math.floor((width - wide) / 2), top + Math.floor((height - tall) / 2)];
  const bottom = Math.trunc(canvasHeight - y - tall);
  return {
    left: Math.trunc(x),
    top: canvasHeight - bottom - Math.trunc(tall),
    width: Math.trunc(wide),
    height: Math.trunc(tall),
  };
}

/** Lines to the edges of the slice, with a gap around the voxel in the middle. */
function drawCrosshair(
  pen: CanvasRenderingContext2D,
  { left, top, width, height }: Box,
  { middle: [across, down], widthMm }: GreySlice,
  { lineMm, gap }: ReturnType<typeof crosshairOf>,
): void {
  const line = (lineMm * width) / widthMm;
  const [x, y] = [left + across * width, top + down * height];
  // Whole pixels, whose centres lie within.
  const fill = (x0: number, y0: number, x1: number, y1: number) => {
    const [fromX, fromY, toX, toY] = [x0, y0, x1, y1].map(Math.round);
    if (toX > fromX && toY > fromY) pen.fillRect(fromX, fromY, toX - fromX, toY - fromY);
  };
  const [half, free] = [line / 2, (gap * line) / 2];
  pen.fillStyle = colorOf(crosshairSeen);
  fill(left, y - half, x - free, y + half);
  fill(x + free, y - half, left + width, y + half);
  fill(x - half, top, x + half, y - free);
  fill(x - half, y + free, x + half, top + height);
}

/** The side of the body on the left of a plane, and at its top. */
const sides: Readonly<Record<Plane, readonly [left: string, top: string]>> = {
  axial: ['R', 'A'],
  coronal: ['R', 'S'],
  sagittal: ['P', 'S'],
};

function drawLetters(
  pen: CanvasRenderingContext2D,
  { left, top, width, height }: Box,
  plane: Plane,
  px: number,
): void {
  pen.fillStyle = colorOf(letterColor);
  pen.font = `${px}px Roboto, Arial, sans-serif`;
  pen.textBaseline = 'top';
  const [atLeft, atTop] = sides[plane];
  pen.textAlign = 'left';
  const below = px / 6;
  pen.fillText(atLeft, left, top + (height - px) / 2 + below);
  pen.textAlign = 'center';
  pen.fillText(atTop, left + width / 2, top + below);
}

function imageOf({ columns, rows, grey }: GreySlice): HTMLCanvasElement {
  const image = document.createElement('canvas');
  image.width = columns;
  image.height = rows;
  const pixels = new ImageData(columns, rows);
  const { data } = pixels;
  for (let i = 0, out = 0; i < grey.length; i++, out += 4) {
    data[out] = data[out + 1] = data[out + 2] = grey[i];
    data[out + 3] = 255;
  }
  image.getContext('2d', onProcessor)!.putImageData(pixels, 0, 0);
  return image;
}

const colorOf = ([r, g, b, a]: Color) => `rgb(${255 * r} ${255 * g} ${255 * b} / ${a})`;
