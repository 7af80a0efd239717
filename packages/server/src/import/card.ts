import {
  codesOfName,
  labelColors,
  type ManifestFault,
  type Parity,
  parseManifest,
  TomaatError,
} from '@tomaat/core';
import { Document, isMap, isSeq } from 'yaml';
import type { Plan } from './plan.ts';
import type { Translation } from './translation.ts';

/** What no author's folder says of its model, or what is given instead. */
export interface CardFlags {
  readonly id?: string;
  readonly task: string;
  readonly anatomy: string;
  readonly licence: string;
  readonly modality?: string;
  /** Needed where the folder names none. */
  readonly authors?: readonly string[];
}

/** A self-test of the app: paths inside its folder. */
export interface WrittenTest {
  readonly inputs: Readonly<Record<string, string>>;
  readonly expected: string;
  readonly dice: number;
  readonly agree: number;
}

export interface Weights {
  readonly file: string;
  readonly sha256: string;
}

/** A program in the place of a network. */
export interface Program {
  readonly command: readonly string[];
  /** Whether it is started once and kept. */
  readonly serve: boolean;
  readonly environment: Readonly<Record<string, string>>;
}

const researchOnly = 'Research. The author’s folder does not state an intended use. Not a medical device.';

/** The authors that the folder names. */
export function authorsOf(plan: Plan): string[] {
  if (plan.kind !== 'monai') return [];
  return [plan.metadata.authors ?? []].flat().filter((name) => name.trim() !== '');
}

/** A lower-case slug of letters, digits and -, of at most 40 characters; app if the text has neither. */
export function slugOf(text: string): string {
  const words = text
    .normalize('NFKD')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, ' ')
    .trim();
  return words.replaceAll(' ', '-').slice(0, 40).replace(/-$/, '') || 'app';
}

/** The id of the app: given, or from the name of the model. */
export function idOf(plan: Plan, flags: Pick<CardFlags, 'id'>): string {
  return flags.id ?? slugOf(cardOf(plan).name);
}

const cardOf = (plan: Plan) => (plan.kind === 'monai' ? monaiCard(plan) : nnunetCard(plan));

const givenParts = ['id', 'task', 'anatomy', 'licence', 'modality', 'authors'] as const;

/**
 * Writes the manifest and reads it, before hours of work that end with it.
 * @throws {TomaatError} BAD_INPUT names the flag at fault; BAD_MANIFEST if it is the folder
 */
export function checkCard(
  plan: Plan,
  translation: Translation,
  flags: CardFlags,
  model: Weights | Program = { file: 'model.onnx', sha256: '0'.repeat(64) },
): void {
  const text = writeManifest(plan, translation, model, flags);
  try {
    parseManifest(text);
  } catch (error) {
    const faults = error instanceof TomaatError ? (error.detail as { faults?: ManifestFault[] })?.faults : [];
    for (const { path, message } of faults ?? []) {
      const part = givenParts.find((name) => path.split('.')[0] === name && flags[name] !== undefined);
      if (!part) continue;
      const flag = part === 'authors' ? 'author' : part;
      const given = [flags[part] ?? ''].flat().join(', ');
      throw new TomaatError('BAD_INPUT', `--${flag} “${given}” is invalid: ${message}. Give another.`, {
        field: flag,
      });
    }
    throw error;
  }
}

/** The text of tomaat.yaml. */
export function writeManifest(
  plan: Plan,
  translation: Translation,
  model: Weights | Program,
  flags: CardFlags,
  proof: { readonly parity?: Parity; readonly tests?: readonly WrittenTest[] } = {},
): string {
  const card = cardOf(plan);
  const modality = flags.modality ?? card.modality;
  const names = Object.keys(translation.inputs);
  const inputs = Object.fromEntries(
    Object.entries(translation.inputs).map(([name, input]) => [
      name,
      { type: 'volume', ...input, ...(modality !== 'any' && { modality }) },
    ]),
  );
  const colors = labelColors(translation.labels.length);
  const tests = proof.tests ?? [];
  const manifest = {
    schemaVersion: 1,
    id: idOf(plan, flags),
    name: card.name.slice(0, 200),
    description: card.description.slice(0, 4000),
    version: card.version.slice(0, 40),
    modality,
    anatomy: flags.anatomy,
    task: flags.task,
    authors: flags.authors ?? authorsOf(plan),
    licence: flags.licence,
    ...(card.citation && { citation: card.citation }),
    intendedUse: card.intendedUse.slice(0, 4000),
    inputs,
    ...((translation.preprocess.length > 0 || 'file' in model) && { preprocess: translation.preprocess }),
    ...('command' in model
      ? { model: { runtime: 'command', ...model } }
      : {
          model: {
            runtime: 'onnx',
            file: model.file,
            sha256: model.sha256,
            ...(names.length > 1 && { channels: names }),
            inferer: translation.inferer,
          },
          postprocess: translation.postprocess,
        }),
    outputs: {
      segmentation: { type: 'LabelVolume' },
      volumes: { type: 'Measurements', label: 'Volumes', from: 'segmentation' },
    },
    labels: translation.labels.map((label, i) => ({
      ...label,
      color: colors[i],
      ...codesOfName(label.name),
    })),
    ...(tests.length > 0 && { sample: Object.values(tests[0].inputs)[0], selftest: tests }),
    ...(proof.parity && { parity: proof.parity }),
  };
  return layOut(manifest);
}

function monaiCard(plan: Extract<Plan, { kind: 'monai' }>) {
  const { metadata } = plan;
  const [input] = Object.values(metadata.network_data_format?.inputs ?? {});
  const name = metadata.name ?? 'MONAI bundle';
  const citation = [metadata.references ?? []].flat().join('\n');
  return {
    name,
    description: metadata.description ?? name,
    version: String(metadata.version ?? '1'),
    modality: modalityOf(input?.modality ?? ''),
    citation: citation.slice(0, 8000),
    intendedUse: metadata.intended_use?.trim() || researchOnly,
  };
}

function nnunetCard(plan: Extract<Plan, { kind: 'nnunet' }>) {
  const name = plan.dataset.replace(/^Dataset\d+_/, '').replaceAll('_', ' ') || plan.dataset;
  const labels = Object.keys(plan.labels).filter((label) => label !== 'background' && label !== 'ignore');
  const shown = labels.slice(0, 20).join(', ') + (labels.length > 20 ? ' …' : '');
  const modalities = [...new Set(plan.channelNames.map(modalityOf))];
  return {
    name,
    description: `Segments ${shown} with nnU-Net (${plan.dataset}, ${plan.configuration}, folds ${plan.folds.join(', ')}).`,
    version: '1',
    modality: modalities.length === 1 ? modalities[0] : 'any',
    citation:
      'Isensee F, Jaeger PF, Kohl SAA, Petersen J, Maier-Hein KH. nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation. Nature Methods 2021; 18: 203-211.',
    intendedUse: researchOnly,
  };
}

/** The modality by the words that authors use for it; any if none is known. */
function modalityOf(text: string): string {
  const word = text.trim().toUpperCase();
  if (['MR', 'MRI', 'T1', 'T1W', 'T1C', 'T1CE', 'T1GD', 'T2', 'T2W', 'FLAIR', 'ADC', 'DWI'].includes(word))
    return 'MRI';
  return ['CT', 'PET', 'US'].find((known) => word === known) ?? 'any';
}

/** Steps, labels and inputs take a line each. */
function layOut(manifest: object): string {
  const document = new Document(manifest);
  document.commentBefore =
    ' Made by “tomaat import”. import.json says of what, parity.md how its results agree with the author’s.\n Codes of labels are found by their names.';
  for (const key of ['inputs', 'preprocess', 'postprocess', 'labels', 'outputs', 'authors']) {
    const node = document.get(key);
    const items = isSeq(node) ? node.items : isMap(node) ? node.items.map((pair) => pair.value) : [];
    for (const item of items) {
      // A step has its name on the left, and its parameters in one line.
      const values = isMap(item) && key.endsWith('process') ? item.items.map((pair) => pair.value) : [item];
      for (const value of values) if (isMap(value) || isSeq(value)) value.flow = true;
    }
  }
  for (const key of ['inferer', 'command', 'environment']) {
    const node = document.getIn(['model', key]);
    if (isMap(node) || isSeq(node)) node.flow = true;
  }
  return document.toString({ lineWidth: 130 });
}
