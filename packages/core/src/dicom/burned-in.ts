import type { Dataset } from './dataset.ts';
import { number, word, words } from './dataset.ts';
import { tags } from './tags.ts';

const conversionType = 0x00080064;

/** Modalities whose images commonly show the patient's name or number in their pixels (PS3.15 E.3.1; PS3.3 C.7.3.1.1.1). */
const modalities: Readonly<Record<string, string>> = {
  US: 'ultrasound', IVUS: 'intravascular ultrasound', XA: 'angiography', RF: 'fluoroscopy', SC: 'a secondary capture',
  OT: 'an image of another kind', ES: 'endoscopy', XC: 'a photograph', GM: 'microscopy', SM: 'a slide', OP: 'an eye photograph',
  DOC: 'a document', ECG: 'an electrocardiogram', CR: 'computed radiography', DX: 'digital radiography', MG: 'mammography',
  IO: 'a dental image', PX: 'a dental panorama',
}; // biome-ignore format: one table

/** Secondary Capture Image Storage and its multi-frame variants (1.2.840.10008.5.1.4.1.1.7, .7.1 to .7.4). */
const secondaryCapture = '1.2.840.10008.5.1.4.1.1.7';

/**
 * Why the pixels of an image may identify the patient, one sentence for each reason. None of these is certain: pixels
 * are not examined, and an empty list is not a guarantee. BurnedInAnnotation NO is trusted, except for screen
 * captures.
 */
export function burnedInReasons(dataset: Dataset): string[] {
  const stated = word(dataset, tags.burnedInAnnotation);
  const reasons: string[] = [];
  if (stated === 'YES')
    reasons.push('The header says that text is burned into the pixels (BurnedInAnnotation YES).');
  const modality = word(dataset, tags.modality) ?? '';
  const kind = Object.hasOwn(modalities, modality) ? modalities[modality] : undefined;
  if (kind !== undefined && stated !== 'NO')
    reasons.push(`The image is ${kind} (${modality}), which often shows the patient's name in its pixels.`);
  const sopClass = word(dataset, tags.sopClassUid) ?? '';
  if (sopClass === secondaryCapture || sopClass.startsWith(`${secondaryCapture}.`))
    reasons.push('The image is a secondary capture, which may be a copy of a screen or of paper.');
  const conversion = word(dataset, conversionType);
  if (conversion !== undefined)
    reasons.push('The image was converted from a screen, film or paper (ConversionType).');
  if (words(dataset, tags.imageType).some((value) => /^SCREEN ?(?:SAVE|SHOT)|^CSA REPORT$/.test(value)))
    reasons.push('The image is a copy of a screen (ImageType).');
  if (holdsOverlay(dataset))
    reasons.push('An overlay, which may be text, lies in unused bits of the pixels (OverlayBitPosition).');
  return reasons;
}

/**
 * Whether an overlay of the retired kind is stored in the bits above those of the pixels (PS3.3 C.9.2, 2004):
 * OverlayBitPosition is not 0.
 */
const holdsOverlay = (dataset: Dataset): boolean =>
  Array.from({ length: 16 }, (_, i) => 0x60000102 + i * 0x20000).some(
    (tag) => (number(dataset, tag, 'US') ?? 0) > 0,
  );
