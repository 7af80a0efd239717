import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { inflateRawSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Dataset, type DicomFile, itemsOf, number, word } from '../packages/core/src/dicom/dataset.ts';
import { createDeidentifier } from '../packages/core/src/dicom/deidentify.ts';
import { encodeDicomFile } from '../packages/core/src/dicom/encode-file.ts';
import { deflatedFrom, isDicom, parseDicom } from '../packages/core/src/dicom/parse.ts';
import { findProgram, findPython } from './programs.ts';
import { dataFolder } from './real-data.ts';

/* De-identification of files that scanners wrote, as other programs see it. */

const data = dataFolder();
const uidKey = new Uint8Array(32).fill(21);

interface Case {
  readonly name: string;
  readonly path: string;
  readonly original: DicomFile;
}

const modes = {
  basic: {},
  'for SUV': { shiftDates: true, keepPatientCharacteristics: true },
} as const;

describe.skipIf(!data)('deidentify() of real files', () => {
  let cases: Case[];
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'deidentify-'));
    cases = ['dicom', 'dicom_cases'].flatMap((name) => readCases(join(data!, name)));
    for (const [mode, options] of Object.entries(modes)) {
      const run = createDeidentifier({ uidKey, ...options });
      mkdirSync(join(folder, mode));
      for (const [i, { original }] of cases.entries())
        writeFileSync(join(folder, mode, `${i}.dcm`), Buffer.concat(encodeDicomFile(run(original).file)));
    }
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it('keeps every pixel and reads all of the files', () => {
    expect(cases.length).toBeGreaterThan(250);
    for (const mode of Object.keys(modes)) {
      for (const [i, { name, original }] of cases.entries()) {
        const read = parseDicom(readFileSync(join(folder, mode, `${i}.dcm`)));
        expect(pixelsOf(read!.dataset), name).toEqual(pixelsOf(original.dataset));
        expect(read!.transferSyntax, name).toBe(original.transferSyntax);
      }
    }
  });

  it('keeps series together and apart', () => {
    const pairs = new Set<string>();
    for (const [i, { original }] of cases.entries()) {
      const read = parseDicom(readFileSync(join(folder, 'basic', `${i}.dcm`)));
      pairs.add(`${word(original.dataset, 0x0020000e)} ${word(read!.dataset, 0x0020000e)}`);
    }
    const before = new Set([...pairs].map((pair) => pair.split(' ')[0]));
    const after = new Set([...pairs].map((pair) => pair.split(' ')[1]));
    expect([before.size, after.size]).toEqual([pairs.size, pairs.size]);
    expect([...before].filter((uid) => after.has(uid))).toEqual([]);
  });

  it('leaves the SUV of a PET image as it was, with both options', () => {
    const pet = cases
      .map((found, i) => ({ ...found, i }))
      .filter(({ name }) => name.includes('pet_bqml_suv'));
    expect(pet.length).toBeGreaterThan(8);
    for (const { i, original } of pet) {
      const read = parseDicom(readFileSync(join(folder, 'for SUV', `${i}.dcm`)));
      expect(suvFactor(read!.dataset)).toBe(suvFactor(original.dataset));
      // What @cornerstonejs/calculate-suv 1.1.0 says of this series.
      expect(suvFactor(read!.dataset)).toBeCloseTo(0.00030705137653771206, 17);
      expect(word(read!.dataset, 0x00080021)).not.toBe(word(original.dataset, 0x00080021));
    }
  });

  const python = findPython('pydicom');
  it.skipIf(!python)('leaves no identifying text that pydicom finds in the originals', () => {
    for (const mode of Object.keys(modes)) {
      const pairs = cases.map(({ path }, i) => [path, join(folder, mode, `${i}.dcm`)]);
      const run = spawnSync(python!, ['-c', leakScan, mode], {
        input: JSON.stringify(pairs),
        encoding: 'utf8',
        maxBuffer: 2 ** 26,
      });
      expect(run.stderr).toBe('');
      const { leaks, looked } = JSON.parse(run.stdout) as { leaks: string[]; looked: number };
      expect(leaks).toEqual([]);
      expect(looked).toBeGreaterThan(10_000);
    }
  });

  const dciodvfy = findProgram('dciodvfy', ['-version'], 'dciodvfy of dicom3tools');
  it.skipIf(!dciodvfy)('gives dciodvfy no new error to report', () => {
    const errors = (path: string) =>
      spawnSync(dciodvfy!, [path], { encoding: 'latin1' })
        .stderr.split('\n')
        .filter((line) => line.startsWith('Error'));
    const folders = new Map<string, number>();
    const worse: string[] = [];
    for (const [i, { name, path }] of cases.entries()) {
      const parent = join(name, '..');
      folders.set(parent, (folders.get(parent) ?? 0) + 1);
      // Slices of one series have the same faults; the folder of syntaxes holds different files.
      if (folders.get(parent)! > 2 && !parent.includes('all_syntaxes')) continue;
      const before = errors(path);
      for (const mode of Object.keys(modes)) {
        const added = errors(join(folder, mode, `${i}.dcm`)).filter((line) => !before.includes(line));
        worse.push(...added.map((line) => `${name} ${line}`));
      }
    }
    expect(worse).toEqual([]);
  });
});

function readCases(root: string): Case[] {
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name !== 'DIRFILE')
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
    .flatMap((path) => {
      const bytes = readFileSync(path);
      if (!isDicom(bytes)) return [];
      const deflated = deflatedFrom(bytes);
      const original = parseDicom(deflated === undefined ? bytes : inflateRawSync(bytes.subarray(deflated)));
      return original ? [{ name: relative(join(root, '..'), path), path, original }] : [];
    });
}

/** A digest of the pixels and how they are packed. */
function pixelsOf(dataset: Dataset): string | undefined {
  const element = dataset.get(0x7fe00010);
  if (element === undefined || element.kind === 'sequence') return undefined;
  const pieces =
    element.kind === 'value' ? [element.bytes] : [new Uint8Array(element.offsets), ...element.fragments];
  const hash = createHash('sha256').update(`${element.kind} ${element.vr}`);
  // An odd last byte gets its padding.
  for (const piece of pieces)
    hash
      .update(` ${Math.ceil(piece.length / 2)} `)
      .update(piece)
      .update(piece.length % 2 ? '\0' : '');
  return hash.digest('hex');
}

/**
 * SUVbw per Bq/mL (QIBA SUV vendor-neutral pseudo-code): weight in g over the dose at the start of the series. Only for decay
 * correction to START with dates in the header.
 */
function suvFactor(dataset: Dataset): number {
  const [dose] = itemsOf(dataset, 0x00540016);
  const started = word(dose, 0x00181078) ?? `${word(dataset, 0x00080021)}${word(dose, 0x00181072)}`;
  const scanned = `${word(dataset, 0x00080021)}${word(dataset, 0x00080031)}`;
  const seconds = secondsOf(scanned) - secondsOf(started);
  const remaining = number(dose, 0x00181074)! * 2 ** (-seconds / number(dose, 0x00181075)!);
  return (number(dataset, 0x00101030)! * 1000) / remaining;
}

const secondsOf = (time: string): number =>
  Date.UTC(
    +time.slice(0, 4),
    +time.slice(4, 6) - 1,
    +time.slice(6, 8),
    +time.slice(8, 10),
    +time.slice(10, 12),
  ) /
    1000 +
  Number.parseFloat(time.slice(12));

/** Independent of the code under test: which values identify is decided by VR and by name, here, and read by pydicom. */
const leakScan = `
import json, re, sys, warnings
import pydicom
warnings.filterwarnings('ignore')
import logging; logging.disable(logging.CRITICAL)
named = set('''PatientID OtherPatientIDs PatientBirthDate AccessionNumber StudyID InstitutionName InstitutionAddress
  InstitutionalDepartmentName StationName DeviceSerialNumber StudyDescription SeriesDescription RequestedProcedureDescription
  PerformedProcedureStepDescription PerformedProcedureStepID ScheduledProcedureStepID RequestedProcedureID AdmissionID
  PatientComments ImageComments AdditionalPatientHistory MedicalAlerts Allergies Occupation EthnicGroup PatientAddress
  PatientTelephoneNumbers PlateID DetectorID IssuerOfPatientID ProtocolName CountryOfResidence RegionOfResidence
  SourceApplicationEntityTitle DeidentificationMethod ContentDescription ContentCreatorName'''.split())
basic = set('PatientWeight PatientSize PatientAge'.split())
# Words of technique that private elements and free text share with attributes that are kept.
technical = set('ORIGINAL PRIMARY WATER SPIRAL CARD_ADULT normalized'.split()) | {'HiSpeed CT/i'}
mode = sys.argv[1]
leaks, looked = set(), 0
for original, cleaned in json.load(sys.stdin):
    raw = open(cleaned, 'rb').read()
    after = pydicom.dcmread(cleaned)
    if 'PixelData' in after and not after.file_meta.TransferSyntaxUID.is_compressed:
        after.pixel_array
    before = pydicom.dcmread(original, force=True)
    header = raw[:raw.index(after.PixelData[:64])] if 'PixelData' in after and len(after.PixelData) >= 64 else raw
    for element in [*before.file_meta, *before.iterall()]:
        if element.VR == 'SQ' or element.tag == 0x7fe00010 or element.value in (None, ''):
            continue
        values = element.value if isinstance(element.value, (list, pydicom.multival.MultiValue)) else [element.value]
        texts = []
        for value in values:
            if element.VR == 'PN':
                texts += [part for part in re.split('[\\\\^= ]+', str(value)) if len(part) >= 4]
            elif element.VR == 'UI':
                texts += [] if str(value).startswith('1.2.840.10008.') else [str(value)]
            elif element.VR in ('DA', 'DT'):
                texts += [str(value)[:8]]
            elif element.VR in ('LT', 'ST', 'UT', 'AE') or element.keyword in named:
                texts += [str(value)]
            elif element.keyword in basic and mode == 'basic':
                texts += [str(value)]
            elif element.VR == 'TM' and mode == 'basic':
                texts += [str(value)]
            elif element.tag.is_private and not element.tag.is_private_creator and element.VR in ('LO', 'SH', 'CS'):
                texts += [str(value)]
        for text in texts:
            if text in technical or (len(text) < 5 and element.VR != 'PN'):
                continue
            looked += 1
            for encoding in ('utf-8', 'latin-1', 'utf-16-le', 'utf-16-be'):
                try:
                    found = text.encode(encoding)
                except UnicodeEncodeError:
                    continue
                if found in header:
                    leaks.add(f'{element.tag} {element.keyword}: {text}')
                    break
json.dump({'leaks': sorted(leaks), 'looked': looked}, sys.stdout)
`;
