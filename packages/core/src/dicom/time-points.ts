import { badHeader } from '../formats/header.ts';
import type { DicomImage, FrameKeys } from './frames.ts';

/** What distinguishes the frames of a 4-D volume, the most reliable first: the same values occur at every position. */
const sharedKeys = ['temporalPosition', 'bValue', 'echo', 'acquisition', 'triggerTime'] as const;

export interface Split<Image extends DicomImage> {
  readonly frames: Image[][];
  readonly frameKeys: readonly (keyof FrameKeys)[];
}

/**
 * Arranges images at the same positions into the frames of a 4-D volume, one image from each position: by temporal
 * position, b-value, echo, acquisition, or trigger time, by several of them together, or by their numbers if these
 * run through one frame, or one position, after the other.
 *
 * @param positions the images of each position, in the order of the slices
 * @param placeOf describes a position for messages
 * @throws TomaatError BAD_HEADER, if positions have different numbers of images, or nothing distinguishes them
 */
export function splitFrames<Image extends DicomImage>(
  positions: readonly (readonly Image[])[],
  placeOf: (position: number) => string,
): Split<Image> {
  const count = mostCommon(positions.map(({ length }) => length));
  const odd = positions.findIndex(({ length }) => length !== count);
  if (odd >= 0) throw uneven(positions.length, odd, positions[odd].length, count, placeOf(odd));
  if (count === 1) return { frames: [positions.map(([image]) => image)], frameKeys: [] };
  for (const keys of [...sharedKeys.map((key) => [key]), [...sharedKeys]]) {
    const ordered = positions.map((images) => [...images].sort(byKeys(keys)));
    const isShared = ordered.every((images) =>
      images.every(
        (image, i) =>
          hasSame(image, ordered[0][i], keys) && (i === 0 || !hasSame(image, images[i - 1], keys)),
      ),
    );
    if (isShared && (keys.length > 1 || ordered[0].every(({ keys: has }) => has[keys[0]] !== undefined))) {
      return { frames: framesOf(ordered, count), frameKeys: keys.filter((key) => isVaried(ordered[0], key)) };
    }
  }
  const byNumber = positions.map((images) => [...images].sort(byKeys(['instance'])));
  // At a single position, numbers prove nothing: any two pictures have some.
  if (positions.length > 1 && (isInOrder(byNumber) || isInOrder(framesOf(byNumber, count)))) {
    return { frames: framesOf(byNumber, count), frameKeys: ['instance'] };
  }
  const where =
    positions.length === 1
      ? `one position (${placeOf(0)} along the normal)`
      : `each of ${positions.length} positions, the first at ${placeOf(0)} along the normal`;
  throw badHeader(
    `There are ${count} images at ${where}, and nothing tells them apart ` +
      '(temporal position, b-value, echo, acquisition, trigger time): send the images of one volume alone',
  );
}

function uneven(positions: number, odd: number, found: number, usual: number, place: string) {
  const where = `slice ${odd + 1} of ${positions}, at ${place} along the normal`;
  return badHeader(
    usual === 1
      ? `${found} different images lie at one position (${where}): send the images of one volume alone`
      : `The positions of the series hold ${usual} images each, but ${where}, holds ${found}: send the series with all of its images`,
  );
}

function mostCommon(counts: readonly number[]): number {
  const often = new Map<number, number>();
  for (const count of counts) often.set(count, (often.get(count) ?? 0) + 1);
  return [...often].reduce((best, one) => (one[1] > best[1] ? one : best))[0];
}

const byKeys = (keys: readonly (keyof FrameKeys)[]) => (a: DicomImage, b: DicomImage) => {
  for (const key of keys) {
    const difference = (a.keys[key] ?? 0) - (b.keys[key] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
};

const hasSame = (a: DicomImage, b: DicomImage, keys: readonly (keyof FrameKeys)[]) =>
  keys.every((key) => a.keys[key] === b.keys[key]);

const isVaried = (images: readonly DicomImage[], key: keyof FrameKeys) =>
  images.some(({ keys }) => keys[key] !== images[0].keys[key]);

const framesOf = <Image>(positions: readonly (readonly Image[])[], count: number): Image[][] =>
  Array.from({ length: count }, (_, frame) => positions.map((images) => images[frame]));

/** Whether the instance numbers of each group are all above those of the previous group, or all below them. */
function isInOrder(groups: readonly (readonly DicomImage[])[]): boolean {
  const ranges = groups.map((images) => {
    const numbers = images.map(({ keys }) => keys.instance ?? Number.NaN);
    return {
      least: Math.min(...numbers),
      largest: Math.max(...numbers),
      isDistinct: new Set(numbers).size === numbers.length,
    };
  });
  const isAscending = ranges.every(
    ({ least, isDistinct }, i) => isDistinct && (i === 0 || least > ranges[i - 1].largest),
  );
  const isDescending = ranges.every(
    ({ least, largest, isDistinct }, i) =>
      isDistinct && !Number.isNaN(least) && (i === 0 || largest < ranges[i - 1].least),
  );
  return isAscending || isDescending;
}
