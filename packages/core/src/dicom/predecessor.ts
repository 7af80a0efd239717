import { ascii, codeSequence, datasetOf, sequence } from './build.ts';
import type { DicomElement } from './dataset.ts';
import { reference } from './result-modules.ts';
import { tags } from './tags.ts';
import type { TextCoding } from './text-coding.ts';

/*
 * How a result names the one that it takes the place of: an earlier result of the same series, made when the series had
 * fewer images. Each kind of object has its own attribute for it.
 */

/** An earlier result, in the same study. */
export interface Predecessor {
  readonly studyUid: string;
  readonly seriesUid: string;
  readonly sopClassUid: string;
  readonly sopInstanceUid: string;
}

/** Of a structured report (PredecessorDocumentsSequence, PS3.3 C.17.2). */
export const predecessorDocuments = (old: Predecessor | undefined): DicomElement[] =>
  old === undefined
    ? []
    : [
        sequence(
          tags.predecessorDocumentsSequence,
          datasetOf(
            sequence(
              tags.referencedSeriesSequence,
              datasetOf(
                sequence(tags.referencedSopSequence, datasetOf(...reference(old))),
                ascii(tags.seriesInstanceUid, 'UI', old.seriesUid),
              ),
            ),
            ascii(tags.studyInstanceUid, 'UI', old.studyUid),
          ),
        ),
      ];

/** Of a structure set (PredecessorStructureSetSequence, PS3.3 C.8.8.5). */
export const predecessorStructureSet = (old: Predecessor | undefined): DicomElement[] =>
  old === undefined ? [] : [sequence(tags.predecessorStructureSetSequence, datasetOf(...reference(old)))];

/**
 * Of an image, such as a segmentation (RelatedSeriesSequence, PS3.3 C.7.3.1): there is no attribute for a predecessor
 * alone. Each result is a series of its own, so that the series is the object.
 */
export const relatedSeries = (old: Predecessor | undefined, coding: TextCoding): DicomElement[] =>
  old === undefined
    ? []
    : [
        sequence(
          tags.relatedSeriesSequence,
          datasetOf(
            ascii(tags.studyInstanceUid, 'UI', old.studyUid),
            ascii(tags.seriesInstanceUid, 'UI', old.seriesUid),
            codeSequence(
              tags.purposeOfReferenceCodeSequence,
              { scheme: 'DCM', value: '122401', meaning: 'Same Anatomy' },
              coding,
            ),
          ),
        ),
      ];
