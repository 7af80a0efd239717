import { chmod, copyFile, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { TomaatError } from '@tomaat/core';
import { version } from '../version.ts';
import { type AuthorFile, type CopiedFile, copyFiles, filesOf } from './author-files.ts';
import {
  type AuthorRun,
  type Environment,
  type PythonOptions,
  readEnvironment,
  runAuthor,
} from './author-python.ts';
import { type CardFlags, checkCard, type Program, writeManifest } from './card.ts';
import { type Case, derivedCases, keepCases, readCase } from './cases.ts';
import { formatProofJson, formatProofMarkdown } from './parity-report.ts';
import type { Plan } from './plan.ts';
import { programReadme } from './program-readme.ts';
import { type Proof, type ProvenCase, proveApp } from './prove.ts';
import type { AuthorFolder } from './recognise.ts';
import { placeApp } from './target.ts';
import type { Translation, WrittenStep } from './translation.ts';

/*
 * `tomaat import --command`: an app whose program is the author's own Python, for what no manifest can say. The program is ours
 * (`serve.py` and its modules); of the author's folder it takes what the pipeline reads.
 */

export interface ProgramImport {
  readonly author: AuthorFolder;
  readonly plan: Plan;
  /** Its inputs and labels are taken, and of its steps the order of the axes; the others are the pipeline's own. */
  readonly translation: Translation;
  readonly card: CardFlags;
  readonly cases: readonly Case[];
  readonly python: PythonOptions;
  readonly out: string;
  readonly force: boolean;
  readonly keepCases: boolean;
  readonly acceptDifferences: boolean;
  onEvent(event: ProgramEvent): void;
}

export type ProgramEvent =
  | { readonly type: 'progress'; readonly text: string }
  | { readonly type: 'note'; readonly text: string }
  | { readonly type: 'copied'; readonly files: number; readonly sizeBytes: number }
  | { readonly type: 'proven'; readonly proven: ProvenCase };

const programs = ['serve.py', 'tomaat_pipeline.py', 'tomaat_bundle.py', 'tomaat_nnunet.py'] as const;
/** A Python on any machine; what runs is that of the environment to which `venv` leads. */
const interpreter = 'venv/bin/python3';
const outputName = 'segmentation';

/**
 * Makes the app, and proves it: the program that TOMAAT keeps against the author's pipeline as the author starts it, on the same
 * device.
 * @throws {TomaatError} BAD_INPUT for flags and cases; APP_FAILED where the author's Python fails
 */
export async function importProgram(given: ProgramImport): Promise<{ proof: Proof; written: boolean }> {
  const { author, plan, card, python, out, onEvent } = given;
  if (process.platform === 'win32')
    throw new TomaatError('BAD_INPUT', '--command needs Linux or macOS. Import without it, or there.', {
      field: 'command',
    });
  const program = programOf(given);
  const parts = partsOf(given);
  checkCard(plan, parts, card, program);
  const environment = await readEnvironment(python);
  await mkdir(dirname(out), { recursive: true });
  const app = await mkdtemp(join(dirname(out), '.tomaat-import-'));
  const work = await mkdtemp(join(tmpdir(), 'tomaat-import-'));
  try {
    onEvent({ type: 'progress', text: 'Deriving two cases' });
    const derived = await derivedCases(given.cases[0], plan, given.translation, work);
    const cases = [...given.cases, ...derived];
    const runs = cases.map(({ inputs }, i) => ({
      inputs: Object.values(inputs),
      out: join(work, `author-${i}.nii.gz`),
    }));
    const ran = await runAuthor(author, runs, python);
    const notes = [...environment.notes, ...notesOf(ran)];
    for (const text of notes) onEvent({ type: 'note', text });
    const labels = await completeLabels(
      parts,
      runs.map((run) => run.out),
    );
    const translation = { ...parts, labels };
    const write = (proof?: Parameters<typeof writeManifest>[4]) =>
      writeFile(join(app, 'tomaat.yaml'), writeManifest(plan, translation, program, card, proof));
    await write();
    const copied = await copyAuthor(app, await filesOf(author, ran.files), given);
    await writeProgram(app, environment);
    onEvent({ type: 'progress', text: 'Running the app' });
    const proof = await proveApp({
      appFolder: app,
      cases: cases.map(({ name, inputs }, i) => ({
        name,
        inputs,
        expected: runs[i].out,
        fractional: ran.cases[i]?.fractional,
      })),
      versions: plan.versions,
      conditions: conditionsOf(translation, ran),
      signal: python.signal,
      onCase: (proven) => onEvent({ type: 'proven', proven }),
    });
    if (proof.parity.verdict === 'differs' && !given.acceptDifferences) return { proof, written: false };
    const results = Object.fromEntries(cases.map(({ name }, i) => [name, runs[i].out]));
    const tests = given.keepCases ? await keepCases(app, given.cases, results, proof.cases) : [];
    await write({ parity: proof.parity, tests });
    if (author.licenceFile) await copyFile(author.licenceFile, join(app, 'LICENSE'));
    const { name } = proof.app;
    await writeFile(join(app, 'README.md'), programReadme(name, plan, card, environment.lock, notes));
    await writeFile(join(app, 'import.json'), `${JSON.stringify(recordOf(given, copied, notes), null, 1)}\n`);
    await writeFile(join(app, 'parity.json'), formatProofJson(proof));
    await writeFile(join(app, 'parity.md'), formatProofMarkdown(proof));
    await placeApp(app, out, author.folder, given.force);
    return { proof, written: true };
  } finally {
    await rm(app, { recursive: true, force: true });
    await rm(work, { recursive: true, force: true });
  }
}

/** The program and its arguments; paths are those inside the app's folder. */
function programOf({ author, python, translation }: ProgramImport): Program {
  const folder = author.kind === 'monai' ? 'model' : `model/${basename(author.folder)}`;
  const command = [interpreter, 'serve.py', '--kind', author.kind, '--folder', folder];
  if (author.config !== undefined) command.push('--config', author.config);
  if (author.folds !== undefined) command.push('--folds', author.folds.join(','));
  if (python.mirror) command.push('--mirror');
  command.push('--inputs', Object.keys(translation.inputs).join(','), '--output', outputName);
  // The app's folder may belong to somebody else than the server.
  return { command, serve: true, environment: { PYTHONDONTWRITEBYTECODE: '1' } };
}

/**
 * The translation without what the author's pipeline does itself. nnU-Net does not reorient, so that the app turns volumes to the axes
 * of its training files; of MONAI the app states that the order of storage matters, where nothing reorients.
 */
function partsOf({ author, translation }: ProgramImport): Translation {
  const isKept = (step: WrittenStep) => {
    const axes =
      typeof step === 'object' ? (step.orientation as { axcodes?: string } | undefined) : undefined;
    return axes !== undefined && (author.kind === 'nnunet' || axes.axcodes === 'stored');
  };
  const inputs = Object.entries(translation.inputs).map(([name, { preprocess = [], ...input }]) => {
    const kept = preprocess.filter(isKept);
    return [name, { ...input, ...(kept.length > 0 && { preprocess: kept }) }];
  });
  return {
    ...translation,
    inputs: Object.fromEntries(inputs),
    preprocess: translation.preprocess.filter(isKept),
  };
}

const notesOf = ({ outside }: AuthorRun): string[] =>
  outside.map(
    (name) =>
      `The pipeline reads ${name}, which does not lie in the folder, so that the app has no copy of it: put it on each machine`,
  );

const conditionsOf = ({ conditions }: Translation, { device }: AuthorRun): string | undefined =>
  [conditions, device?.startsWith('cuda') ? 'Both were computed on a GPU.' : undefined]
    .filter((text) => text !== undefined)
    .join(' ') || undefined;

/** The labels that the folder names, and those that the author's results have beside them. */
async function completeLabels(
  { labels }: Translation,
  results: readonly string[],
): Promise<Translation['labels']> {
  const values = new Set<number>();
  for (const file of results) for (const value of (await readCase(file)).voxels) values.add(Number(value));
  const unnamed = [...values].filter((value) => value > 0 && !labels.some((label) => label.value === value));
  return [...labels, ...unnamed.map((value) => ({ value, name: `label ${value}` }))].sort(
    (a, b) => a.value - b.value,
  );
}

async function copyAuthor(
  app: string,
  files: readonly AuthorFile[],
  { python, onEvent }: ProgramImport,
): Promise<CopiedFile[]> {
  const total = files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  let shown = -1;
  const copied = await copyFiles(files, join(app, 'model'), python.signal, (done) => {
    const percent = 10 * Math.floor((10 * done) / Math.max(1, total));
    if (percent === shown) return;
    shown = percent;
    onEvent({ type: 'progress', text: `Copying the author’s files: ${percent} %` });
  });
  onEvent({ type: 'copied', files: copied.length, sizeBytes: total });
  return copied;
}

/** The program, the lock of its packages, and the link to the environment that runs it here. */
async function writeProgram(app: string, { prefix, lock }: Environment): Promise<void> {
  for (const name of programs) {
    await copyFile(fileURLToPath(new URL(`../../python/${name}`, import.meta.url)), join(app, name));
    await chmod(join(app, name), 0o666 & ~process.umask());
  }
  await writeFile(join(app, 'requirements.lock'), lock);
  await writeFile(join(app, '.gitignore'), '/venv\n__pycache__/\n');
  await symlink(prefix, join(app, 'venv'));
}

/** What import.json says: of what the app was made. Without the author's paths. */
function recordOf({ author, plan }: ProgramImport, files: readonly CopiedFile[], notes: readonly string[]) {
  return {
    tool: `tomaat ${version}`,
    folder: basename(author.folder),
    runtime: 'command',
    versions: plan.versions,
    files,
    notes,
  };
}
