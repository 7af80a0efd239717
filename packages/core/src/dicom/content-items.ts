import { ascii, binary, type Code, codeSequence, datasetOf, sequence, text } from './build.ts';
import type { Dataset, DicomElement } from './dataset.ts';
import { reference } from './result-modules.ts';
import { tags } from './tags.ts';
import type { TextCoding } from './text-coding.ts';

/* Content items, of which the tree of a structured report is made (PS3.3 C.17.3). */

/** How an item is related to the one that it belongs to. */
export type Relationship = 'CONTAINS' | 'HAS CONCEPT MOD' | 'HAS OBS CONTEXT';

/** A container, or the root if it has no relationship. Order and grouping of its items have no meaning of their own. */
export function containerItem(
  relationship: Relationship | undefined,
  name: Code,
  children: readonly Dataset[],
  coding: TextCoding,
  template?: string,
): Dataset {
  const identification =
    template === undefined
      ? undefined
      : sequence(
          tags.contentTemplateSequence,
          datasetOf(
            ascii(tags.mappingResource, 'CS', 'DCMR'),
            ascii(tags.templateIdentifier, 'CS', template),
          ),
        );
  return datasetOf(
    ...head(relationship, 'CONTAINER', name, coding),
    ascii(tags.continuityOfContent, 'CS', 'SEPARATE'),
    identification,
    contents(children),
  );
}

export const codeItem = (
  relationship: Relationship,
  name: Code,
  value: Code,
  coding: TextCoding,
  children: readonly Dataset[] = [],
): Dataset =>
  datasetOf(
    ...head(relationship, 'CODE', name, coding),
    codeSequence(tags.conceptCodeSequence, value, coding),
    contents(children),
  );

/** A code that is already an item of a code sequence. */
export const givenCodeItem = (
  relationship: Relationship,
  name: Code,
  value: Dataset,
  coding: TextCoding,
): Dataset =>
  datasetOf(...head(relationship, 'CODE', name, coding), sequence(tags.conceptCodeSequence, value));

export const textItem = (
  relationship: Relationship,
  name: Code,
  value: string,
  coding: TextCoding,
): Dataset =>
  datasetOf(...head(relationship, 'TEXT', name, coding), text(tags.textValue, 'UT', value, coding));

export const uidItem = (relationship: Relationship, name: Code, value: string, coding: TextCoding): Dataset =>
  datasetOf(...head(relationship, 'UIDREF', name, coding), ascii(tags.uid, 'UI', value));

/** A number, of which the decimal string keeps at least ten digits, and its unit in UCUM. */
export const numberItem = (
  relationship: Relationship,
  name: Code,
  value: number,
  unit: Code,
  coding: TextCoding,
): Dataset =>
  datasetOf(
    ...head(relationship, 'NUM', name, coding),
    sequence(
      tags.measuredValueSequence,
      datasetOf(
        codeSequence(tags.measurementUnitsCodeSequence, unit, coding),
        ascii(tags.numericValue, 'DS', value),
      ),
    ),
  );

/** A segment of a segmentation. */
export const segmentItem = (
  relationship: Relationship,
  name: Code,
  image: Parameters<typeof reference>[0],
  segmentNumber: number,
  coding: TextCoding,
): Dataset =>
  datasetOf(
    ...head(relationship, 'IMAGE', name, coding),
    sequence(
      tags.referencedSopSequence,
      datasetOf(...reference(image), binary(tags.referencedSegmentNumber, 'US', segmentNumber)),
    ),
  );

const head = (
  relationship: Relationship | undefined,
  valueType: string,
  name: Code,
  coding: TextCoding,
): (DicomElement | undefined)[] => [
  relationship === undefined ? undefined : ascii(tags.relationshipType, 'CS', relationship),
  ascii(tags.valueType, 'CS', valueType),
  codeSequence(tags.conceptNameCodeSequence, name, coding),
];

const contents = (children: readonly Dataset[]): DicomElement | undefined =>
  children.length === 0 ? undefined : sequence(tags.contentSequence, ...children);
