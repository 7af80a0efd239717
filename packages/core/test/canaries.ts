import type { DicomElement } from '../src/dicom/dataset.ts';
import { allRules } from '../src/dicom/deidentification-rules.ts';
import { representationOf } from '../src/dicom/dictionary.ts';
import type { Tag } from '../src/dicom/tags.ts';
import type { Vr } from '../src/dicom/value-representations.ts';
import { dataset, sequence, value } from './deidentification-files.ts';

/* A value for each attribute of the table of PS3.15 E that must not be found after de-identification. */

/** A value that is legal for its VR, and what of it must not be found. */
const canaries: Readonly<Partial<Record<Vr, readonly [value: string, trace: string]>>> = {
  AE: ['CANARY7Q', 'CANARY7Q'],
  AS: ['077Y', '077Y'],
  CS: ['CANARY7Q', 'CANARY7Q'],
  DA: ['19771103', '19771103'],
  DS: ['7.719917', '7.719917'],
  DT: ['19771103123456.78', '19771103'],
  IS: ['77199177', '77199177'],
  LO: ['Canary 7Q for Meyer', 'Canary 7Q'],
  LT: ['Canary 7Q for Meyer', 'Canary 7Q'],
  OB: ['CANARY7Q', 'CANARY7Q'],
  PN: ['Canary^Meyer', 'Canary'],
  SH: ['Canary 7Q', 'Canary 7Q'],
  ST: ['Canary 7Q for Meyer', 'Canary 7Q'],
  TM: ['123456.789123', '123456.789123'],
  UC: ['Canary 7Q for Meyer', 'Canary 7Q'],
  UI: ['1.2.276.0.98765432.17', '98765432'],
  UN: ['CANARY7Q', 'CANARY7Q'],
  UR: ['http://canary/7Q', 'canary'],
  US: ['\x7a\x51', '\x7a\x51'],
  UT: ['Canary 7Q for Meyer', 'Canary 7Q'],
};

/** Attributes of PS3.15 E that hold images' own references: their items stay, with other UIDs. */
const referenceSequences: readonly Tag[] = [0x00081140, 0x00082112];
export function canaryElement(tag: Tag, vr: Vr): { element: DicomElement; trace: string } {
  if (vr === 'SQ') {
    const item = referenceSequences.includes(tag)
      ? dataset(value(0x00081155, 'UI', '1.2.276.0.98765432.17'))
      : dataset(value(0x00080104, 'LO', 'Canary 7Q'));
    const trace = referenceSequences.includes(tag) ? '98765432' : 'Canary 7Q';
    return { element: sequence(tag, [item]), trace };
  }
  const [text, trace] = canaries[vr] ?? [];
  if (text === undefined || trace === undefined) throw new Error(`no canary for ${vr}`);
  return { element: value(tag, vr, text), trace };
}

/** Whether a trace is in the bytes: as latin letters, and as UTF-16 of either byte order. */
export function holds(bytes: Uint8Array, trace: string): boolean {
  const text = Buffer.from(bytes).toString('latin1');
  const wide = [...trace].join('\0');
  return text.includes(trace) || text.includes(wide);
}

/** By hand from PS3.15: 621 rows, four of which are not one attribute (50xx, 60xx twice, private). */
export const rows = [...allRules()].map(([tag, rule]) => ({ tag, rule, vr: representationOf(tag) }));
