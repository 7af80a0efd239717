import { decodeText } from './character-sets.ts';
import type { DicomElement } from './dataset.ts';
import { ruleOf } from './deidentification-rules.ts';
import { representationOf } from './dictionary.ts';
import { type Tag, tagName } from './tags.ts';
import type { Vr } from './value-representations.ts';

/** What happened to an attribute: removed or emptied, replaced by another value, or kept. */
export type Outcome = 'removed' | 'replaced' | 'kept';

/** An attribute of a file and what de-identification did with it. */
export interface ReportedAttribute {
  readonly tag: Tag;
  /** Its name in the standard, or its number. */
  readonly name: string;
  readonly outcome: Outcome;
  /** How many of its values, at all levels of the file, had this outcome. */
  readonly count: number;
  /** The original text of the first of them, if it is text: for the owners of the file, not for a log. */
  readonly value?: string;
}

/** What de-identification did with a file. Attributes without a value are not included. */
export interface DeidentificationReport {
  /** Ordered by tag. */
  readonly attributes: readonly ReportedAttribute[];
  /** Values by outcome, at all levels of the file, without private elements. */
  readonly counts: Readonly<Record<Outcome, number>>;
  readonly privateElements: { readonly removed: number; readonly kept: number };
  /** Why the pixels, which are never changed, may identify the patient; empty if nothing suggests it. */
  readonly burnedIn: readonly string[];
}

/** A report under construction. */
export function startReport(characterSets: readonly string[]) {
  const attributes = new Map<string, ReportedAttribute & { count: number }>();
  const counts = { removed: 0, replaced: 0, kept: 0 };
  const privateElements = { removed: 0, kept: 0 };
  return {
    private(isKept: boolean): void {
      privateElements[isKept ? 'kept' : 'removed']++;
    },
    /** Records an element of the original and what remains of it. */
    add(before: DicomElement, after: DicomElement | undefined): void {
      if (sizeOf(before) === 0) return;
      const outcome = outcomeOf(before, after);
      counts[outcome]++;
      const { tag } = before;
      const key = `${tag} ${outcome}`;
      const known = attributes.get(key);
      if (known) known.count++;
      else
        attributes.set(key, { tag, name: nameOf(tag), outcome, count: 1, ...textOf(before, characterSets) });
    },
    finish: (burnedIn: readonly string[]): DeidentificationReport => ({
      attributes: [...attributes.values()].sort((a, b) => a.tag - b.tag),
      counts,
      privateElements,
      burnedIn,
    }),
  };
}

const sizeOf = (element: DicomElement): number =>
  element.kind === 'value' ? element.bytes.length : element.kind === 'sequence' ? element.items.length : 1;

/** A sequence whose items were cleaned is kept: the outcome is reported for its items. */
function outcomeOf(before: DicomElement, after: DicomElement | undefined): Outcome {
  if (after === undefined || sizeOf(after) === 0) return 'removed';
  return before === after || before.kind === 'sequence' ? 'kept' : 'replaced';
}

const nameOf = (tag: Tag): string => ruleOf(tag)?.name ?? tagName(tag);

const texts: ReadonlySet<Vr> = new Set<Vr>([
  'AE', 'AS', 'CS', 'DA', 'DS', 'DT', 'IS', 'LO', 'LT', 'PN', 'SH', 'ST', 'TM', 'UC', 'UI', 'UR', 'UT',
]); // biome-ignore format: one table

function textOf(element: DicomElement, characterSets: readonly string[]): { value?: string } {
  const vr = representationOf(element.tag) ?? element.vr;
  if (element.kind !== 'value' || vr === undefined || !texts.has(vr)) return {};
  return { value: readable(decodeText(element.bytes.subarray(0, longest), characterSets)) };
}

const longest = 600;

/** Without control characters, truncated to the length that is shown. */
const readable = (text: string): string =>
  text
    .replace(/\p{Cc}+/gu, ' ')
    .trim()
    .slice(0, 300);
