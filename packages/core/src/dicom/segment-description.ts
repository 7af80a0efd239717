import { ascii, binary, type Code, codeSequence, datasetOf, fitText, sequence, text } from './build.ts';
import { type CieLab, cieLabOf, colorOf } from './cielab.ts';
import { type Dataset, firstItem, numbers, text as textOf, word } from './dataset.ts';
import { privateBlock, privateNumbers, privateTags } from './private-block.ts';
import type { Maker } from './result-modules.ts';
import { type Tag, tags } from './tags.ts';
import type { TextCoding } from './text-coding.ts';

/* Converts a label to an item of SegmentSequence (PS3.3 C.8.20.4), and back. */

/** A label, as described in a manifest. */
export interface SegmentLabel {
  readonly value: number;
  readonly name: string;
  /** sRGB, such as `#e6194b`. */
  readonly color?: string;
  /** The segmented property type. */
  readonly code?: Code;
  /** The segmented property category. */
  readonly category?: Code;
  /** The modifier of the code, such as the side of the body. */
  readonly modifier?: Code;
}

/** The category of a label with a code but no category. */
export const defaultCategory: Code = { scheme: 'SCT', value: '123037004', meaning: 'Anatomical Structure' };

/** Category and type of a label without a code: the ones that 3D Slicer and dcmqi give an unspecified segment. */
export const defaultType: Code = { scheme: 'SCT', value: '85756007', meaning: 'Tissue' };

/** The segment of the voxels without a label, which a LABELMAP must describe too. */
export const background: SegmentLabel = {
  value: 0,
  name: 'Background',
  code: { scheme: 'DCM', value: '125040', meaning: 'Background' },
  category: { scheme: 'DCM', value: '125040', meaning: 'Background' },
};

/** What kind of algorithm segments are made by (PS3.16 CID 7162). */
export const algorithmFamily: Code = { scheme: 'DCM', value: '123109', meaning: 'Artificial Intelligence' };

/** The category of a label. */
export const categoryOf = ({ category, code }: SegmentLabel): Code =>
  category ?? (code ? defaultCategory : defaultType);

/** The item of a label. Its name is SegmentLabel; if it does not fit, SegmentDescription has it in full. */
export function describeSegment(
  label: SegmentLabel,
  number: number,
  trackingUid: string,
  maker: Maker,
  coding: TextCoding,
): Dataset {
  const { name, code = defaultType, modifier, color } = label;
  const algorithm = `${maker.name} ${maker.version}`;
  const modifiers = modifier
    ? [codeSequence(tags.segmentedPropertyTypeModifierCodeSequence, modifier, coding)]
    : [];
  return datasetOf(
    codeSequence(tags.segmentedPropertyCategoryCodeSequence, categoryOf(label), coding),
    binary(tags.segmentNumber, 'US', number),
    text(tags.segmentLabel, 'LO', name, coding),
    fitText(name, 'LO') === name ? undefined : text(tags.segmentDescription, 'ST', name, coding),
    sequence(
      tags.segmentationAlgorithmIdentificationSequence,
      datasetOf(
        codeSequence(tags.algorithmFamilyCodeSequence, algorithmFamily, coding),
        text(tags.algorithmName, 'LO', maker.name, coding),
        text(tags.algorithmVersion, 'LO', maker.version, coding),
      ),
    ),
    ascii(tags.segmentAlgorithmType, 'CS', 'AUTOMATIC'),
    text(tags.segmentAlgorithmName, 'LO', algorithm, coding),
    color === undefined ? undefined : binary(tags.recommendedDisplayCieLabValue, 'US', ...cieLabOf(color)),
    codeSequence(tags.segmentedPropertyTypeCodeSequence, code, coding, ...modifiers),
    text(tags.trackingId, 'UT', name, coding),
    ascii(tags.trackingUid, 'UI', trackingUid),
    ...privateBlock(binary(privateTags.labelValue, 'US', label.value)),
  );
}

/** The texts of a label that must be encoded in a character set. */
export const textsOf = ({ name, code, category, modifier }: SegmentLabel): string[] => [
  name,
  ...[code, category, modifier].flatMap((one) => (one ? [one.value, one.scheme, one.meaning] : [])),
];

/** A segment as it was read. */
export interface ReadSegment extends SegmentLabel {
  /** SegmentNumber, by which frames or pixels refer to it. */
  readonly number: number;
}

/**
 * The label of an item of SegmentSequence. `value` is that of the original label map if the file has it, as ours do,
 * otherwise SegmentNumber. `characterSets` are those of the enclosing data set.
 */
export function readSegment(item: Dataset, number: number, characterSets: Dataset): ReadSegment {
  const said = (tag: Tag, within = item) => textOf(withCharacterSet(within, characterSets), tag);
  const label = said(tags.segmentLabel) ?? `Segment ${number}`;
  const description = said(tags.segmentDescription);
  const name = description !== undefined && fitText(description, 'LO') === label ? description : label;
  const codeOf = (tag: Tag, within = item): Code | undefined => {
    const found = firstItem(within, tag);
    const value = found && (said(tags.codeValue, found) ?? said(tags.longCodeValue, found));
    const scheme = found && said(tags.codingSchemeDesignator, found);
    if (!found || value === undefined || scheme === undefined) return undefined;
    return { scheme, value, meaning: said(tags.codeMeaning, found) ?? value };
  };
  const type = firstItem(item, tags.segmentedPropertyTypeCodeSequence);
  const lab = numbers(item, tags.recommendedDisplayCieLabValue, 'US');
  return {
    number,
    value: privateNumbers(item, privateTags.labelValue, 'US')?.[0] ?? number,
    name,
    color: lab?.length === 3 ? colorOf([lab[0], lab[1], lab[2]] satisfies CieLab) : undefined,
    code: codeOf(tags.segmentedPropertyTypeCodeSequence),
    category: codeOf(tags.segmentedPropertyCategoryCodeSequence),
    modifier: type && codeOf(tags.segmentedPropertyTypeModifierCodeSequence, type),
  };
}

/** An item with the character set of its data set, unless it has its own. */
function withCharacterSet(item: Dataset, parent: Dataset): Dataset {
  const own = item.get(tags.specificCharacterSet) ?? parent.get(tags.specificCharacterSet);
  return own && word(item, tags.specificCharacterSet) === undefined
    ? new Map([...item, [tags.specificCharacterSet, own]])
    : item;
}
