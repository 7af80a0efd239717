import { copyFile, mkdir, stat } from 'node:fs/promises';
import { basename, dirname, extname, join, resolve } from 'node:path';
import { parseManifest, TomaatError } from '@tomaat/core';
import { hashFile } from '../store/files/hash-file.ts';
import { writeWhole } from '../store/files/whole-file.ts';
import { inspectModel } from '../worker/inspect-model.ts';
import { plain } from './console.ts';
import { type AnswerFlags, answersFor } from './init-questions.ts';
import { mustBeFile } from './input-files.ts';
import { openInterrupt } from './interrupt.ts';
import { type NetworkShape, shapeOfNetwork } from './network-shape.ts';
import { newManifest } from './new-manifest.ts';
import { openTerminal } from './terminal.ts';

export interface InitFlags extends AnswerFlags {
  /** -o: the folder of the app. */
  out?: string;
  /** The output of the network. */
  output?: string;
  force?: boolean;
  json?: boolean;
}

/** `tomaat init FILE.onnx`: an app folder for a network. */
export async function init(file: string, flags: InitFlags): Promise<number> {
  await mustBeFile(file);
  using interrupt = openInterrupt();
  const { signal } = interrupt;
  const signature = await inspectModel(resolve(file), signal);
  const shape = shapeOfNetwork(signature, basename(file), flags.output);
  if (!flags.json) console.error(plain(describe(basename(file), shape)));
  const id = slugOf(flags.out === undefined ? basename(file, extname(file)) : basename(resolve(flags.out)));
  using terminal = flags.json ? undefined : openTerminal(signal);
  const answers = await answersFor(shape, flags, { id }, terminal?.ask).catch((error) => {
    signal.throwIfAborted();
    throw error;
  });
  const folder = flags.out ?? answers.id;
  const model = basename(file);
  const manifest = newManifest(shape, answers, { file: model, sha256: await hashFile(file) });
  parseManifest(manifest, join(folder, 'tomaat.yaml'));
  await writeFolder(folder, [file, ...signature.externalFiles.map((name) => join(dirname(file), name))], {
    from: dirname(file),
    manifest,
    force: flags.force,
  });
  if (flags.json) {
    const labels = answers.labels.map((name, i) => ({ value: i + 1, name }));
    console.log(JSON.stringify({ folder, id: answers.id, model, labels }));
    return 0;
  }
  console.log(join(folder, 'tomaat.yaml'));
  console.error(
    plain(
      `Adapt the steps of preprocess in it: the file of a network does not say them. Then: tomaat check ${folder}`,
    ),
  );
  return 0;
}

function describe(
  file: string,
  { isFlat, components, size, classes, givesLabels, operator, unused }: NetworkShape,
) {
  const voxels = size.map((n) => n ?? 'any').join(' × ');
  const takes = `${isFlat ? 'slices' : 'volumes'} of ${voxels} voxels (${isFlat ? 'columns, rows' : 'x, y, z'})`;
  const many =
    components === null
      ? 'any number of components'
      : components === 1
        ? '1 component'
        : `${components} components`;
  const gives = givesLabels
    ? 'label values'
    : classes === null
      ? 'scores'
      : `${classes} ${classes === 1 ? 'score' : 'scores'} for each voxel`;
  const by = operator && ['Softmax', 'Sigmoid'].includes(operator) ? `, by ${operator}` : '';
  const rest = unused.length > 0 ? `; not used: ${unused.join(', ')}` : '';
  return `${file}: ${takes} with ${many}; gives ${gives}${by}${rest}.`;
}

/** The name of a file as an id of an app. */
function slugOf(name: string): string {
  const words = name.toLowerCase().match(/[a-z0-9]+/g) ?? ['app'];
  return words.join('-').slice(0, 40).replace(/-$/, '');
}

/** Copies the model's files and writes the manifest, last: a folder with one is complete. */
async function writeFolder(
  folder: string,
  files: readonly string[],
  { from, manifest, force }: { from: string; manifest: string; force?: boolean },
): Promise<void> {
  const target = join(folder, 'tomaat.yaml');
  const copies = files
    .map((file) => [file, join(folder, file === files[0] ? basename(file) : relativeTo(from, file))] as const)
    .filter(([file, copy]) => resolve(file) !== resolve(copy));
  if (!force) {
    for (const path of [target, ...copies.map(([, copy]) => copy)]) {
      if (!(await stat(path).catch(() => undefined))) continue;
      throw new TomaatError(
        'BAD_INPUT',
        `${path} exists. Give --force to overwrite it, or another folder with -o.`,
        { field: 'out' },
      );
    }
  }
  await mkdir(folder, { recursive: true });
  for (const [file, copy] of copies) {
    await mkdir(dirname(copy), { recursive: true });
    await copyFile(file, copy);
  }
  await writeWhole(target, manifest, { mode: 0o644 });
}

const relativeTo = (folder: string, file: string) => resolve(file).slice(resolve(folder).length + 1);
