import { describe, expect, it } from 'vitest';
import type { Volume } from '../volume.ts';
import { type LabelMeasurement, measureLabels } from './measure.ts';
import { measurementsToCsv, measurementsToTsv, parseMeasurementsCsv } from './measurement-csv.ts';

/** A voxel is 2 × 1 × 4 mm; x points to the left, so the frame is left-handed. */
const affine = [-2, 0, 0, 10, 0, 1, 0, -3, 0, 0, 4, 0.5, 0, 0, 0, 1];
const size = [5, 4, 3] as const;

/** 300 in 2 × 1 × 1 voxels from [1, 2, 1]; 7 in one voxel at [4, 3, 2]. */
function labelMap(): Volume {
  const voxels = new Uint16Array(60);
  const at = (x: number, y: number, z: number) => x + 5 * (y + 4 * z);
  voxels[at(1, 2, 1)] = voxels[at(2, 2, 1)] = 300;
  voxels[at(4, 3, 2)] = 7;
  return { voxels, size, components: 1, affine };
}

const header =
  'label,name,voxels,volume_ml,centroid_r_mm,centroid_a_mm,centroid_s_mm,' +
  'box_min_x_voxel,box_min_y_voxel,box_min_z_voxel,box_max_x_voxel,box_max_y_voxel,box_max_z_voxel,' +
  'box_min_r_mm,box_min_a_mm,box_min_s_mm,box_max_r_mm,box_max_a_mm,box_max_s_mm';

const row = (name: string, value = 1): LabelMeasurement => ({ value, name, voxels: 2, volumeMl: 0.5 });
const nameCell = (name: string) =>
  measurementsToCsv([row(name)]).slice(
    header.length + '\r\n1,'.length,
    -`,2,0.5${','.repeat(15)}\r\n`.length,
  );

describe('measurementsToCsv()', () => {
  it('writes a row for each label, in its order, with units', () => {
    const labels = [
      { value: 300, name: 'Läsion' },
      { value: 2, name: 'absent' },
    ];
    // Corners of the box of 300 by hand: x from 0.5 to 2.5 is R 9 to 5, y 1.5 to 2.5 is A -1.5 to -0.5, z 0.5 to 1.5 is S 2.5 to 6.5.
    expect(measurementsToCsv(measureLabels(labelMap(), labels))).toBe(
      `${[
        header,
        '300,Läsion,2,0.016,7,-1,4.5,1,2,1,2,2,1,5,-1.5,2.5,9,-0.5,6.5',
        `2,absent,0,0${','.repeat(15)}`,
        '7,label 7,1,0.008,2,0,8.5,4,3,2,4,3,2,1,-0.5,6.5,3,0.5,10.5',
      ].join('\r\n')}\r\n`,
    );
  });

  it('writes only the header without labels', () => {
    expect(measurementsToCsv([])).toBe(`${header}\r\n`);
  });

  it.each([
    ['left, upper lobe', '"left, upper lobe"'],
    ['the "hot" spot', '"the ""hot"" spot"'],
    ['two\nlines', '"two\nlines"'],
    ['Größe 肺', 'Größe 肺'],
    ['', ''],
    ["L'Hôpital", "L'Hôpital"],
    ['a=b', 'a=b'],
  ])('writes the name %j as RFC 4180 says', (name, cell) => {
    expect(nameCell(name)).toBe(cell);
  });

  it.each([
    ['=1+1', "'=1+1"],
    ['+1', "'+1"],
    ['-1', "'-1"],
    ['@SUM(A1)', "'@SUM(A1)"],
    ['\t=1', "'\t=1"],
    ['\r=1', '"\'\r=1"'],
    ['\n=1', '"\'\n=1"'],
    ['＝1', "'＝1"],
    ['=HYPERLINK("http://a.example","x")', '"\'=HYPERLINK(""http://a.example"",""x"")"'],
    ["'=1", "''=1"],
  ])('keeps the name %j from being a formula', (name, cell) => {
    expect(nameCell(name)).toBe(cell);
  });

  it('leaves negative numbers as they are', () => {
    expect(measurementsToCsv([row('a', -5)])).toContain('\r\n-5,a,');
  });

  it('writes no text where a number belongs', () => {
    const odd = { ...row('a'), centroidMm: ['=1+1', Number.NaN, 3] } as unknown as LabelMeasurement;
    expect(measurementsToCsv([odd]).split('\r\n')[1]).toBe(`1,a,2,0.5,,,3${','.repeat(12)}`);
  });
});

describe('measurementsToCsv() with a scan', () => {
  it('writes the mean last, and reads it back', () => {
    const measured = [{ ...row('a'), meanIntensity: -99.73076923076923 }, row('b', 2)];
    const text = measurementsToCsv(measured);
    const [first, second, third] = text.split('\r\n');
    expect(first).toBe(`${header},mean_intensity`);
    expect(second).toBe(`1,a,2,0.5${','.repeat(15)},-99.73076923076923`);
    expect(third).toBe(`2,b,2,0.5${','.repeat(16)}`);
    expect(parseMeasurementsCsv(text)).toEqual(measured);
  });

  it('reads a mean that is not a number as none', () => {
    const [read] = parseMeasurementsCsv('label,name,voxels,volume_ml,mean_intensity\n1,a,0,0,nan');
    expect(read).toEqual({ value: 1, name: 'a', voxels: 0, volumeMl: 0 });
  });
});

describe('measurementsToTsv()', () => {
  it('writes the numbers of the CSV, with tabs', () => {
    const measured = measureLabels(labelMap(), [{ value: 300, name: 'Läsion' }]);
    const csv = measurementsToCsv(measured);
    expect(measurementsToTsv(measured)).toBe(csv.replaceAll(',', '\t').replaceAll('\r\n', '\n'));
  });

  it('keeps a name in its cell, and from being a formula', () => {
    const cell = (name: string) =>
      measurementsToTsv([row(name)])
        .split('\n')[1]
        .split('\t')[1];
    expect(cell('a\tb\r\nc, "d"')).toBe('a b  c, "d"');
    expect(cell('=1+1')).toBe("'=1+1");
    expect(cell('\t=1')).toBe("' =1");
  });
});

describe('parseMeasurementsCsv()', () => {
  it('reads back every digit and every name', () => {
    const names = ['a,b', 'a"b"', '"', 'a\r\nb', 'Läsion', '=1', "'=1", "''@", "'a", '\t', '', ' x '];
    const measured = [
      ...measureLabels(labelMap(), [{ value: 300, name: '-1' }]),
      ...names.map((name, i) => ({ ...row(name, 70_000 - i), volumeMl: 0.1 + 0.2 })),
    ];
    expect(parseMeasurementsCsv(measurementsToCsv(measured))).toEqual(measured);
  });

  it('reads what other programs write: BOM, LF, columns in another order', () => {
    expect(parseMeasurementsCsv('\ufeffname,volume_ml,more,label,voxels\n"a",1.5,x,3,20')).toEqual([
      { value: 3, name: 'a', voxels: 20, volumeMl: 1.5 },
    ]);
  });

  it.each([
    ['', 'Row 1 of the measurements (the header is row 1) has no column label'],
    ['label,name,voxels\r\n', 'has no column volume_ml'],
    ['label,name,voxels,volume_ml\n1,a,2\n', 'Row 2 of the measurements (the header is row 1) has 3 cells'],
    ['label,name,voxels,volume_ml\n1,a,2,3\n1,a,two,3\n', 'Row 3 of the measurements'],
    ['label,name,voxels,volume_ml\n1,a,,3\n', 'has no voxels'],
    ['label,name,voxels,volume_ml\n1,"a,2,3\n', 'quotation mark that is not closed'],
    ['label,name,voxels,volume_ml\n1,"a"b,2,3\n', 'text after the end of a cell'],
  ])('refuses %j', (text, message) => {
    expect(() => parseMeasurementsCsv(text)).toThrow(message);
  });

  it('takes a centre or a box only if complete', () => {
    const names = header.split(',');
    const cells = ['3', 'a', '20', '1.5', ...Array.from({ length: 15 }, (_, i) => String(i - 3))];
    const whole = {
      value: 3,
      name: 'a',
      voxels: 20,
      volumeMl: 1.5,
      centroidMm: [-3, -2, -1],
      box: { min: [0, 1, 2], max: [3, 4, 5] },
      boxMm: { min: [6, 7, 8], max: [9, 10, 11] },
    };
    const read = (row: string[]) => parseMeasurementsCsv(`${names.join(',')}\n${row.join(',')}`)[0];
    expect(read(cells)).toEqual(whole);
    for (const [at, name] of names.entries()) {
      if (at < 4) continue;
      const {
        [name.startsWith('centroid') ? 'centroidMm' : name.endsWith('voxel') ? 'box' : 'boxMm']: _,
        ...rest
      } = whole;
      expect(read(cells.with(at, '')), name).toEqual(rest);
    }
  });

  it.each([
    ['label,name,voxels,volume_ml\n1,a,2,3\n1,"a,2,3\n', 3],
    ['label,name,voxels,volume_ml\n1,"a"b,2,3\n', 2],
    ['label,name,voxels,volume_ml\n1,"a\nb",2,3\n1,"a" ,2,3\n', 3],
    ['"label"x,name,voxels,volume_ml\n', 1],
    ['label,name,voxels,volume_ml\n1,a,2,3\n2,b,2,3\n3,c,,3', 4],
    ['label,name,voxels,volume_ml\n1,a,2,3\n2,b,2,3,\n', 3],
    ['label,name,voxels,volume_ml\n1,a,2,1e999\n', 2],
    ['label,name,voxels,volume_ml\n1,a,2,3\rx', 2],
  ])('names the row of a fault: %j', (text, row) => {
    expect(() => parseMeasurementsCsv(text)).toThrow(
      expect.objectContaining({ code: 'BAD_INPUT', message: expect.stringMatching(`^Row ${row} of`) }),
    );
  });

  it.each([
    ['1,"a""b""",2,3', 'a"b"'],
    ['1,"a,\r\nb",2,3', 'a,\r\nb'],
    ['1,"",2,3', ''],
    ["1,'=1,2,3", '=1'],
    ["1,''=1,2,3", "'=1"],
    ["1,'a,2,3", "'a"],
    ['1,=1,2,3', '=1'],
  ])('reads the name in %j', (line, name) => {
    for (const end of ['\r\n', '\n', ''])
      expect(parseMeasurementsCsv(`label,name,voxels,volume_ml\r\n${line}${end}`)).toEqual([
        { value: 1, name, voxels: 2, volumeMl: 3 },
      ]);
  });

  it('reads cells at the end of a line that are empty or quoted', () => {
    for (const last of ['', '""', '"x"']) {
      for (const end of ['\n', '\r\n', ''])
        expect(
          parseMeasurementsCsv(`label,name,voxels,volume_ml,more${end || '\n'}1,a,2,3,${last}${end}`),
        ).toEqual([{ value: 1, name: 'a', voxels: 2, volumeMl: 3 }]);
    }
  });

  it('reads a megabyte of quotation marks in linear time', () => {
    const start = performance.now();
    expect(() => parseMeasurementsCsv(`"${'""'.repeat(500_000)}`)).toThrow('not closed');
    expect(performance.now() - start).toBeLessThan(5000);
  });
});
