import { TomaatError } from '../errors.ts';
import { badHeader } from '../formats/header.ts';
import type { Dataset } from './dataset.ts';
import { number, unsignedShort, word } from './dataset.ts';
import type { FrameShape } from './decoders.ts';
import type { PixelElement } from './dicom-files.ts';
import { type Tag, tagName, tags } from './tags.ts';

/** How the pixels of a file are stored (PS3.3 C.7.6.3). */
export interface PixelFormat extends FrameShape {
  readonly highBit: number;
  /** 'integer' (7FE0,0010), or a float of (7FE0,0008) or (7FE0,0009). */
  readonly number: 'integer' | 'float32' | 'float64';
  readonly photometricInterpretation: string;
}

/**
 * Reads the pixel format of a file.
 *
 * @throws TomaatError BAD_HEADER, if something is missing or contradictory; UNSUPPORTED_FORMAT, for colour images,
 *   and pixels that do not have 1, 8, 16 or 32 bits
 */
export function pixelFormatOf(dataset: Dataset, pixels: PixelElement): PixelFormat {
  const need = (tag: Tag): number => {
    const value = unsignedShort(dataset, tag);
    if (value === undefined) {
      throw badHeader(`${tagName(tag)} is missing: export the series again from the system that made it`);
    }
    return value;
  };
  const rows = need(tags.rows);
  const columns = need(tags.columns);
  const samplesPerPixel = unsignedShort(dataset, tags.samplesPerPixel) ?? 1;
  const photometricInterpretation = word(dataset, tags.photometricInterpretation) ?? 'MONOCHROME2';
  if (rows < 1 || columns < 1) {
    throw badHeader(
      `The image has ${columns} × ${rows} pixels: export the series again from the system that made it`,
    );
  }
  checkGrey(photometricInterpretation, samplesPerPixel);
  const common = { rows, columns, samplesPerPixel, photometricInterpretation };
  if (pixels.tag !== tags.pixelData) {
    const bits = pixels.tag === tags.floatPixelData ? 32 : 64;
    const floats = bits === 32 ? ('float32' as const) : ('float64' as const);
    return {
      ...common,
      bitsAllocated: bits,
      bitsStored: bits,
      highBit: bits - 1,
      isSigned: true,
      number: floats,
    };
  }
  const bitsAllocated = need(tags.bitsAllocated);
  const bitsStored = unsignedShort(dataset, tags.bitsStored) ?? bitsAllocated;
  const highBit = unsignedShort(dataset, tags.highBit) ?? bitsStored - 1;
  if (![1, 8, 16, 32].includes(bitsAllocated)) {
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      `The pixels take ${bitsAllocated} bits each (BitsAllocated), but 1, 8, 16 and 32 are read: export the series again with one of these`,
    );
  }
  if (bitsStored < 1 || bitsStored > bitsAllocated || highBit >= bitsAllocated || highBit < bitsStored - 1) {
    throw badHeader(
      `BitsAllocated ${bitsAllocated}, BitsStored ${bitsStored} and HighBit ${highBit} contradict each other: export the series again from the system that made it`,
    );
  }
  const isSigned = (number(dataset, tags.pixelRepresentation, 'US') ?? 0) === 1;
  return { ...common, bitsAllocated, bitsStored, highBit, isSigned, number: 'integer' };
}

const colours = /^(?:PALETTE COLOR|RGB|YBR_\w{1,20}|HSV|ARGB|CMYK)$/;

function checkGrey(photometricInterpretation: string, samplesPerPixel: number): void {
  if (colours.test(photometricInterpretation)) {
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      `The images are in colour (${photometricInterpretation}), such as screenshots and colour maps: send the series of grey values that they were made from`,
    );
  }
  if (samplesPerPixel !== 1 || !/^MONOCHROME[12]$/.test(photometricInterpretation)) {
    throw badHeader(
      `PhotometricInterpretation (0028,0004) is ${photometricInterpretation.startsWith('MONOCHROME') ? 'that of grey values' : 'not a known one'}, with ${samplesPerPixel} samples a pixel: send a series of grey values`,
    );
  }
}

/** The smallest and the largest value that can be stored. */
export function storedRange({ bitsStored, isSigned }: PixelFormat): [number, number] {
  return isSigned ? [-(2 ** (bitsStored - 1)), 2 ** (bitsStored - 1) - 1] : [0, 2 ** bitsStored - 1];
}

/**
 * Size in bytes of one frame's uncompressed pixels in a file; with one bit per pixel, frames follow without padding.
 */
export const frameBytes = ({ rows, columns, samplesPerPixel, bitsAllocated }: FrameShape): number =>
  (rows * columns * samplesPerPixel * bitsAllocated) / 8;
