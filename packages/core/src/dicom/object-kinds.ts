import { type Dataset, word, words } from './dataset.ts';
import type { DicomHeader } from './dicom-files.ts';
import { tags } from './tags.ts';

/**
 * Storage SOP classes (PS3.4 B.5) of objects that are not images of a volume, by prefix, with their names for
 * messages.
 */
export const otherObjects: readonly (readonly [uid: string, name: string])[] = [
  ['1.2.840.10008.1.3.10', 'a DICOMDIR, the table of contents of a medium'],
  ['1.2.840.10008.5.1.4.1.1.88.59', 'a key object selection'],
  ['1.2.840.10008.5.1.4.1.1.88.67', 'a dose report'],
  ['1.2.840.10008.5.1.4.1.1.88', 'a structured report'],
  ['1.2.840.10008.5.1.4.1.1.11', 'a presentation state'],
  ['1.2.840.10008.5.1.4.1.1.66.4', 'a segmentation (SEG)'],
  ['1.2.840.10008.5.1.4.1.1.66.7', 'a label map segmentation (SEG)'],
  ['1.2.840.10008.5.1.4.1.1.66.5', 'a surface segmentation'],
  ['1.2.840.10008.5.1.4.1.1.66.1', 'a spatial registration'],
  ['1.2.840.10008.5.1.4.1.1.66.3', 'a deformable registration'],
  ['1.2.840.10008.5.1.4.1.1.66', 'raw data'],
  ['1.2.840.10008.5.1.4.1.1.481.2', 'an RT dose'],
  ['1.2.840.10008.5.1.4.1.1.481.3', 'an RT structure set (RTSTRUCT)'],
  ['1.2.840.10008.5.1.4.1.1.481.5', 'an RT plan'],
  ['1.2.840.10008.5.1.4.1.1.481.8', 'an RT ion plan'],
  ['1.2.840.10008.5.1.4.1.1.104', 'an encapsulated document'],
  ['1.2.840.10008.5.1.4.1.1.9', 'a waveform'],
  ['1.2.840.10008.5.1.4.1.1.30', 'a parametric map'],
  ['1.2.840.10008.5.1.4.1.1.68', 'a surface scan'],
];

const secondaryCapture = '1.2.840.10008.5.1.4.1.1.7';

const isOf = (uid: string, root: string) => uid === root || uid.startsWith(`${root}.`);

/** What a non-image object is, to follow “is”; undefined for images. */
export function otherObjectOf({ dicom, pixels }: DicomHeader): string | undefined {
  const uid = sopClassOf(dicom.dataset) ?? word(dicom.meta, tags.mediaStorageSopClassUid) ?? '';
  const known = otherObjects.find(([root]) => isOf(uid, root));
  return known?.[1] ?? (pixels ? undefined : 'a DICOM object without pixels');
}

const sopClassOf = (dataset: Dataset) => word(dataset, tags.sopClassUid);

/** A planning image that shows the positions of the slices (PS3.3 C.7.6.1.1.2, value 3 of ImageType). */
export const isLocalizer = ({ dicom }: DicomHeader): boolean =>
  words(dicom.dataset, tags.imageType).includes('LOCALIZER');

/** A picture of a screen or a page. Some programs store slices as such, with a position in the body. */
export const isCapture = ({ dicom: { dataset } }: DicomHeader): boolean =>
  isOf(sopClassOf(dataset) ?? '', secondaryCapture) || words(dataset, tags.imageType).includes('SCREEN SAVE');

/** Whether an image, or each of its frames, has a position in the body. */
export const hasPlace = ({ dicom: { dataset } }: DicomHeader): boolean =>
  dataset.has(tags.imagePositionPatient) || dataset.has(tags.perFrameFunctionalGroupsSequence);
