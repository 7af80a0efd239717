import { TomaatError } from '../errors.ts';
import { numbers, text, word } from './dataset.ts';
import { type DicomImage, groupsOf, holderOf } from './frames.ts';
import { tags } from './tags.ts';

/** How an image is meant to be shown, as its file says. */
export interface DicomDisplay {
  /** The windows of the file, in its order; empty if it has none. */
  readonly windows: readonly StoredWindow[];
  /** Unit of the values (RescaleType), such as `HU`; undefined if the file does not say it. */
  readonly units?: string;
}

export interface StoredWindow {
  /** Centre and width, in the values of the volume, after slope and intercept. */
  readonly level: number;
  readonly width: number;
  /** What the file calls it (WindowCenterWidthExplanation). */
  readonly name?: string;
}

/** A file may have any number of windows. */
const mostWindows = 8;

/**
 * Window and unit of an image (PS3.3 C.11.2, and C.7.6.16.2.10 for a frame). Values depend on neither, so what is
 * malformed there is left out, not refused.
 */
export function displayOf(image: DicomImage): DicomDisplay {
  const groups = groupsOf(image);
  const holder = holderOf(groups, tags.frameVoiLutSequence, tags.windowCenter);
  const units = word(
    holderOf(groups, tags.pixelValueTransformationSequence, tags.rescaleType),
    tags.rescaleType,
  );
  const values = (tag: number) => unlessMalformed(() => numbers(holder, tag, 'DS')) ?? [];
  const [centers, widths] = [values(tags.windowCenter), values(tags.windowWidth)];
  const names = unlessMalformed(() => text(holder, tags.windowCenterWidthExplanation))?.split('\\') ?? [];
  const windows = centers.slice(0, mostWindows).flatMap((level, i): StoredWindow[] => {
    const width = widths[i];
    return width > 0 ? [{ level, width, name: names[i]?.trim() || undefined }] : [];
  });
  return { windows, units };
}

function unlessMalformed<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof TomaatError) return undefined;
    throw error;
  }
}
