/** What an author's pipeline is in a manifest, and what of it cannot be said there. */

/** A step as tomaat.yaml has it. */
export type WrittenStep = string | Readonly<Record<string, unknown>>;

/**
 * What happens to a part that a manifest cannot say: `approximated`, the result differs and the report says by what; `impossible`,
 * there is no app.
 */
export type Choice = 'approximated' | 'impossible';

export interface TranslationFault {
  /** The place in the author's config: `preprocessing#transforms#3`. */
  readonly path: string;
  readonly choice: Choice;
  /** What is wrong, and what the app does instead. */
  readonly text: string;
}

export interface TranslatedInput {
  readonly label?: string;
  readonly modality?: string;
  readonly preprocess?: readonly WrittenStep[];
}

export interface Translation {
  /** The volume inputs, in the order of the network's channels. */
  readonly inputs: Readonly<Record<string, TranslatedInput>>;
  readonly preprocess: readonly WrittenStep[];
  readonly inferer: Readonly<Record<string, unknown>>;
  readonly postprocess: readonly WrittenStep[];
  readonly labels: readonly { readonly value: number; readonly name: string }[];
  readonly faults: readonly TranslationFault[];
  /** What the author should know, though nothing is lost. */
  readonly notes: readonly string[];
  /** What both results are computed without, though the author's software does it by default: a sentence for the card. */
  readonly conditions?: string;
  /** Whether the author's result is probabilities, which the app turns into labels. */
  readonly isProbabilities?: boolean;
  /** Which part of the author's config each step comes from; `stage` is its place in the manifest: `preprocess[1]`. */
  readonly sources: readonly { readonly stage: string; readonly path: string }[];
}

/** Of an author's pipeline that does not reorient. */
export const storedNote =
  'Volumes go into the network in the order of axes in which they are stored, as in the author’s pipeline: a file stored otherwise than those of the training gives a worse result.';

/** One name for each label of a network input: letters, digits, - and _, none twice and none of `taken`. */
export function inputNames(labels: readonly string[], taken: readonly string[]): string[] {
  const names: string[] = [];
  for (const [index, label] of labels.entries()) {
    const word = label
      .normalize('NFKD')
      .toLowerCase()
      .replace(/[^a-z0-9]/g, '')
      .slice(0, 36);
    const base = /^[a-z]/.test(word) ? word : `channel${word || index + 1}`;
    let name = base;
    for (let n = 2; names.includes(name) || taken.includes(name); n++) name = `${base}-${n}`;
    names.push(name);
  }
  return names;
}
