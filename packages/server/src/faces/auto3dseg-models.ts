import {
  defaultCategory,
  defaultValue,
  isFileInput,
  type Label,
  labelsWith,
  type Manifest,
  primaryOutput,
  volumeInputs,
  withoutUnseen,
} from '@tomaat/core';
import { defaultParameters } from './offered.ts';

/* What Auto3DSeg's module for 3D Slicer is told of an app: as a model, and its labels. */

/** The module has as many selectors. */
const mostInputs = 4;

/** The code of a label, as DICOM describes a segment (PS3.3, C.8.20.4 and 10.7). */
const sequences = [
  'SegmentedPropertyCategoryCodeSequence',
  'SegmentedPropertyTypeCodeSequence',
  'SegmentedPropertyTypeModifierCodeSequence',
  'AnatomicRegionSequence',
  'AnatomicRegionModifierSequence',
] as const;
const codeFields = ['CodingSchemeDesignator', 'CodeValue', 'CodeMeaning'] as const;

/** The volumes that an app needs, in order: the module sends all that it shows. */
export const neededVolumes = (manifest: Manifest): string[] =>
  volumeInputs(manifest).filter((name) => !isOptional(manifest, name));

const isOptional = ({ inputs }: Manifest, name: string): boolean => {
  const input = inputs[name];
  return 'optional' in input && input.optional;
};

/** The labels of a prediction without parameters. The module sends none. */
const labelsOf = (manifest: Manifest): Label[] => labelsWith(manifest.labels, defaultParameters(manifest));

/** Whether the module can use an app: a label map of volumes alone, with labels that have names. */
export function isModel(manifest: Manifest): boolean {
  const { inputs, outputs } = manifest;
  const count = neededVolumes(manifest).length;
  return (
    count >= 1 &&
    count <= mostInputs &&
    outputs[primaryOutput(manifest)].type === 'LabelVolume' &&
    labelsOf(manifest).length > 0 &&
    Object.entries(inputs).every(
      ([name, input]) =>
        input.type === 'volume' ||
        isOptional(manifest, name) ||
        (!isFileInput(input) && defaultValue(input) !== undefined),
    )
  );
}

/** An entry of its list of models. `details` is HTML, which it shows as a tooltip. */
export function describeModel(manifest: Manifest) {
  const { id, name, version, modality, description, homepage, inputs } = manifest;
  const segmentNames = labelsOf(manifest).map((label) => withoutUnseen(label.name));
  const facts = [
    ['Model', `${name} (v${version})`],
    ['Description', description],
    ['Imaging modality', modality],
    ['Segments', segmentNames.join(', ')],
  ];
  return {
    id,
    title: withoutUnseen(name),
    version,
    inputs: neededVolumes(manifest).map((input) => ({ title: withoutUnseen(inputs[input].label ?? input) })),
    imagingModality: withoutUnseen(modality),
    description: withoutUnseen(description),
    sampleData: null,
    segmentNames,
    details: facts.map(([what, text]) => `<p><b>${what}:</b> ${inHtml(text)}`).join('\n'),
    url: homepage ?? '',
    deprecated: false,
  };
}

const entities: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
const inHtml = (text: string) => withoutUnseen(text).replace(/[&<>"]/g, (character) => entities[character]);

/**
 * The labels as a table (RFC 4180) with the columns that the module looks up by name: value, name, and for each sequence a code.
 * Every row has all of them. A label without a code has the category alone: the module then keeps its name.
 */
export function labelTable(manifest: Manifest): string {
  const header = sequences.flatMap((sequence) => codeFields.map((field) => `${sequence}.${field}`));
  const rows = labelsOf(manifest).map(({ value, name, code, category = defaultCategory, modifier }) => [
    String(value),
    withoutUnseen(name),
    ...[category, code, modifier, undefined, undefined].flatMap((one) => [
      one?.scheme ?? '',
      one?.value ?? '',
      one?.meaning ?? '',
    ]),
  ]);
  return [['LabelValue', 'Name', ...header], ...rows].map((row) => `${row.map(cell).join(',')}\n`).join('');
}

const cell = (text: string) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
