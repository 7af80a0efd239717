import { decodeText } from './character-sets.ts';
import { type Dataset, words } from './dataset.ts';
import { representationOf } from './dictionary.ts';
import { type Tag, tags } from './tags.ts';

/**
 * Attributes other than person names whose text belongs to one patient: PatientID, OtherPatientIDs, AccessionNumber,
 * AdmissionID.
 */
const identifiers: ReadonlySet<Tag> = new Set([tags.patientId, 0x00101000, tags.accessionNumber, 0x00380010]);

/** Words of a text: of four letters or digits or more; in non-Latin scripts, of two or more. */
function wordsIn(text: string): string[] {
  return text
    .toLowerCase()
    .split(/[^\p{L}\p{N}]+/u)
    .filter((found) => found.length >= 4 || (found.length >= 2 && /[^\p{Script=Latin}\p{N}]/u.test(found)));
}

/**
 * Whether a text contains a word of a name or number in the same file. Words of six letters or more are also found
 * within a longer word.
 */
export type HoldsIdentity = (text: string) => boolean;

/**
 * Words by which a data set identifies its patient, from all its levels: operators and technicians copy names into
 * unrelated fields that PS3.15 keeps. In a file with more than 1000 such words every text counts as one.
 */
export function identityIn(dataset: Dataset): HoldsIdentity {
  const characterSets = words(dataset, tags.specificCharacterSet);
  const found = new Set<string>();
  collect(dataset, characterSets, found);
  if (found.size > mostWords) return () => true;
  const long = [...found].filter((known) => known.length >= 6);
  return (text) => {
    const lower = text.toLowerCase();
    return wordsIn(text).some((part) => found.has(part)) || long.some((part) => lower.includes(part));
  };
}

function collect(dataset: Dataset, characterSets: readonly string[], found: Set<string>): void {
  const own = words(dataset, tags.specificCharacterSet);
  const inside = own.length > 0 ? own : characterSets;
  for (const [tag, element] of dataset) {
    if (element.kind === 'sequence') for (const item of element.items) collect(item, inside, found);
    if (element.kind !== 'value' || element.bytes.length > longest) continue;
    const isName = element.vr === 'PN' || representationOf(tag) === 'PN';
    if (isName || identifiers.has(tag))
      for (const part of wordsIn(decodeText(element.bytes, inside))) found.add(part);
  }
}

const mostWords = 1000;
/** Names and numbers are shorter (PS3.5 6.2). */
const longest = 1024;
