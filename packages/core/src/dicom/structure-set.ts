import { TomaatError } from '../errors.ts';
import type { Volume } from '../volume.ts';
import { ascii, bytesElement, codeSequence, datasetOf, fitText, sequence, text } from './build.ts';
import { createContourEncoder, type SlicePlane, traceContours } from './contours.ts';
import { type Dataset, type DicomElement, number, word, words } from './dataset.ts';
import { type Predecessor, predecessorStructureSet } from './predecessor.ts';
import {
  checkSource,
  dateAndTime,
  equipment,
  frameOfReference,
  type Maker,
  patientAndStudy,
  reference,
} from './result-modules.ts';
import { defaultCategory, type SegmentLabel, textsOf } from './segment-description.ts';
import { checkPlace } from './segmentation.ts';
import { segmentsOf } from './segmentation-identity.ts';
import { segmentVoxels } from './segmentation-pixels.ts';
import type { DicomSource, SliceReference, Vector } from './source.ts';
import { tags } from './tags.ts';
import { chooseTextCoding, type TextCoding } from './text-coding.ts';
import { transferSyntaxes } from './transfer-syntaxes.ts';
import { type CreateUid, createUids } from './uids.ts';
import type { DicomObject } from './write-file.ts';

/*
 * A label map as an RT structure set (PS3.3 A.19, C.8.8.5 to C.8.8.8): the outlines of each label in the planes of the
 * images.
 */

export interface StructureSetOptions {
  /** The meaning of the values. Values that are not listed become structures named “label 7”. */
  labels: readonly SegmentLabel[];
  maker: Maker;
  /** Name of the structure set, and the description of the series. */
  description: string;
  /** Distinguishes this result from others of the same seed. */
  role: string;
  /** The seed for UIDs (see `createUids`): equal seeds give equal UIDs. Random if missing. */
  seed?: string;
  /** Of the result; now if missing. */
  time?: Date;
  /** An earlier result that this one takes the place of. */
  predecessor?: Predecessor;
  /** The maximum memory for the contours, in bytes. 300 MB if missing, ten million points. */
  maxContourBytes?: number;
}

const sopClass = '1.2.840.10008.5.1.4.1.1.481.3';

/** The class of studies, retired, which RTReferencedStudySequence still requires. */
const studyClass = '1.2.840.10008.3.1.2.3.1';

/** After those of segmentations. */
const seriesNumber = 1001;

/**
 * Creates the structure set of a label map on the grid of its source.
 *
 * Every label of the list is a structure, in order, whether or not a voxel has it; ROINumber is its value. Its
 * contours are CLOSED_PLANAR, in the planes of the images (`traceContours()`): a pixel is in the structure exactly if its
 * centre is inside an odd number of the contours of its plane. A hole is a contour of its own, in the opposite direction.
 * The transfer syntax has implicit VR, because explicit VR cannot express the length of contours above 64 KiB.
 *
 * @throws TomaatError APP_OUTPUT if the label map is not on the grid of the source; BAD_INPUT if it is not a label
 *   map with values from 0 to 65535; NOT_ACCEPTABLE if the source lacks what a result refers to, or the contours
 *   exceed `maxContourBytes`
 */
export async function buildStructureSet(
  labelMap: Volume,
  source: DicomSource,
  options: StructureSetOptions,
): Promise<DicomObject> {
  checkSource(source, 'nii.gz');
  checkPlace(labelMap, source);
  const contours = contoursByValue(labelMap, source, options.maxContourBytes ?? 300e6);
  const structures = segmentsOf(options.labels, contours.keys());
  const coding = chooseTextCoding(words(source.dataset, tags.specificCharacterSet), [
    ...structures.flatMap(textsOf),
    ...[options.description, options.maker.name, options.maker.version],
  ]);
  const createUid = createUids(options.seed);
  const context: Context = { source, options, structures, contours, coding, createUid };
  const sopInstanceUid = createUid(`${options.role} structure set instance`);
  return {
    sopClassUid: sopClass,
    sopInstanceUid,
    transferSyntax: transferSyntaxes.implicitLittleEndian,
    dataset: datasetOf(
      ...patientAndStudy(source, coding),
      ...frameOfReference(source, createUid),
      ...equipment(options.maker, coding),
      ...seriesAndInstance(context, sopInstanceUid),
      ...structureSetModule(context),
      sequence(tags.roiContourSequence, ...structures.map((label) => roiContours(label, contours))),
      sequence(
        tags.rtRoiObservationsSequence,
        ...structures.map((label, i) => observation(label, i + 1, coding)),
      ),
      ascii(tags.approvalStatus, 'CS', 'UNAPPROVED'),
    ),
  };
}

/** The items of ContourSequence by the value of their label. */
type Contours = ReadonlyMap<number, readonly Dataset[]>;

interface Context {
  readonly source: DicomSource;
  readonly options: StructureSetOptions;
  readonly structures: readonly SegmentLabel[];
  readonly contours: Contours;
  readonly coding: TextCoding;
  readonly createUid: CreateUid;
}

/** What an item of ContourSequence takes in memory besides its points, roughly, in bytes. */
const itemBytes = 1000;

function contoursByValue(labelMap: Volume, source: DicomSource, maxBytes: number): Contours {
  const encode = createContourEncoder(Math.min(...source.pixelSpacing));
  const planes = source.slices.map((slice) => planeOf(slice, source));
  const images = source.slices.map((slice) => contourImages(imageReference(slice)));
  const closed = ascii(tags.contourGeometricType, 'CS', 'CLOSED_PLANAR');
  const found = new Map<number, Dataset[]>();
  let bytes = 0;
  for (const { value, slice, points } of traceContours(segmentVoxels(labelMap), labelMap.size)) {
    const data = encode(points, planes[slice]);
    bytes += data.length + itemBytes;
    if (bytes > maxBytes) throw tooManyContours(maxBytes);
    let items = found.get(value);
    if (!items) {
      items = [];
      found.set(value, items);
    }
    items.push(
      datasetOf(
        images[slice],
        closed,
        ascii(tags.numberOfContourPoints, 'IS', points.length / 2),
        ascii(tags.contourNumber, 'IS', items.length + 1),
        bytesElement(tags.contourData, 'DS', data),
      ),
    );
  }
  return found;
}

const tooManyContours = (maxBytes: number) =>
  new TomaatError(
    'NOT_ACCEPTABLE',
    `The labels have so many outlines that a structure set would take more than ${Math.round(maxBytes / 1e6)} MB. Take the result as seg.dcm, or remove small islands and holes in the app first.`,
    { field: 'format' },
  );

function planeOf(
  { position }: SliceReference,
  { rowDirection, columnDirection, pixelSpacing }: DicomSource,
): SlicePlane {
  const scaled = ([x, y, z]: Vector, by: number): Vector => [x * by, y * by, z * by];
  return {
    position,
    alongRow: scaled(rowDirection, pixelSpacing[1]),
    alongColumn: scaled(columnDirection, pixelSpacing[0]),
  };
}

const contourImages = (...images: readonly Dataset[]) => sequence(tags.contourImageSequence, ...images);

/** A reference to an image, or to some of its frames. */
const imageReference = (slice: SliceReference, frames = [slice.frameNumber ?? []].flat()): Dataset =>
  datasetOf(
    ...reference(slice),
    frames.length === 0 ? undefined : ascii(tags.referencedFrameNumber, 'IS', ...frames),
  );

function seriesAndInstance(
  { source, options, coding, createUid }: Context,
  sopInstanceUid: string,
): DicomElement[] {
  const [date, time] = dateAndTime(source, options.time ?? new Date());
  // The label must not be empty.
  const label = fitText(options.description, 'SH') === '' ? 'TOMAAT' : options.description;
  return [
    ascii(tags.sopClassUid, 'UI', sopClass),
    ascii(tags.sopInstanceUid, 'UI', sopInstanceUid),
    ascii(tags.modality, 'CS', 'RTSTRUCT'),
    ascii(tags.seriesInstanceUid, 'UI', createUid(`${options.role} structure set series`)),
    ascii(tags.seriesNumber, 'IS', seriesNumber),
    text(tags.seriesDescription, 'LO', options.description, coding),
    text(tags.operatorsName, 'PN', '', coding),
    ascii(tags.instanceNumber, 'IS', 1),
    text(tags.structureSetLabel, 'SH', label, coding),
    text(tags.structureSetName, 'LO', options.description, coding),
    ...[tags.instanceCreationDate, tags.seriesDate, tags.structureSetDate].map((tag) =>
      ascii(tag, 'DA', date),
    ),
    ...[tags.instanceCreationTime, tags.seriesTime, tags.structureSetTime].map((tag) =>
      ascii(tag, 'TM', time),
    ),
  ];
}

/** The images that were outlined, and the names of the structures (PS3.3 C.8.8.5). */
function structureSetModule(context: Context): DicomElement[] {
  const { source, options, structures, coding } = context;
  const frame = ascii(tags.frameOfReferenceUid, 'UI', frameOfReferenceUid(context));
  return [
    sequence(
      tags.referencedFrameOfReferenceSequence,
      datasetOf(frame, sequence(tags.rtReferencedStudySequence, referencedStudy(source))),
    ),
    ...predecessorStructureSet(options.predecessor),
    sequence(
      tags.structureSetRoiSequence,
      ...structures.map(({ value, name }) =>
        datasetOf(
          ascii(tags.roiNumber, 'IS', value),
          ascii(tags.referencedFrameOfReferenceUid, 'UI', frameOfReferenceUid(context)),
          text(tags.roiName, 'LO', name, coding),
          fitText(name, 'LO') === name ? undefined : text(tags.roiDescription, 'ST', name, coding),
          ascii(tags.roiGenerationAlgorithm, 'CS', 'AUTOMATIC'),
          text(tags.roiGenerationDescription, 'LO', `${options.maker.name} ${options.maker.version}`, coding),
        ),
      ),
    ),
  ];
}

/** As in `frameOfReference()`. */
const frameOfReferenceUid = ({ source, createUid }: Context): string =>
  word(source.dataset, tags.frameOfReferenceUid) ?? createUid('frame of reference');

function referencedStudy({ dataset, slices }: DicomSource): Dataset {
  const byImage = new Map<string, SliceReference[]>();
  for (const slice of slices) {
    const ofImage = byImage.get(slice.sopInstanceUid);
    if (ofImage) ofImage.push(slice);
    else byImage.set(slice.sopInstanceUid, [slice]);
  }
  const frameCount = number(dataset, tags.numberOfFrames);
  const images = [...byImage.values()].map((ofImage) => {
    const frames = ofImage.flatMap(({ frameNumber }) => frameNumber ?? []).sort((a, b) => a - b);
    // Without numbers all frames are meant.
    return imageReference(ofImage[0], frames.length === frameCount ? [] : frames);
  });
  return datasetOf(
    ascii(tags.referencedSopClassUid, 'UI', studyClass),
    ascii(tags.referencedSopInstanceUid, 'UI', word(dataset, tags.studyInstanceUid)!),
    sequence(
      tags.rtReferencedSeriesSequence,
      datasetOf(
        ascii(tags.seriesInstanceUid, 'UI', word(dataset, tags.seriesInstanceUid)!),
        contourImages(...images),
      ),
    ),
  );
}

/** The contours of a structure (PS3.3 C.8.8.6). Without a voxel it has no ContourSequence, which must not be empty. */
function roiContours({ value, color }: SegmentLabel, contours: Contours): Dataset {
  const items = contours.get(value);
  const rgb =
    color === undefined ? undefined : [1, 3, 5].map((at) => Number.parseInt(color.slice(at, at + 2), 16));
  return datasetOf(
    ascii(tags.referencedRoiNumber, 'IS', value),
    rgb && ascii(tags.roiDisplayColor, 'IS', ...rgb),
    items && sequence(tags.contourSequence, ...items),
  );
}

/** What a structure is (PS3.3 C.8.8.8): its codes, and ORGAN if they are those of an anatomical structure. */
function observation(label: SegmentLabel, observationNumber: number, coding: TextCoding): Dataset {
  const { value, code, category = defaultCategory, modifier } = label;
  const modifiers = modifier
    ? [codeSequence(tags.segmentedPropertyTypeModifierCodeSequence, modifier, coding)]
    : [];
  const coded = code && [
    codeSequence(tags.segmentedPropertyCategoryCodeSequence, category, coding),
    codeSequence(tags.rtRoiIdentificationCodeSequence, code, coding, ...modifiers),
  ];
  const isOrgan = code && category.scheme === defaultCategory.scheme && anatomical.has(category.value);
  return datasetOf(
    ascii(tags.observationNumber, 'IS', observationNumber),
    ascii(tags.referencedRoiNumber, 'IS', value),
    ...(coded ?? []),
    ascii(tags.rtRoiInterpretedType, 'CS', isOrgan ? 'ORGAN' : ''),
    text(tags.roiInterpreter, 'PN', '', coding),
  );
}

/** The two codes of SNOMED CT that are in use for the category “Anatomical Structure”. */
const anatomical: ReadonlySet<string> = new Set([defaultCategory.value, '91723000']);
