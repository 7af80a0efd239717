import { bytesElement } from './build.ts';
import { type Dataset, type DicomElement, numbers, word } from './dataset.ts';
import type { Tag } from './tags.ts';
import type { Vr } from './value-representations.ts';

/*
 * Data that a segmentation cannot express but that is needed to read its label map back exactly, in a private block
 * (PS3.5 7.8) that other programs ignore: BINARY segments are numbered 1, 2, 3 …, whatever their values in the label
 * map, and slices without a segment have no frame.
 */

const creatorTag: Tag = 0x00630010;
const creator = 'TOMAAT';

/** Element 10 of the group identifies the block of (0063,1000) to (0063,10FF). */
export const privateTags = {
  /** US, in an item of SegmentSequence: the value of the segment in the label map. */
  labelValue: 0x00631001,
  /** UL: columns, rows and slices of the label map. */
  size: 0x00631002,
  /** FD: its affine without the last row, voxel index → LPS mm, row by row. */
  affine: 0x00631003,
} as const satisfies Record<string, Tag>;

/** Elements of the block, including the one that reserves it. */
export const privateBlock = (...elements: readonly DicomElement[]): DicomElement[] => [
  bytesElement(creatorTag, 'LO', new TextEncoder().encode(creator)),
  ...elements,
];

/** Numbers in the block; undefined if another program owns it, or they are missing. */
export const privateNumbers = (dataset: Dataset, tag: Tag, vr: Vr): number[] | undefined =>
  word(dataset, creatorTag) === creator ? numbers(dataset, tag, vr) : undefined;
