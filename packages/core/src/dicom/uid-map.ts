import { TomaatError } from '../errors.ts';
import type { Dataset } from './dataset.ts';
import { word } from './dataset.ts';
import { isWellKnownUid, valuesOf } from './deidentified-values.ts';
import { representationOf } from './dictionary.ts';
import { tags } from './tags.ts';
import { createUidMapper, type UidMapper } from './uid-key.ts';

/* The mapping from de-identified files back to their originals, for users who have both the originals and the key. */

/**
 * From each UID that replaces one in these data sets, at all levels, to the original. Those of the standard are
 * unchanged.
 */
export function uidMapOf(originals: Iterable<Dataset>, mapUid: UidMapper): Map<string, string> {
  const found = new Map<string, string>();
  const visit = (dataset: Dataset): void => {
    for (const [tag, element] of dataset) {
      if (element.kind === 'sequence') for (const item of element.items) visit(item);
      const isUid = element.kind === 'value' && (representationOf(tag) ?? element.vr) === 'UI';
      if (!isUid) continue;
      for (const uid of valuesOf(element.bytes))
        if (uid !== '' && !isWellKnownUid(uid)) found.set(mapUid(uid), uid);
    }
  };
  for (const dataset of originals) visit(dataset);
  return found;
}

/**
 * The original UIDs of a de-identified series, from the original files.
 *
 * @param replacedUids SOP instance UIDs of the de-identified images, as a result refers to them; additional originals
 *   are harmless
 * @returns from each UID that replaces one of the originals to the original
 * @throws TomaatError BAD_INPUT if one of the images is not among the originals, or the key is a different one
 */
export function matchOriginals(
  originals: readonly Dataset[],
  replacedUids: Iterable<string>,
  uidKey: Uint8Array,
): Map<string, string> {
  const mapUid = createUidMapper(uidKey);
  const instances = new Set(originals.map((dataset) => mapUid(word(dataset, tags.sopInstanceUid) ?? '')));
  const wanted = new Set(replacedUids);
  const missing = [...wanted].filter((uid) => !instances.has(uid));
  if (missing.length > 0) {
    throw new TomaatError(
      'BAD_INPUT',
      missing.length === wanted.size
        ? 'The series is not the one that was sent, or it was sent with another key: give the series that was sent'
        : `${missing.length} of the ${wanted.size} images that were sent are missing: give the whole series`,
    );
  }
  return uidMapOf(originals, mapUid);
}
