import { describe, expect, it } from 'vitest';
import { asymmetricLabels, madeSource } from '../../test/dicom-source.ts';
import { itemsOf, number, word } from '../dicom/dataset.ts';
import { parseDicom } from '../dicom/parse.ts';
import { readSegmentationFile } from '../dicom/read-segmentation.ts';
import { tags } from '../dicom/tags.ts';
import type { FileGeometry } from '../formats/file-geometry.ts';
import { readMesh } from '../formats/mesh-reader.ts';
import { readTransform } from '../formats/transform-file.ts';
import { collectBytes, readVolume, sourceFromBytes, type VolumeExtension } from '../formats/volume-file.ts';
import { webPlatform } from '../formats/web-platform.ts';
import { type Affine, applyAffine, invert, type Vec3 } from '../geometry/affine.ts';
import { oblique } from '../geometry/fixtures.ts';
import type { Mesh } from '../labels/surface.ts';
import type { Volume } from '../volume.ts';
import type { Output, OutputFormat } from './elements.ts';
import { chooseFormat, encodeOutput, formatKept, formatOfResult } from './encode-output.ts';
import type { OutputValue } from './values.ts';

const encode = (
  type: Output['type'],
  value: OutputValue,
  format: OutputFormat,
  options?: Parameters<typeof encodeOutput>[4],
) => collectBytes(encodeOutput(type, value, format, webPlatform, options));
const textOf = async (type: Output['type'], value: OutputValue, format: OutputFormat) =>
  new TextDecoder().decode(await encode(type, value, format));

const nii = { extension: 'nii' } as const;

describe('chooseFormat()', () => {
  it('uses the input’s format for label maps, otherwise the type’s first', () => {
    for (const extension of ['nii', 'nii.gz', 'mha', 'nrrd'] as const) {
      const formatOf = (type: Output['type']) => chooseFormat('result', { type }, undefined, { extension });
      expect(formatOf('LabelVolume')).toBe(extension);
      expect(formatOf('VTKMesh')).toBe('vtk');
      expect(formatOf('Fiducials')).toBe('json');
      expect(formatOf('PlainText')).toBe('txt');
      expect(formatOf('Measurements')).toBe('json');
      expect(formatOf('TransformGrid')).toBe('nii.gz');
      expect(formatOf('TransformBSpline')).toBe('h5');
      expect(formatOf('TransformLinear')).toBe('mat');
    }
  });

  it('takes the wanted format where the type can have it', () => {
    expect(chooseFormat('result', { type: 'LabelVolume' }, 'stl', nii)).toBe('stl');
    expect(chooseFormat('result', { type: 'LabelVolume' }, 'mha', nii)).toBe('mha');
    expect(chooseFormat('result', { type: 'TransformLinear' }, 'txt', nii)).toBe('txt');
    for (const wanted of ['nrrd', '', 'png'])
      expect(() => chooseFormat('points', { type: 'Fiducials' }, wanted, nii)).toThrow(
        expect.objectContaining({
          code: 'NOT_ACCEPTABLE',
          field: 'format',
          message: expect.stringMatching(/^points .*json, txt/),
        }),
      );
  });
});

describe('the format of a label map of a DICOM series', () => {
  const made = madeSource();
  const input = { extension: 'nii.gz', source: made.source } as const;
  const labelVolume = { type: 'LabelVolume' } as const;

  it('is seg.dcm by default, otherwise what the request names', () => {
    expect(chooseFormat('result', labelVolume, undefined, input)).toBe('seg.dcm');
    expect(chooseFormat('result', { type: 'VTKMesh' }, undefined, input)).toBe('vtk');
    for (const wanted of ['seg.dcm', 'labelmap.dcm', 'rtstruct.dcm', 'key.dcm', 'nrrd', 'stl'])
      expect(chooseFormat('result', labelVolume, wanted, input)).toBe(wanted);
  });

  it('is not DICOM for other inputs or images without the referenced UIDs', () => {
    const { source } = madeSource({ without: [tags.studyInstanceUid] });
    expect(chooseFormat('result', labelVolume, undefined, { ...input, source })).toBe('nii.gz');
    for (const other of [nii, { ...input, source }]) {
      for (const wanted of ['seg.dcm', 'labelmap.dcm', 'rtstruct.dcm', 'key.dcm']) {
        expect(() => chooseFormat('result', labelVolume, wanted, other)).toThrow(
          expect.objectContaining({
            code: 'NOT_ACCEPTABLE',
            field: 'format',
            message: expect.stringMatching(
              /^result .*DICOM series.* choose one of: nii\.gz, nii, mha, nrrd, vtk, stl\.$/,
            ),
          }),
        );
      }
    }
  });

  it('is the input’s extension on another grid, unless seg.dcm is requested', () => {
    const labelMap = asymmetricLabels(made.grid);
    const moved = { ...labelMap, affine: labelMap.affine.map((v, i) => (i === 3 ? v + 5 : v)) };
    expect(formatOfResult('result', labelVolume, labelMap, undefined, input)).toBe('seg.dcm');
    expect(formatOfResult('result', labelVolume, moved, undefined, input)).toBe('nii.gz');
    expect(formatOfResult('result', labelVolume, moved, 'seg.dcm', input)).toBe('seg.dcm');
    expect(formatOfResult('result', labelVolume, moved, undefined, nii)).toBe('nii');
  });

  it('is kept besides as a segmentation, on another grid in the input’s extension', () => {
    const labelMap = asymmetricLabels(made.grid);
    const moved = { ...labelMap, affine: labelMap.affine.map((v, i) => (i === 3 ? v + 5 : v)) };
    const kept = (map: Volume, format: OutputFormat) => formatKept('result', labelVolume, map, format, input);
    for (const format of ['zip', 'stl', 'vtk'] as const) {
      expect(kept(labelMap, format)).toBe('seg.dcm');
      expect(kept(moved, format)).toBe('nii.gz');
      expect(formatKept('result', labelVolume, moved, format, nii)).toBe('nii');
    }
    for (const format of ['seg.dcm', 'labelmap.dcm', 'mha'] as const)
      expect(kept(labelMap, format)).toBeUndefined();
  });

  it('is written with the names of the manifest, and needs the series', async () => {
    const labelMap = asymmetricLabels(made.grid);
    const dicom = {
      source: made.source,
      maker: { id: 'an-app', name: 'An app', version: '1' },
      name: 'organs',
      description: 'Organs',
      seed: 'a job',
    };
    const labels = [{ value: 3, name: 'Spleen', color: '#3cb44b' }];
    for (const [format, sopClass] of [
      ['seg.dcm', '1.2.840.10008.5.1.4.1.1.66.4'],
      ['labelmap.dcm', '1.2.840.10008.5.1.4.1.1.66.7'],
      ['rtstruct.dcm', '1.2.840.10008.5.1.4.1.1.481.3'],
    ] as const) {
      const bytes = await encode('LabelVolume', labelMap, format, { dicom, labels });
      expect(word(parseDicom(bytes)!.dataset, tags.sopClassUid)).toBe(sopClass);
      expect(await encode('LabelVolume', labelMap, format, { dicom, labels })).toHaveLength(bytes.length);
      if (format === 'rtstruct.dcm') {
        const [structure] = itemsOf(parseDicom(bytes)!.dataset, tags.structureSetRoiSequence);
        expect([number(structure, tags.roiNumber), word(structure, tags.roiName)]).toEqual([3, 'Spleen']);
      } else {
        const read = readSegmentationFile(bytes);
        expect(read.labelMap).toEqual(labelMap);
        expect(read.labels[0]).toMatchObject(labels[0]);
      }
      await expect(encode('LabelVolume', labelMap, format)).rejects.toMatchObject({ code: 'NOT_ACCEPTABLE' });
    }
  });
});

describe('a key picture', () => {
  const { source, grid } = madeSource();
  const labelMap = asymmetricLabels(grid);
  const dicom = {
    source,
    maker: { id: 'an-app', name: 'An app', version: '1' },
    name: 'organs',
    description: 'Organs',
  };

  it('shows a slice of the images', async () => {
    const asked: number[] = [];
    const readSlice = async (index: number) => {
      asked.push(index);
      return new Int16Array(13 * 7).fill(index);
    };
    const bytes = await encode('LabelVolume', labelMap, 'key.dcm', { dicom: { ...dicom, readSlice } });
    expect(word(parseDicom(bytes)!.dataset, tags.sopClassUid)).toBe('1.2.840.10008.5.1.4.1.1.7');
    expect(asked).toHaveLength(1);
  });

  it.each([dicom, undefined])('is refused where they are not at hand', async (given) => {
    await expect(encode('LabelVolume', labelMap, 'key.dcm', { dicom: given })).rejects.toMatchObject({
      code: 'NOT_ACCEPTABLE',
      field: 'format',
    });
  });
});

describe('encodeOutput()', () => {
  /** A block of 8 × 6 × 4 voxels in 12 × 10 × 8, oblique and left-handed; its first voxel is at (2, 2, 2). */
  const block: Volume = {
    size: [12, 10, 8],
    affine: oblique,
    components: 1,
    voxels: Uint8Array.from({ length: 960 }, (_, i) => {
      const [x, y, z] = [i % 12, Math.floor(i / 12) % 10, Math.floor(i / 120)];
      return x > 1 && x < 10 && y > 1 && y < 8 && z > 1 && z < 6 ? 5 : 0;
    }),
  };
  const labels = [{ value: 5, name: 'kidney', color: '#12ab34' }];

  it.each<VolumeExtension>(['nii', 'nii.gz', 'mha', 'nrrd'])('writes a label map as %s', async (format) => {
    const bytes = await encode('LabelVolume', block, format, { labels });
    const { volume, header } = await readVolume([sourceFromBytes(`a.${format}`, bytes)], webPlatform);
    expect(header.extension).toBe(format);
    expect(volume.size).toEqual(block.size);
    expect(volume.voxels).toEqual(block.voxels);
    volume.affine.forEach((v, i) => void expect(v).toBeCloseTo(oblique[i], 4));
    // NIFTI_INTENT_LABEL, 1002, at byte 68; NRRD alone has a place for the names.
    if (format === 'nii') expect(new DataView(bytes.buffer).getInt16(68, true)).toBe(1002);
    if (format === 'nrrd') expect(new TextDecoder().decode(bytes)).toContain('kidney');
  });

  it('states the geometry of the input again', async () => {
    const geometry: FileGeometry = {
      format: 'nifti',
      version: 1,
      units: 2,
      pixdim: [1, 1.2, 0.8, 2.5],
      sform: { code: 4, rows: oblique.slice(0, 12) },
    };
    const bytes = await encode('LabelVolume', block, 'nii', { geometry });
    // sform_code at byte 254; without a statement it is another.
    const codeIn = (from: typeof bytes) => new DataView(from.buffer).getInt16(254, true);
    expect(codeIn(bytes)).toBe(4);
    expect(codeIn(await encode('LabelVolume', block, 'nii'))).not.toBe(4);
  });

  it.each(['vtk', 'stl'] as const)(
    'writes the smoothed and simplified surface of a label map as %s',
    async (format) => {
      const mesh = readMesh(await encode('LabelVolume', block, format));
      const inverse = invert(oblique);
      const corners = Array.from(
        { length: mesh.positions.length / 3 },
        (_, i) => [...mesh.positions.subarray(3 * i, 3 * i + 3)] as unknown as Vec3,
      ).map((p) => applyAffine(inverse, p));
      // The block ends between the voxels 1 and 2, 9 and 10 …
      const [low, high] = [
        [1.5, 1.5, 1.5],
        [9.5, 7.5, 5.5],
      ];
      for (const axis of [0, 1, 2]) {
        const along = corners.map((p) => p[axis]);
        expect(Math.abs(Math.min(...along) - low[axis])).toBeLessThan(0.5);
        expect(Math.abs(Math.max(...along) - high[axis])).toBeLessThan(0.5);
      }
      // 2 × (8 · 6 + 8 · 4 + 6 · 4) faces of voxels, two triangles each.
      expect(mesh.triangles.length / 3).toBeLessThan(0.7 * 416);
      expect(mesh.triangles.length / 3).toBeGreaterThan(40);
      // Smoothing rounds the corners: no vertex lies on the corner that the voxels have.
      const steps = (v: number) => Math.abs(v * 6 - Math.round(v * 6)) < 1e-3;
      expect(corners.filter((p) => !p.every(steps)).length).toBeGreaterThan(0.5 * corners.length);
      if (format === 'vtk') expect(mesh.labels).toEqual(new Uint16Array(mesh.triangles.length / 3).fill(5));
    },
  );

  it('writes meshes as VTK and STL', async () => {
    const mesh: Mesh = {
      positions: Float32Array.of(0, 0, 0, 10.5, 0, 0.25, -3.125, 7, 0),
      triangles: Uint32Array.of(0, 2, 1),
    };
    const vtk = await textOf('VTKMesh', mesh, 'vtk');
    expect(vtk).toMatch(
      /^# vtk DataFile .*\n.*SPACE=RAS\nASCII\n.*\nPOINTS 3 float\n0 0 0\n10\.5 0 0\.25\n-3\.125 7 0\n/,
    );
    const stl = await encode('VTKMesh', mesh, 'stl');
    // A header of 80 bytes, the count, 50 bytes a triangle.
    expect(stl).toHaveLength(134);
    expect(new DataView(stl.buffer).getUint32(80, true)).toBe(1);
  });

  it('writes points, texts and measurements', async () => {
    const points = [
      [1, -2.5, 3],
      [4, 5, 6.25],
    ] as const;
    expect(await textOf('Fiducials', points, 'json')).toBe('[[1,-2.5,3],[4,5,6.25]]\n');
    expect(await textOf('Fiducials', points, 'txt')).toBe('1,-2.5,3;4,5,6.25');
    expect(await textOf('PlainText', 'two\n"words"', 'txt')).toBe('two\n"words"');
    expect(await textOf('PlainText', 'two\n"words"', 'json')).toBe('{"text":"two\\n\\"words\\""}\n');
    const rows = [{ value: 3, name: 'liver', voxels: 2, volumeMl: 0.5 }];
    expect(await textOf('Measurements', rows, 'json')).toBe(
      '{\n  "labels": [\n    {\n      "value": 3,\n      "name": "liver",\n      "voxels": 2,\n      "volumeMl": 0.5\n    }\n  ]\n}\n',
    );
    expect(await textOf('Measurements', rows, 'csv')).toMatch(
      /^label,name,voxels,volume_ml,.*\r\n3,liver,2,0\.5,/,
    );
  });

  it('writes transforms of each kind', async () => {
    const matrix: Affine = [0.9, 0.2, 0, 5, -0.1, 1.1, 0, -7, 0, 0, 1.5, 3, 0, 0, 0, 1];
    for (const format of ['mat', 'txt'] as const) {
      const bytes = await encode('TransformLinear', { kind: 'linear', matrix }, format);
      const back = await readTransform(sourceFromBytes('a', bytes), webPlatform);
      (back as { matrix: Affine }).matrix.forEach((v, i) => void expect(v).toBeCloseTo(matrix[i], 6));
    }
    const spline = Uint8Array.of(0x89, 0x48, 0x44, 0x46, 0x0d, 0x0a, 0x1a, 0x0a, 7);
    expect(await encode('TransformBSpline', { kind: 'bspline', bytes: spline }, 'h5')).toEqual(spline);
    const displacement: Volume = {
      size: [3, 2, 2],
      affine: oblique,
      components: 3,
      voxels: Float32Array.from({ length: 36 }, (_, i) => (i * 7) % 11),
    };
    const grid = await encode('TransformGrid', { kind: 'grid', displacement }, 'nii.gz');
    const back = await readTransform(sourceFromBytes('a.nii.gz', grid), webPlatform);
    expect(back).toMatchObject({
      kind: 'grid',
      displacement: { size: [3, 2, 2], voxels: displacement.voxels },
    });
  });
});
