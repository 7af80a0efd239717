import { describe, expect, it } from 'vitest';
import { asymmetricLabels, type MadeSource, madeSource } from '../../test/dicom-source.ts';
import { collectBytes } from '../formats/volume-file.ts';
import { type LabelMeasurement, measureLabels } from '../labels/measure.ts';
import { bytesElement, codeSequence, datasetOf, sequence } from './build.ts';
import { type Dataset, firstItem, itemsOf, number, text, type ValueElement, word, words } from './dataset.ts';
import { buildMeasurementReport, type MeasurementReportOptions } from './measurement-report.ts';
import { parseDicom } from './parse.ts';
import type { SegmentLabel } from './segment-description.ts';
import { buildSegmentation } from './segmentation.ts';
import { identifySegmentation, type SegmentationIdentityOptions } from './segmentation-identity.ts';
import { type Tag, tags } from './tags.ts';
import { chooseTextCoding } from './text-coding.ts';
import { writeDicomFile } from './write-file.ts';

const labels: SegmentLabel[] = [
  {
    value: 3,
    name: 'Left lung',
    code: { scheme: 'SCT', value: '39607008', meaning: 'Lung' },
    modifier: { scheme: 'SCT', value: '7771000', meaning: 'Left' },
  },
  {
    value: 1,
    name: 'Tumour',
    category: { scheme: 'SCT', value: '49755003', meaning: 'Morphologically Abnormal Structure' },
    code: { scheme: 'SCT', value: '4147007', meaning: 'Mass' },
    modifier: { scheme: 'SCT', value: '255561001', meaning: 'Medial' },
  },
  { value: 9, name: 'Never seen' },
];
const maker = { id: 'an-app', name: 'An app', version: '1.2.0' };
const identity: SegmentationIdentityOptions = { labels, role: 'organs', seed: 'a job' };
const time = new Date('2026-01-31T20:00:01.5Z');

interface Made {
  readonly source?: MadeSource;
  readonly identity?: Partial<SegmentationIdentityOptions>;
  readonly options?: Partial<MeasurementReportOptions>;
  readonly measurements?: readonly LabelMeasurement[];
}

/** The data sets of a report and of its segmentation, written and parsed again. */
async function made(more: Made = {}): Promise<{ report: Dataset; segmentation: Dataset; bytes: Uint8Array }> {
  const { source, grid } = madeSource(more.source);
  const labelMap = asymmetricLabels(grid);
  const of = { ...identity, ...more.identity };
  const segmentation = await buildSegmentation(labelMap, source, { ...of, maker, description: 'Organs' });
  const measurements = more.measurements ?? measureLabels(labelMap, of.labels);
  const report = buildMeasurementReport(measurements, source, {
    segmentation: identifySegmentation(labelMap, of),
    maker,
    description: 'Volumes',
    role: 'volumes',
    seed: 'a job',
    time,
    ...more.options,
  });
  const [bytes, other] = await Promise.all(
    [report, segmentation].map((one) => collectBytes(writeDicomFile(one))),
  );
  return { report: parseDicom(bytes)!.dataset, segmentation: parseDicom(other)!.dataset, bytes };
}

/** The codes of an item of a code sequence: scheme, value, meaning. */
function codeOf(item: Dataset, tag: Tag, dataset: Dataset): string {
  const code = firstItem(item, tag)!;
  const inSet = new Map([...dataset].filter(([one]) => one === tags.specificCharacterSet).concat([...code]));
  const value = text(inSet, tags.codeValue) ?? text(inSet, tags.longCodeValue);
  return `${text(inSet, tags.codingSchemeDesignator)} ${value} ${text(inSet, tags.codeMeaning)}`;
}

/** A content tree as lines: depth, relationship, type, concept, value, template. */
function treeOf(item: Dataset, dataset = item, depth = 0): string[] {
  const inSet = new Map([...dataset].filter(([one]) => one === tags.specificCharacterSet).concat([...item]));
  const image = firstItem(item, tags.referencedSopSequence);
  const measured = firstItem(item, tags.measuredValueSequence);
  const template = firstItem(item, tags.contentTemplateSequence);
  const values: Record<string, () => string | undefined> = {
    CONTAINER: () =>
      template && `${word(template, tags.mappingResource)} ${word(template, tags.templateIdentifier)}`,
    CODE: () => codeOf(item, tags.conceptCodeSequence, dataset),
    TEXT: () => text(inSet, tags.textValue),
    UIDREF: () => word(item, tags.uid),
    NUM: () =>
      `${word(measured!, tags.numericValue)} ${codeOf(measured!, tags.measurementUnitsCodeSequence, dataset)}`,
    IMAGE: () =>
      [
        word(image!, tags.referencedSopClassUid),
        word(image!, tags.referencedSopInstanceUid),
        number(image!, tags.referencedSegmentNumber),
      ].join(' '),
  };
  const type = word(item, tags.valueType)!;
  const line = [
    '>'.repeat(depth),
    ...[word(item, tags.relationshipType) ?? 'root', type],
    ...[codeOf(item, tags.conceptNameCodeSequence, dataset), '=', values[type]() ?? ''],
  ];
  const below = itemsOf(item, tags.contentSequence);
  return [line.join(' ').trim(), ...below.flatMap((one) => treeOf(one, dataset, depth + 1))];
}

const valuesOf = (lines: readonly string[], concept: string) =>
  lines.filter((line) => line.includes(` ${concept} = `)).map((line) => line.split(' = ')[1]);
const segmentsOf = (dataset: Dataset) => itemsOf(dataset, tags.segmentSequence);
const bytesAt = (dataset: Dataset, tag: Tag) => (dataset.get(tag) as ValueElement).bytes;

describe('buildMeasurementReport()', () => {
  it('is a report of TID 1500 with a group of TID 1411 for each label', async () => {
    const { report, segmentation } = await made();
    const [lung, tumour] = segmentsOf(segmentation).map((one) => word(one, tags.trackingUid));
    const lines = treeOf(report);
    const seg = `1.2.840.10008.5.1.4.1.1.66.4 ${word(segmentation, tags.sopInstanceUid)}`;
    const device = valuesOf(lines, 'Device Observer UID')[0];
    const family =
      '>>> HAS CONCEPT MOD CODE DCM 111000 Algorithm Family = DCM 123109 Artificial Intelligence';
    // Voxels of 0.8 × 0.5 × 3 mm: 33, 90, 0 and 1 of them.
    expect(lines.slice(0, 34)).toEqual([
      'root CONTAINER DCM 126000 Imaging Measurement Report = DCMR 1500',
      '> HAS CONCEPT MOD CODE DCM 121049 Language of Content Item and Descendants = RFC5646 en English',
      '> HAS OBS CONTEXT CODE DCM 121005 Observer Type = DCM 121007 Device',
      `> HAS OBS CONTEXT UIDREF DCM 121012 Device Observer UID = ${device}`,
      '> HAS OBS CONTEXT TEXT DCM 121013 Device Observer Name = TOMAAT',
      '> HAS OBS CONTEXT TEXT DCM 121014 Device Observer Manufacturer = TOMAAT',
      '> HAS OBS CONTEXT TEXT DCM 121015 Device Observer Model Name = An app',
      '> HAS OBS CONTEXT TEXT DCM 121016 Device Observer Serial Number = an-app',
      '> HAS CONCEPT MOD CODE DCM 121058 Procedure reported = SCT 363679005 Imaging procedure',
      '> CONTAINS CONTAINER DCM 126010 Imaging Measurements =',
      '>> CONTAINS CONTAINER DCM 125007 Measurement Group = DCMR 1411',
      '>>> HAS OBS CONTEXT TEXT DCM 112039 Tracking Identifier = Left lung',
      `>>> HAS OBS CONTEXT UIDREF DCM 112040 Tracking Unique Identifier = ${lung}`,
      '>>> CONTAINS CODE SCT 276214006 Finding category = SCT 123037004 Anatomical Structure',
      '>>> CONTAINS CODE DCM 121071 Finding = SCT 39607008 Lung',
      '>>> HAS CONCEPT MOD CODE SCT 363698007 Finding Site = SCT 39607008 Lung',
      '>>>> HAS CONCEPT MOD CODE SCT 272741003 Laterality = SCT 7771000 Left',
      '>>> HAS CONCEPT MOD TEXT DCM 111001 Algorithm Name = An app',
      '>>> HAS CONCEPT MOD TEXT DCM 111003 Algorithm Version = 1.2.0',
      family,
      '>>> CONTAINS NUM SCT 118565006 Volume = 0.0396 UCUM mL mL',
      `>>> CONTAINS IMAGE DCM 121191 Referenced Segment = ${seg} 1`,
      '>>> CONTAINS UIDREF DCM 121232 Source Series for Segmentation = 1.2.3.0',
      '>> CONTAINS CONTAINER DCM 125007 Measurement Group = DCMR 1411',
      '>>> HAS OBS CONTEXT TEXT DCM 112039 Tracking Identifier = Tumour',
      `>>> HAS OBS CONTEXT UIDREF DCM 112040 Tracking Unique Identifier = ${tumour}`,
      '>>> CONTAINS CODE SCT 276214006 Finding category = SCT 49755003 Morphologically Abnormal Structure',
      '>>> CONTAINS CODE DCM 121071 Finding = SCT 4147007 Mass',
      '>>>> HAS CONCEPT MOD CODE SCT 106233006 Topographical modifier = SCT 255561001 Medial',
      '>>> HAS CONCEPT MOD TEXT DCM 111001 Algorithm Name = An app',
      '>>> HAS CONCEPT MOD TEXT DCM 111003 Algorithm Version = 1.2.0',
      family,
      '>>> CONTAINS NUM SCT 118565006 Volume = 0.108 UCUM mL mL',
      `>>> CONTAINS IMAGE DCM 121191 Referenced Segment = ${seg} 2`,
    ]);
    expect(valuesOf(lines, 'Volume')).toEqual(
      ['0.0396', '0.108', '0', '0.0012'].map((ml) => `${ml} UCUM mL mL`),
    );
    expect(valuesOf(lines, 'Tracking Identifier')).toEqual(['Left lung', 'Tumour', 'Never seen', 'label 2']);
  });

  it.each(['BINARY', 'LABELMAP'] as const)(
    'refers to the segments of the %s of the same seed',
    async (type) => {
      const { report, segmentation } = await made({ identity: { type } });
      const lines = treeOf(report);
      const own = segmentsOf(segmentation).filter((one) => number(one, tags.segmentNumber) !== 0);
      const numbers = type === 'BINARY' ? [1, 2, 3, 4] : [3, 1, 9, 2];
      expect(own.map((one) => number(one, tags.segmentNumber))).toEqual(numbers);
      const instance = `${word(segmentation, tags.sopClassUid)} ${word(segmentation, tags.sopInstanceUid)}`;
      expect(valuesOf(lines, 'Referenced Segment')).toEqual(numbers.map((one) => `${instance} ${one}`));
      const tracking = own.map((one) => word(one, tags.trackingUid));
      expect(valuesOf(lines, 'Tracking Unique Identifier')).toEqual(tracking);
      const evidence = firstItem(report, tags.currentRequestedProcedureEvidenceSequence)!;
      expect(word(evidence, tags.studyInstanceUid)).toBe('1.2.3');
      const objects = itemsOf(evidence, tags.referencedSeriesSequence).map((series) => [
        word(series, tags.seriesInstanceUid),
        itemsOf(series, tags.referencedSopSequence).map((one) => word(one, tags.referencedSopInstanceUid)),
      ]);
      expect(objects).toEqual([
        [word(segmentation, tags.seriesInstanceUid), [word(segmentation, tags.sopInstanceUid)]],
        ['1.2.3.0', ['1.2.3.1', '1.2.3.2', '1.2.3.3', '1.2.3.4', '1.2.3.5']],
      ]);
    },
  );

  it('names a multi-frame image once', async () => {
    const { report } = await made({ source: { frames: true } });
    const evidence = firstItem(report, tags.currentRequestedProcedureEvidenceSequence)!;
    const [, images] = itemsOf(evidence, tags.referencedSeriesSequence);
    const uids = itemsOf(images, tags.referencedSopSequence);
    expect(uids.map((one) => word(one, tags.referencedSopInstanceUid))).toEqual(['1.2.3.4']);
  });

  it('has equal UIDs for equal seeds, none of them those of the segmentation', async () => {
    const uidsOf = async (seed?: string) => {
      const { report, segmentation } = await made({ options: { seed, role: 'organs' } });
      const own = [report, segmentation].flatMap((one) =>
        [tags.sopInstanceUid, tags.seriesInstanceUid].map((tag) => word(one, tag)!),
      );
      expect(new Set(own).size).toBe(4);
      return own.slice(0, 2);
    };
    const first = await uidsOf('a job');
    expect(await uidsOf('a job')).toEqual(first);
    const all = [first, await uidsOf('another'), await uidsOf(undefined), await uidsOf(undefined)].flat();
    expect(new Set(all).size).toBe(8);
  });

  it('has one device UID for all reports of an app', async () => {
    const uidOf = async (id: string, seed: string) => {
      const { report } = await made({ options: { maker: { ...maker, id }, seed } });
      return valuesOf(treeOf(report), 'Device Observer UID')[0];
    };
    const first = await uidOf('an-app', 'a job');
    expect(first).toMatch(/^2\.25\.\d{30,39}$/);
    expect(await uidOf('an-app', 'another')).toBe(first);
    expect(await uidOf('other-app', 'a job')).not.toBe(first);
  });

  it('states volumes in at most 16 characters, exact to 1e-6', async () => {
    const volumes = [1 / 3, 123456.78912345678, 1.23456789012345e-9, 2e21 / 3];
    const measurements = [3, 1, 9, 2].map((value, i) => ({
      value,
      name: '',
      voxels: 1,
      volumeMl: volumes[i],
    }));
    const { report } = await made({ measurements });
    const found = valuesOf(treeOf(report), 'Volume').map((value) => value.split(' ')[0]);
    expect(found.length).toBe(4);
    for (const [i, value] of found.entries()) {
      expect(value.length).toBeLessThanOrEqual(16);
      expect(Math.abs(Number(value) / volumes[i] - 1)).toBeLessThan(1e-6);
    }
  });

  it('keeps long names, and Japanese and Chinese ones beside a patient’s', async () => {
    const names = ['x'.repeat(100), '左肺', '肝脏'];
    const named = labels.map((label, i) => ({ ...label, name: names[i] }));
    const sources: MadeSource[] = [
      {},
      // 山田 in ISO 2022 IR 87, 王 in GB18030.
      {
        characterSets: ['', 'ISO 2022 IR 87'],
        patientName: Uint8Array.of(0x1b, 0x24, 0x42, 0x3b, 0x33, 0x45, 0x44, 0x1b, 0x28, 0x42),
      },
      { characterSets: ['GB18030'], patientName: Uint8Array.of(0xcd, 0xf5) },
    ];
    const patients = ['Doe^Jane', '山田', '王'];
    for (const [i, source] of sources.entries()) {
      const { report, segmentation } = await made({ source, identity: { labels: named } });
      expect(text(report, tags.patientName)).toBe(patients[i]);
      expect(valuesOf(treeOf(report), 'Tracking Identifier').slice(0, 3)).toEqual(names);
      const own = segmentsOf(segmentation).slice(0, 3);
      expect(own.map((one) => new TextDecoder().decode(bytesAt(one, tags.trackingId)).trim())).toEqual(names);
    }
    const { report } = await made({ source: sources[2] });
    // All names fit into the source's own set, so its bytes stay.
    expect(words(report, tags.specificCharacterSet)).toEqual(['GB18030']);
    expect([...bytesAt(report, tags.patientName)]).toEqual([0xcd, 0xf5]);
  });

  it('reports the procedures of the study that are whole codes', async () => {
    const coding = chooseTextCoding([], []);
    const code = (value: string, meaning: string) =>
      firstItem(
        datasetOf(codeSequence(tags.procedureCodeSequence, { scheme: 'LN', value, meaning }, coding)),
        tags.procedureCodeSequence,
      )!;
    const without = new Map([...code('1', 'x')].filter(([tag]) => tag !== tags.codeMeaning));
    const more = [
      sequence(
        tags.procedureCodeSequence,
        code('24627-2', 'CT Chest'),
        without,
        code('30745-4', 'Chest X-ray'),
      ),
    ];
    const { report } = await made({ source: { more } });
    const procedures = ['LN 24627-2 CT Chest', 'LN 30745-4 Chest X-ray'];
    expect(valuesOf(treeOf(report), 'Procedure reported')).toEqual(procedures);
  });

  it('is complete and unverified, in the study of its source and a series of its own', async () => {
    const zone = bytesElement(tags.timezoneOffsetFromUtc, 'SH', new TextEncoder().encode('+0530'));
    const { report } = await made({ source: { more: [zone] } });
    const said = [tags.completionFlag, tags.verificationFlag, tags.modality, tags.studyInstanceUid];
    expect(said.map((tag) => word(report, tag))).toEqual(['COMPLETE', 'UNVERIFIED', 'SR', '1.2.3']);
    expect(word(report, tags.contentTime)).toBe('013001');
    expect(text(report, tags.seriesDescription)).toBe('Volumes');
    const empty = [tags.performedProcedureCodeSequence, tags.referencedPerformedProcedureStepSequence];
    for (const tag of empty) expect(report.get(tag)).toMatchObject({ kind: 'sequence', items: [] });
    // A label map without labels has no groups.
    const none = await made({ measurements: [], identity: { labels: [] } });
    expect(treeOf(none.report).at(-1)).toBe('> CONTAINS CONTAINER DCM 126010 Imaging Measurements =');
  });

  it('refuses a measurement of no segment, and a source without UIDs', async () => {
    for (const value of [0, 12, 1.5]) {
      const measurements = [{ value, name: 'Odd', voxels: 1, volumeMl: 1 }];
      await expect(made({ measurements })).rejects.toMatchObject({
        code: 'APP_OUTPUT',
        message: expect.stringContaining(`the value ${value} (Odd)`),
      });
    }
    const { source, grid } = madeSource({ without: [tags.studyInstanceUid] });
    const segmentation = identifySegmentation(asymmetricLabels(grid), identity);
    const options = { segmentation, maker, description: 'Volumes', role: 'volumes' };
    expect(() => buildMeasurementReport([], source, options)).toThrow(
      expect.objectContaining({ code: 'NOT_ACCEPTABLE', field: 'format' }),
    );
  });
});
