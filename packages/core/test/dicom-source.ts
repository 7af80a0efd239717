import { ascii, binary, bytesElement, datasetOf, sequence } from '../src/dicom/build.ts';
import { type Dataset, type DicomElement, firstItem, itemsOf, numbers, word } from '../src/dicom/dataset.ts';
import { parseDicom } from '../src/dicom/parse.ts';
import type { DicomSource, SliceReference, Vector } from '../src/dicom/source.ts';
import { type Tag, tags } from '../src/dicom/tags.ts';
import { transferSyntaxes } from '../src/dicom/transfer-syntaxes.ts';
import { writeDicomFile } from '../src/dicom/write-file.ts';
import { collectBytes } from '../src/formats/volume-file.ts';
import type { Grid, Volume } from '../src/volume.ts';

/*
 * The source of DICOM results and its grid, from the headers of files: read in the plainest way, by itself, so that the reader of
 * series and the makers of results can be held against it.
 */

interface Image extends SliceReference {
  readonly dataset: Dataset;
  readonly orientation: readonly number[];
  readonly spacing: readonly number[];
}

/** The images of a file: itself, or its frames. */
function imagesOf(bytes: Uint8Array): Image[] {
  const { dataset } = parseDicom(bytes)!;
  const sopClassUid = word(dataset, tags.sopClassUid)!;
  const sopInstanceUid = word(dataset, tags.sopInstanceUid)!;
  const frames = itemsOf(dataset, tags.perFrameFunctionalGroupsSequence);
  const shared = firstItem(dataset, tags.sharedFunctionalGroupsSequence) ?? new Map();
  const of = (frame: Dataset, group: Tag, tag: Tag) =>
    numbers(firstItem(frame, group) ?? firstItem(shared, group) ?? dataset, tag)!;
  return (frames.length > 0 ? frames : [dataset]).map((frame, i) => ({
    dataset,
    sopClassUid,
    sopInstanceUid,
    ...(frames.length > 0 ? { frameNumber: i + 1 } : {}),
    position: of(frame, tags.planePositionSequence, tags.imagePositionPatient) as unknown as Vector,
    orientation: of(frame, tags.planeOrientationSequence, tags.imageOrientationPatient),
    spacing: of(frame, tags.pixelMeasuresSequence, tags.pixelSpacing),
  }));
}

/** The source of one series, and the grid of its volume in RAS+ mm, slices in the order of their positions along the normal. */
export function sourceOf(files: readonly Uint8Array[]): { source: DicomSource; grid: Grid } {
  const images = files.flatMap(imagesOf);
  const [rx, ry, rz, cx, cy, cz] = images[0].orientation;
  const normal = [ry * cz - rz * cy, rz * cx - rx * cz, rx * cy - ry * cx];
  const along = ({ position }: Image) => position.reduce((sum, value, i) => sum + value * normal[i], 0);
  const slices = images.sort((a, b) => along(a) - along(b));
  const [first, last] = [slices[0], slices[slices.length - 1]];
  const [rows, columns] = first.spacing;
  const step = first.position.map((value, i) =>
    slices.length > 1 ? (last.position[i] - value) / (slices.length - 1) : normal[i],
  );
  const sign = [-1, -1, 1];
  const affine = sign.flatMap((s, r) => [
    s * [rx, ry, rz][r] * columns,
    s * [cx, cy, cz][r] * rows,
    s * step[r],
    s * first.position[r],
  ]);
  return {
    source: {
      dataset: new Map([...first.dataset].filter(([tag]) => tag !== tags.pixelData)),
      explicit: true,
      littleEndian: true,
      rowDirection: [rx, ry, rz],
      columnDirection: [cx, cy, cz],
      pixelSpacing: [rows, columns],
      slices,
    },
    grid: {
      size: [
        numbers(first.dataset, tags.columns, 'US')![0],
        numbers(first.dataset, tags.rows, 'US')![0],
        slices.length,
      ],
      affine: [...affine, 0, 0, 0, 1],
    },
  };
}

/** A label map without any symmetry: a wedge of 1, a block of 3 in other slices, one voxel of 2 in the last corner. */
export function asymmetricLabels({ size, affine }: Grid): Volume {
  const [nx, ny, nz] = size;
  const voxels = new Uint8Array(nx * ny * nz);
  for (let z = 0; z < nz; z++) {
    for (let y = 0; y < ny; y++) {
      for (let x = 0; x < nx; x++) {
        const at = (z * ny + y) * nx + x;
        const isIn = x < nx / 2 && y < ny / 3 + z && (x * 3 + y * 2) % 7 < 5;
        if (isIn && z * 3 <= nz * 2) voxels[at] = 1;
        if (x > nx * 0.6 && x < nx * 0.8 && y > ny * 0.4 && y < ny * 0.5 + z && z * 3 >= nz) voxels[at] = 3;
      }
    }
  }
  voxels[voxels.length - 1] = 2;
  return { size, affine, components: 1, voxels };
}

/** What a source made here is like. */
export interface MadeSource {
  readonly size?: readonly [columns: number, rows: number, slices: number];
  /** SpecificCharacterSet, and patient's name in it. */
  readonly characterSets?: readonly string[];
  readonly patientName?: Uint8Array;
  /** Each slice this far from straight above the one before, mm along a row: a tilted gantry. */
  readonly shearMm?: number;
  readonly frames?: boolean;
  /** Attributes to leave out. */
  readonly without?: readonly Tag[];
  readonly more?: readonly DicomElement[];
}

/** An oblique series with pixels of 0.8 (rows) × 0.5 mm (columns), 3 mm apart, and its grid. No number is round. */
export function madeSource(made: MadeSource = {}): { source: DicomSource; grid: Grid } {
  const [columns, rows, count] = made.size ?? [13, 7, 5];
  const [a, b] = [0.3, 0.2];
  const rowDirection: Vector = [Math.cos(a), Math.sin(a), 0];
  const columnDirection: Vector = [-Math.sin(a) * Math.cos(b), Math.cos(a) * Math.cos(b), Math.sin(b)];
  const normal: Vector = [Math.sin(a) * Math.sin(b), -Math.cos(a) * Math.sin(b), Math.cos(b)];
  const step = normal.map((value, i) => 3 * value + (made.shearMm ?? 0) * rowDirection[i]);
  const origin = [-31.25, 17.5, -102.125];
  const slices = Array.from({ length: count }, (_, k): SliceReference => {
    const position = origin.map((value, i) => Number((value + k * step[i]).toFixed(9)));
    return {
      sopClassUid: '1.2.840.10008.5.1.4.1.1.4',
      sopInstanceUid: made.frames ? '1.2.3.4' : `1.2.3.${k + 1}`,
      ...(made.frames ? { frameNumber: k + 1 } : {}),
      position: position as unknown as Vector,
    };
  });
  const raw = new TextEncoder();
  const elements = [
    ...(made.characterSets ? [ascii(tags.specificCharacterSet, 'CS', ...made.characterSets)] : []),
    ascii(tags.sopClassUid, 'UI', slices[0].sopClassUid),
    ascii(tags.modality, 'CS', 'MR'),
    bytesElement(tags.patientName, 'PN', made.patientName ?? raw.encode('Doe^Jane')),
    bytesElement(tags.patientId, 'LO', raw.encode('P-1 ')),
    ascii(tags.studyInstanceUid, 'UI', '1.2.3'),
    ascii(tags.seriesInstanceUid, 'UI', '1.2.3.0'),
    ascii(tags.frameOfReferenceUid, 'UI', '1.2.3.9'),
    binary(tags.rows, 'US', rows),
    binary(tags.columns, 'US', columns),
    ...(made.more ?? []),
  ];
  const affine = [-1, -1, 1].flatMap((s, r) => [
    s * rowDirection[r] * 0.5,
    s * columnDirection[r] * 0.8,
    s * step[r],
    s * origin[r],
  ]);
  return {
    source: {
      dataset: datasetOf(...elements.filter(({ tag }) => !made.without?.includes(tag))),
      explicit: true,
      littleEndian: true,
      rowDirection,
      columnDirection,
      pixelSpacing: [0.8, 0.5],
      slices,
    },
    grid: { size: [columns, rows, count], affine: [...affine, 0, 0, 0, 1] },
  };
}

/**
 * The files of a made source with int16 pixels: one for each slice, in the reverse of their order, or one with all frames
 * (enhanced MR).
 */
export async function madeFiles(made: MadeSource, voxels: Int16Array): Promise<Uint8Array<ArrayBuffer>[]> {
  const { source } = madeSource(made);
  const plane = voxels.length / source.slices.length;
  const bytes = new Uint8Array(voxels.buffer, voxels.byteOffset, voxels.byteLength);
  const [orientation, spacing] = [
    ascii(tags.imageOrientationPatient, 'DS', ...source.rowDirection, ...source.columnDirection),
    ascii(tags.pixelSpacing, 'DS', ...source.pixelSpacing),
  ];
  const image = [
    ascii(tags.imageType, 'CS', 'ORIGINAL', 'PRIMARY'),
    binary(tags.samplesPerPixel, 'US', 1),
    ascii(tags.photometricInterpretation, 'CS', 'MONOCHROME2'),
    binary(tags.bitsAllocated, 'US', 16),
    binary(tags.bitsStored, 'US', 16),
    binary(tags.highBit, 'US', 15),
    binary(tags.pixelRepresentation, 'US', 1),
  ];
  const placeOf = ({ position }: SliceReference) => ascii(tags.imagePositionPatient, 'DS', ...position);
  const write = (sopClassUid: string, sopInstanceUid: string, elements: readonly DicomElement[]) =>
    collectBytes(
      writeDicomFile({
        sopClassUid,
        sopInstanceUid,
        transferSyntax: transferSyntaxes.explicitLittleEndian,
        dataset: new Map([
          ...source.dataset,
          ...datasetOf(
            ascii(tags.sopClassUid, 'UI', sopClassUid),
            ascii(tags.sopInstanceUid, 'UI', sopInstanceUid),
            ...image,
            ...elements,
          ),
        ]),
      }),
    );
  if (made.frames) {
    const groups = datasetOf(
      sequence(tags.planeOrientationSequence, datasetOf(orientation)),
      sequence(tags.pixelMeasuresSequence, datasetOf(spacing, ascii(tags.sliceThickness, 'DS', 3))),
    );
    const file = await write('1.2.840.10008.5.1.4.1.1.4.1', source.slices[0].sopInstanceUid, [
      ascii(tags.numberOfFrames, 'IS', source.slices.length),
      sequence(tags.sharedFunctionalGroupsSequence, groups),
      sequence(
        tags.perFrameFunctionalGroupsSequence,
        ...source.slices.map((slice) =>
          datasetOf(sequence(tags.planePositionSequence, datasetOf(placeOf(slice)))),
        ),
      ),
      bytesElement(tags.pixelData, 'OW', bytes),
    ]);
    return [file];
  }
  const files = source.slices.map((slice, k) =>
    write(slice.sopClassUid, slice.sopInstanceUid, [
      orientation,
      spacing,
      placeOf(slice),
      ascii(tags.sliceThickness, 'DS', 3),
      bytesElement(tags.pixelData, 'OW', bytes.subarray(2 * k * plane, 2 * (k + 1) * plane)),
    ]),
  );
  return (await Promise.all(files)).reverse();
}
