import { type Dataset, firstItem, itemsOf, numbers, word } from '../src/dicom/dataset.ts';
import { parseDicom } from '../src/dicom/parse.ts';
import type { DicomSource, SliceReference, Vector } from '../src/dicom/source.ts';
import { type Tag, tags } from '../src/dicom/tags.ts';
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
