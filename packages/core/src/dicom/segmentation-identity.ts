import type { Volume } from '../volume.ts';
import { background, type SegmentLabel } from './segment-description.ts';
import { segmentVoxels, valuesInSlices } from './segmentation-pixels.ts';
import { type CreateUid, createUids } from './uids.ts';

/*
 * What other objects refer to in the segmentation of a label map: its class, its UIDs, and its segments. Known without
 * building it, and the same as if it were built.
 */

/**
 * BINARY: a frame for each segment in a slice, which every reader supports. LABELMAP (Supplement 243): the label map
 * itself.
 */
export type SegmentationType = 'BINARY' | 'LABELMAP';

export interface SegmentationIdentityOptions {
  /** The meaning of the values. Values that are not listed become segments named “label 7”. */
  labels: readonly SegmentLabel[];
  /** Distinguishes this result from others of the same seed. */
  role: string;
  /** The seed for UIDs (see `createUids`): equal seeds give equal UIDs. Random if missing. */
  seed?: string;
  type?: SegmentationType;
  /** If no type is given: BINARY up to this many bytes of pixels, LABELMAP above. 50 MB if missing. */
  maxBinaryBytes?: number;
}

/** A segment and how it is referred to. */
export interface SegmentReference {
  readonly label: SegmentLabel;
  /** SegmentNumber. */
  readonly number: number;
  readonly trackingUid: string;
}

export interface SegmentationIdentity {
  readonly type: SegmentationType;
  readonly sopClassUid: string;
  readonly sopInstanceUid: string;
  readonly seriesInstanceUid: string;
  /** In the order of SegmentSequence; those of a LABELMAP begin with the background. */
  readonly segments: readonly SegmentReference[];
}

const sopClasses = {
  BINARY: '1.2.840.10008.5.1.4.1.1.66.4',
  LABELMAP: '1.2.840.10008.5.1.4.1.1.66.7',
} as const satisfies Record<SegmentationType, string>;

/**
 * The identity of the segmentation that `buildSegmentation()` creates with the same options. Both need the same seed.
 *
 * @throws TomaatError BAD_INPUT if it is not a label map with values from 0 to 65535
 */
export const identifySegmentation = (
  labelMap: Volume,
  options: SegmentationIdentityOptions,
): SegmentationIdentity =>
  identityOf(
    labelMap,
    valuesInSlices(segmentVoxels(labelMap), labelMap.size),
    options,
    createUids(options.seed),
  );

/** The same, where the values in each slice are known and UIDs are created for more than the identity. */
export function identityOf(
  { size }: Pick<Volume, 'size'>,
  present: readonly (readonly number[])[],
  options: SegmentationIdentityOptions,
  createUid: CreateUid,
): SegmentationIdentity {
  const { labels, role, maxBinaryBytes = 50e6 } = options;
  const frames = present.reduce((total, { length }) => total + length, 0);
  const isSmall = (frames * size[0] * size[1]) / 8 <= maxBinaryBytes;
  const type = options.type ?? (isSmall ? 'BINARY' : 'LABELMAP');
  const all = segmentsOf(labels, present.flat());
  const segment = (label: SegmentLabel, number: number): SegmentReference => ({
    label,
    number,
    trackingUid: createUid(`${role} label ${label.value}`),
  });
  return {
    type,
    sopClassUid: sopClasses[type],
    sopInstanceUid: createUid(`${role} instance`),
    seriesInstanceUid: createUid(`${role} series`),
    segments:
      type === 'LABELMAP'
        ? [background, ...all].map((label) => segment(label, label.value))
        : all.map((label, i) => segment(label, i + 1)),
  };
}

/** The labels of the list, each value once, followed by unlisted ones among the values that were found. */
export function segmentsOf(labels: readonly SegmentLabel[], present: Iterable<number>): SegmentLabel[] {
  const known = new Map<number, SegmentLabel>();
  for (const label of labels) if (label.value !== 0 && !known.has(label.value)) known.set(label.value, label);
  const found = [...new Set(present)].sort((a, b) => a - b);
  for (const value of found) if (!known.has(value)) known.set(value, { value, name: `label ${value}` });
  // SegmentSequence, and StructureSetROISequence, must have an item.
  return known.size > 0 ? [...known.values()] : [{ value: 1, name: 'label 1' }];
}
