import { type Dataset, type DicomElement, word } from './dataset.ts';
import { type SafePrivateElement, safePrivateElements } from './deidentification-rules.ts';
import { keepForm, numberBytes, valuesOf } from './deidentified-values.ts';
import type { Tag } from './tags.ts';

/**
 * The private elements of a data set that are kept: safe ones with at most the allowed number of numeric values, and
 * the creators (PS3.5 7.8.1) of their blocks.
 */
export function safeElements(dataset: Dataset): ReadonlySet<Tag> {
  const found = new Set<Tag>();
  for (const [tag, element] of dataset) {
    const [group, number] = [Math.floor(tag / 65536), tag % 65536];
    if (group % 2 === 0 || number < 0x1000) continue;
    const creatorTag = group * 65536 + Math.floor(number / 256);
    const creator = word(dataset, creatorTag);
    const safe = safePrivateElements.find(
      (known) => known.group === group && known.element === number % 256 && known.creator === creator,
    );
    if (safe && isNumbers(element, safe)) found.add(tag).add(creatorTag);
  }
  return found;
}

function isNumbers(element: DicomElement, { vr, count }: SafePrivateElement): boolean {
  if (element.kind !== 'value') return false;
  if (element.vr !== undefined && element.vr !== 'UN' && element.vr !== vr) return false;
  const size = numberBytes[vr];
  if (size !== undefined)
    return (
      element.bytes.length > 0 && element.bytes.length <= size * count && element.bytes.length % size === 0
    );
  return valuesOf(element.bytes).length <= count && keepForm(element.bytes, vr) === element.bytes;
}
