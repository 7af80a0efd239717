import { TomaatError } from '../errors.ts';
import { joinBytes } from '../formats/voxel-pieces.ts';
import type { Dataset, FragmentsElement } from './dataset.ts';
import { tags } from './tags.ts';

/**
 * The code streams of the frames of encapsulated pixel data (PS3.5 A.4). Fragments are assigned to frames by the
 * basic offset table, by the extended one, by their count, or, since each JPEG stream ends with a marker, by that
 * marker.
 *
 * @param dataset where the extended offset table is
 * @throws TomaatError BAD_VOXELS, if fragments and frames do not match
 */
export function codeStreams(
  element: FragmentsElement,
  frameCount: number,
  dataset: Dataset,
): (frame: number) => Uint8Array {
  const { fragments } = element;
  if (frameCount === 1) return () => joined(fragments);
  const groups =
    byOffsets(fragments, [...element.offsets], frameCount) ??
    byOffsets(fragments, extendedOffsets(dataset), frameCount) ??
    (fragments.length === frameCount ? fragments.map((one) => [one]) : undefined) ??
    byEndMarkers(fragments);
  if (groups.length !== frameCount) {
    throw new TomaatError(
      'BAD_VOXELS',
      `The file says that it has ${frameCount} frames, but ${groups.length} are found in its compressed pixels: export it again from the system that made it`,
    );
  }
  return (frame) => joined(groups[frame]);
}

const joined = (fragments: readonly Uint8Array[]) =>
  fragments.length === 1 ? fragments[0] : joinBytes(fragments);

/**
 * Groups fragments by the offsets of each frame's first fragment; undefined if these are not the starts of fragments,
 * in order.
 */
function byOffsets(
  fragments: readonly Uint8Array[],
  offsets: readonly number[],
  frameCount: number,
): Uint8Array[][] | undefined {
  if (offsets.length !== frameCount || offsets[0] !== 0) return undefined;
  const groups: Uint8Array[][] = [];
  let at = 0;
  for (const fragment of fragments) {
    if (at === offsets[groups.length]) groups.push([]);
    groups[groups.length - 1].push(fragment);
    // The tag and the length of an item precede each fragment.
    at += 8 + fragment.length;
  }
  return groups.length === frameCount ? groups : undefined;
}

/**
 * ExtendedOffsetTable, 64-bit offsets for pixels of more than 4 GiB; those beyond 2^53 are not the starts of
 * fragments.
 */
function extendedOffsets(dataset: Dataset): number[] {
  const element = dataset.get(tags.extendedOffsetTable);
  if (element?.kind !== 'value') return [];
  const { bytes } = element;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: Math.floor(bytes.length / 8) }, (_, i) =>
    Number(view.getBigUint64(8 * i, true)),
  );
}

/** Fragments up to each one that ends with an end-of-image marker (FF D9), which a byte of padding may follow. */
function byEndMarkers(fragments: readonly Uint8Array[]): Uint8Array[][] {
  const groups: Uint8Array[][] = [];
  let group: Uint8Array[] = [];
  for (const fragment of fragments) {
    group.push(fragment);
    const end = fragment.length;
    const isEnd = [2, 3, 4].some(
      (back) => fragment[end - back] === 0xff && fragment[end - back + 1] === 0xd9,
    );
    if (!isEnd) continue;
    groups.push(group);
    group = [];
  }
  return group.length > 0 ? [...groups, group] : groups;
}
