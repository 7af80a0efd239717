import { readFile, stat } from 'node:fs/promises';
import { basename, join, relative, resolve, sep } from 'node:path';
import type { Service } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { writeWhole } from '../../store/files/whole-file.ts';
import { version as tomaatVersion } from '../../version.ts';
import { stemOf } from '../input-files.ts';
import type { PlannedOutput, ResultPlan } from '../result-files.ts';
import { ledgerName } from './ledger.ts';

/* Names and sidecars of BIDS derivatives: https://bids-specification.readthedocs.io/en/v1.10.0/derivatives/imaging.html */

const bidsVersion = '1.10.0';

/** Entities of a derivative that follow space- (appendix “Entity table”). */
const afterSpace = ['split', 'recording', 'chunk', 'seg', 'res', 'den', 'label'];

export interface BidsNames {
  /** The value of desc-: letters and digits. */
  readonly desc: string;
}

export const bidsNamesOf = (service: Pick<Service, 'id'>): BidsNames => ({
  desc: service.id.replace(/[^A-Za-z0-9]/g, ''),
});

/** `sub-…_space-T1w_desc-…_dseg.nii.gz`: the entities of the scan, whose suffix is the space, so that results of T1w and T2w differ. */
export function bidsTarget(
  path: string,
  folder: string,
  outputs: readonly PlannedOutput[],
  { desc }: BidsNames,
): ResultPlan {
  const [output] = outputs;
  if (outputs.length !== 1 || output.type !== 'LabelVolume')
    throw new TomaatError(
      'BAD_INPUT',
      'A BIDS derivative holds one label map. Choose it with --output NAME.',
    );
  const parts = stemOf(path).split('_');
  const entities = parts.filter(
    (part) => /^[A-Za-z]+-[A-Za-z0-9+]+$/.test(part) && !part.startsWith('desc-'),
  );
  const suffix = parts.at(-1)!;
  if (/^[A-Za-z0-9]+$/.test(suffix) && !entities.some((part) => part.startsWith('space-'))) {
    const next = entities.findIndex((part) => afterSpace.includes(part.split('-')[0]));
    entities.splice(next < 0 ? entities.length : next, 0, `space-${suffix}`);
  }
  if (!entities[0]?.startsWith('sub-')) {
    throw new TomaatError(
      'BAD_INPUT',
      `${path} is not named as a BIDS file (sub-<label>_…). Rename it, or leave BIDS names out with --no-bids.`,
    );
  }
  return {
    file: join(folder, `${[...entities, `desc-${desc}`].join('_')}_dseg.nii.gz`),
    outputs: [{ ...output, format: 'nii.gz' }],
  };
}

/** The description of the derivatives, and the table of labels that all of them share (inheritance principle). */
export async function writeBidsDataset(
  out: string,
  root: string,
  service: Service,
  { desc }: BidsNames,
  address: string,
): Promise<void> {
  const description = join(out, 'dataset_description.json');
  if (!(await stat(description).catch(() => undefined))) {
    const raw = await readFile(join(root, 'dataset_description.json'), 'utf8').catch(() => '{}');
    const name = nameIn(raw) ?? basename(resolve(root));
    await writeJson(description, {
      Name: `${service.name} of ${name}`,
      BIDSVersion: bidsVersion,
      DatasetType: 'derivative',
      GeneratedBy: [
        {
          Name: service.id,
          Version: service.version,
          Description: `${service.name}, computed by TOMAAT ${tomaatVersion} at ${address}`,
        },
      ],
      SourceDatasets: [{ URL: `${relative(resolve(out), resolve(root)).split(sep).join('/') || '.'}/` }],
      DatasetLinks: { raw: `${relative(resolve(out), resolve(root)).split(sep).join('/') || '.'}/` },
    });
  }
  const ignored = join(out, '.bidsignore');
  if (!(await stat(ignored).catch(() => undefined)))
    await writeWhole(ignored, `${ledgerName}\n${ledgerName.replace(/\.jsonl$/, '.lock')}\n`, { mode: 0o644 });
  const cell = (text: string) => text.replace(/\s+/g, ' ').trim() || 'n/a';
  const rows = service.labels.map(({ value, name, color }) => [String(value), cell(name), color ?? 'n/a']);
  const lines = [['index', 'name', 'color'], ...rows].map((cells) => `${cells.join('\t')}\n`);
  await writeWhole(join(out, `desc-${desc}_dseg.tsv`), lines.join(''), { mode: 0o644 });
}

/** The sidecar of one label map: what it was made of, and how. */
export async function writeBidsSidecar(
  file: string,
  root: string,
  path: string,
  made: { service: Pick<Service, 'id' | 'name' | 'version'>; job?: string; models: readonly string[] },
): Promise<void> {
  const source = `bids:raw:${relative(resolve(root), resolve(path)).split(sep).join('/')}`;
  await writeJson(file.replace(/\.nii\.gz$/, '.json'), {
    Description: `${made.service.name} of ${basename(path)}`,
    Manual: false,
    Sources: [source],
    SpatialReference: source,
    GeneratedBy: [{ Name: made.service.id, Version: made.service.version }],
    ...(made.job !== undefined && { TomaatJob: made.job }),
    ...(made.models.length > 0 && { ModelSha256: made.models }),
  });
}

const writeJson = (file: string, data: unknown) =>
  writeWhole(file, `${JSON.stringify(data, null, 2)}\n`, { mode: 0o644 });

function nameIn(text: string): string | undefined {
  try {
    const { Name } = JSON.parse(text) as { Name?: unknown };
    return typeof Name === 'string' ? Name.slice(0, 200) : undefined;
  } catch {
    return undefined;
  }
}
