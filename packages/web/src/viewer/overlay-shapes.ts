import { applyAffine, type Grid, type Vec3, type Volume } from '@tomaat/core';
import { contoursOf } from './contours.ts';
import type { LabelStyle } from './labels.ts';
import type { Plane } from './layouts.ts';
import { formatLength, isOnSlice, lengthMm, type Measure } from './ruler.ts';
import type { DrawnPlane } from './scene-tools.ts';
import { type Stack, sliceNumber } from './stack.ts';

/** What lies over the planes, in CSS pixels of the canvas: drawn as SVG in the page, and on a canvas in a screenshot. */
export interface PlaneShapes {
  readonly plane: Plane;
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
  readonly title: string;
  readonly isMain: boolean;
  /** Outlines of labels, as path data of SVG. */
  readonly outlines: readonly { readonly path: string; readonly color: string }[];
  readonly rulers: readonly { readonly from: Place; readonly to: Place; readonly text: string }[];
}
type Place = readonly [number, number];

export interface OverlayContent {
  readonly grid: Grid;
  readonly stacks: Readonly<Record<Plane, Stack>>;
  readonly main: Plane;
  readonly position: Vec3;
  readonly measures: readonly Measure[];
  /** Labels whose outlines are drawn. */
  readonly outlined?: { readonly labelMap: Volume; readonly labels: readonly LabelStyle[] };
}

export const planeNames: Readonly<Record<Plane, string>> = {
  axial: 'Axial',
  coronal: 'Coronal',
  sagittal: 'Sagittal',
};

export function overlayShapes(drawn: readonly DrawnPlane[], content: OverlayContent): PlaneShapes[] {
  const { grid, stacks, main, position, measures } = content;
  return drawn.map(({ plane, left, top, width, height, place }) => {
    const stack = stacks[plane];
    const number = sliceNumber(grid, stack, position);
    return {
      plane,
      left,
      top,
      width,
      height,
      title: titleOf(plane, number, stack.count, width),
      isMain: plane === main,
      outlines: outlines(place, stack, number, content),
      rulers: measures
        .filter((measure) => measure.plane === plane && isOnSlice(grid, stack, measure, position))
        .map((measure) => ({
          from: place(measure.from),
          to: place(measure.to),
          text: formatLength(lengthMm(measure)),
        })),
    };
  });
}

/** The longest title that a plane of this width (CSS pixels) has room for; the number is never cut. */
function titleOf(plane: Plane, number: number, count: number, width: number): string {
  const counted = `${number} / ${count}`;
  const titles = [`${planeNames[plane]} ${counted}`, counted];
  return titles.find((title) => 8 + title.length * characterWidth <= width) ?? String(number);
}

/** Of the widest usual fonts at 12 pixels, bold. */
const characterWidth = 7.6;

function outlines(
  place: DrawnPlane['place'],
  { axis, sign, count }: Stack,
  number: number,
  { grid, outlined }: OverlayContent,
): PlaneShapes['outlines'] {
  if (!outlined) return [];
  const index = sign > 0 ? number - 1 : count - number;
  const { axes, segments } = contoursOf(outlined.labelMap, grid, axis, index);
  const at = (u: number, v: number): Place => {
    const voxel: [number, number, number] = [0, 0, 0];
    voxel[axis] = index;
    voxel[axes[0]] = u;
    voxel[axes[1]] = v;
    return place(applyAffine(grid.affine, voxel));
  };
  // Places depend on the indices by an affine: three of them give all.
  const origin = at(0, 0);
  const [stepU, stepV] = [at(1, 0), at(0, 1)].map(([x, y]) => [x - origin[0], y - origin[1]]);
  const x = (u: number, v: number) => (origin[0] + u * stepU[0] + v * stepV[0]).toFixed(1);
  const y = (u: number, v: number) => (origin[1] + u * stepU[1] + v * stepV[1]).toFixed(1);
  return outlined.labels
    .filter(({ value, visible }) => visible && segments.has(value))
    .map(({ value, color }) => {
      const ends = segments.get(value)!;
      let path = '';
      for (let i = 0; i < ends.length; i += 4)
        path += `M${x(ends[i], ends[i + 1])} ${y(ends[i], ends[i + 1])}L${x(ends[i + 2], ends[i + 3])} ${y(ends[i + 2], ends[i + 3])}`;
      return { path, color };
    });
}
