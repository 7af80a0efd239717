import { copyFile, mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { orientationOf, TomaatError } from '@tomaat/core';
import { hashFile } from '../store/files/hash-file.ts';
import { version } from '../version.ts';
import {
  dumpAuthor,
  type ExportReport,
  exportNetwork,
  type PythonOptions,
  readPlan,
  runAuthor,
} from './author-python.ts';
import { dumpsOf } from './author-stages.ts';
import { authorsOf, type CardFlags, checkCard, idOf, slugOf, writeManifest } from './card.ts';
import { type Case, derivedCases, groupCases, keepCases, readCase } from './cases.ts';
import { importProgram, type ProgramEvent } from './import-program.ts';
import { formatProofJson, formatProofMarkdown } from './parity-report.ts';
import type { Plan } from './plan.ts';
import { type Proof, proveApp } from './prove.ts';
import { type AuthorFolder, licenceOf, recognise } from './recognise.ts';
import { checkTarget, placeApp } from './target.ts';
import { translate } from './translate.ts';
import type { Translation, TranslationFault } from './translation.ts';

/** What `tomaat import` is given. */
export interface ImportOptions {
  readonly folder: string;
  /** Files of volumes: as many for each case as the network has channels, in their order. */
  readonly cases: readonly string[];
  /** The folder of the app; the app's id in the current folder if missing. */
  readonly out?: string;
  readonly python: string;
  readonly config?: string;
  readonly folds?: string;
  readonly mirror: boolean;
  /** Whether the app runs the author's own Python, instead of an exported network. */
  readonly command: boolean;
  /** Of nnU-Net: axis codes, or `stored`; that of the first case if missing. */
  readonly orientation?: string;
  /** Whether the cases go into the app, as its self-tests. */
  readonly keepCases: boolean;
  /** Whether an app whose results differ is written all the same. */
  readonly acceptDifferences: boolean;
  readonly force: boolean;
  readonly card: Partial<CardFlags>;
  readonly signal: AbortSignal;
  onEvent(event: ImportEvent): void;
  /** Asks for what no file states; undefined where nobody can be asked. */
  ask?(question: string): Promise<string>;
}

/** What happens, in order. */
export type ImportEvent =
  | ProgramEvent
  | { readonly type: 'recognised'; readonly author: AuthorFolder }
  | { readonly type: 'fault'; readonly fault: TranslationFault }
  | { readonly type: 'exported'; readonly report: ExportReport; readonly sizeBytes: number };

export interface Imported {
  readonly folder: string;
  readonly proof: Proof;
  readonly faults: readonly TranslationFault[];
  /** False where the results differ too much for an app: nothing was written. */
  readonly written: boolean;
}

/**
 * Makes an app of a MONAI bundle or a folder of nnU-Net, and proves that it gives what the author's own pipeline gives: on the cases
 * given, and on two derived from the first.
 * @throws {TomaatError} BAD_INPUT for folders, flags and cases; BAD_MANIFEST where a manifest cannot say what the author's config
 * does, with all its faults in `detail.faults`; APP_FAILED where the author's Python fails
 */
export async function importApp(options: ImportOptions): Promise<Imported> {
  const { signal, onEvent } = options;
  const { folder, force } = options;
  if (options.out !== undefined) await checkTarget(resolve(options.out), folder, force);
  if (options.cases.length === 0)
    throw new TomaatError('BAD_INPUT', 'There is no case to prove the app with. Give a volume with --case.', {
      field: 'case',
    });
  for (const file of options.cases) await mustExist(file);
  const author = await recognise(options.folder, options);
  onEvent({ type: 'recognised', author });
  for (const text of author.notes) onEvent({ type: 'note', text });
  const asked = await completeCard(options, author);
  const python: PythonOptions = {
    python: options.python,
    mirror: options.mirror,
    // A program computes where torch does; a network of ONNX is compared with the CPU.
    ...(options.command && { device: 'auto', program: true }),
    signal,
    onProgress: (text) => onEvent({ type: 'progress', text }),
  };
  await checkVolumes(options.cases);
  signal.throwIfAborted();
  const plan = await readPlan(author, python);
  const card = await completeAuthors(asked, plan, options);
  const out = resolve(options.out ?? idOf(plan, card));
  await checkTarget(out, folder, force);
  const orientation = await orientationFor(options, plan);
  const translation = translate(plan, { mirror: options.mirror, orientation });
  if (!options.command) reportTranslation(translation, onEvent);
  const cases = groupCases(options.cases, Object.keys(translation.inputs));
  if (options.command) {
    const { acceptDifferences, keepCases } = options;
    const given = { author, plan, translation, card, cases, python, out, force, onEvent };
    const made = await importProgram({ ...given, acceptDifferences, keepCases });
    return { folder: out, faults: [], ...made };
  }
  checkCard(plan, translation, card);

  await mkdir(dirname(out), { recursive: true });
  const app = await mkdtemp(join(dirname(out), '.tomaat-import-'));
  const work = await mkdtemp(join(tmpdir(), 'tomaat-import-'));
  try {
    const inputs = Object.values(cases[0].inputs);
    const report = await exportNetwork(author, join(app, 'model.onnx'), inputs, python);
    onEvent({ type: 'exported', report, sizeBytes: (await stat(join(app, 'model.onnx'))).size });
    for (const text of report.notes) onEvent({ type: 'note', text });
    checkSizes(report, translation);
    const weights = { file: 'model.onnx', sha256: await hashFile(join(app, 'model.onnx')) };
    const write = (proof?: Parameters<typeof writeManifest>[4]) =>
      writeFile(join(app, 'tomaat.yaml'), writeManifest(plan, translation, weights, card, proof));
    await write();
    const { proof, results } = await prove({ app, work, author, plan, translation, cases, python, onEvent });
    const { faults } = translation;
    if (proof.parity.verdict === 'differs' && !options.acceptDifferences)
      return { folder: out, proof, faults, written: false };
    const tests = options.keepCases ? await keepCases(app, cases, results, proof.cases) : [];
    await write({ parity: proof.parity, tests });
    if (author.licenceFile) await copyFile(author.licenceFile, join(app, 'LICENSE'));
    await writeFile(
      join(app, 'import.json'),
      `${JSON.stringify(recordOf(plan, translation, report, author), null, 1)}\n`,
    );
    await writeFile(join(app, 'parity.json'), formatProofJson(proof));
    await writeFile(
      join(app, 'parity.md'),
      formatProofMarkdown(proof) + translated(translation, report.notes),
    );
    const placed = await placeApp(app, out, folder, force);
    if (placed !== out)
      onEvent({ type: 'note', text: `${out} was taken during the import. The app is in ${placed}.` });
    return { folder: placed, proof, faults, written: true };
  } finally {
    await rm(app, { recursive: true, force: true });
    await rm(work, { recursive: true, force: true });
  }
}

async function mustExist(file: string): Promise<void> {
  const found = await stat(file).catch(() => undefined);
  if (!found?.isFile())
    throw new TomaatError(
      'BAD_INPUT',
      `${file} is not a file. Give a volume in one file, such as a .nii.gz.`,
      { field: 'case' },
    );
}

/** Reads every volume once: the author's Python needs minutes before it would find that one is none. */
async function checkVolumes(files: readonly string[]): Promise<void> {
  for (const file of files)
    await readCase(file).catch((error) => {
      if (!(error instanceof TomaatError)) throw error;
      throw new TomaatError('BAD_INPUT', `${file} cannot be a case: ${error.message}`, {
        field: 'case',
        cause: error,
      });
    });
}

type Asked = Omit<CardFlags, 'authors'> & Pick<CardFlags, 'authors'>;

/** The card's parts that no folder states: given, found in the licence's text, or asked for. */
async function completeCard(options: ImportOptions, author: AuthorFolder): Promise<Asked> {
  const { card, ask } = options;
  const missing: string[] = [];
  const one = async (given: string | undefined, flag: string, question: string) => {
    const answer = (given ?? (await ask?.(question)))?.trim();
    if (!answer) missing.push(flag);
    return answer ?? '';
  };
  const anatomy = await one(
    card.anatomy,
    '--anatomy',
    'Which anatomy, as a word of its address (such as spleen)? ',
  );
  const found = card.licence ?? (author.licenceFile && (await licenceOf(author.licenceFile)));
  const licence = await one(found, '--licence', 'Under which licence are the weights (such as Apache-2.0)? ');
  if (missing.length > 0)
    throw new TomaatError(
      'BAD_INPUT',
      `No file of the folder states ${missing.join(' and ')}. Give ${missing.length > 1 ? 'them' : 'it'}.`,
      {
        field: missing[0].slice(2),
      },
    );
  return {
    ...card,
    ...(card.id !== undefined && { id: wordOf('id', card.id, options) }),
    anatomy: wordOf('anatomy', anatomy, options),
    licence,
    task: wordOf('task', card.task ?? 'segmentation', options),
  };
}

/** A word of an address, of what was given for it. */
function wordOf(flag: string, given: string, { onEvent }: ImportOptions): string {
  if (!/[a-z0-9]/i.test(given.normalize('NFKD')))
    throw new TomaatError(
      'BAD_INPUT',
      `--${flag} “${given}” has no letter of a to z and no digit. Give a word such as lung-lobes.`,
      { field: flag },
    );
  const word = slugOf(given);
  if (word !== given) onEvent({ type: 'note', text: `--${flag} “${given}” is ${word} in addresses.` });
  return word;
}

async function completeAuthors(card: Asked, plan: Plan, { ask }: ImportOptions): Promise<CardFlags> {
  if (card.authors?.length || authorsOf(plan).length > 0) return card;
  const answer = (await ask?.('Who made the model? '))?.trim();
  if (answer) return { ...card, authors: [answer] };
  throw new TomaatError('BAD_INPUT', 'No file of the folder states who made the model. Give --author.', {
    field: 'author',
  });
}

/** Of nnU-Net, which does not reorient: the order of the axes of its files. */
async function orientationFor({ orientation, cases }: ImportOptions, plan: Plan): Promise<string> {
  if (orientation !== undefined || plan.kind === 'monai') return orientation ?? 'stored';
  return orientationOf((await readCase(cases[0])).affine);
}

function reportTranslation({ faults, notes }: Translation, onEvent: ImportOptions['onEvent']): void {
  for (const fault of faults) onEvent({ type: 'fault', fault });
  for (const text of notes) onEvent({ type: 'note', text });
  const impossible = faults.filter(({ choice }) => choice === 'impossible');
  if (impossible.length === 0) return;
  const lines = impossible.map(({ path, text }) => `  ${path}: ${text}`).join('\n');
  throw new TomaatError(
    'BAD_MANIFEST',
    `A manifest cannot say what the author's config does:\n${lines}\nServe the author's own Python instead: give the same command with --command (docs/guides/import.md).`,
    { detail: { faults: impossible } },
  );
}

function checkSizes(report: ExportReport, { inferer }: Translation): void {
  if (report.anySize || inferer.type !== 'simple') return;
  throw new TomaatError(
    'APP_FAILED',
    `The network can be exported for windows of ${report.window.join(' × ')} voxels (z, y, x) alone, and the author's config gives it the whole volume. Use SlidingWindowInferer with this roi_size in the config, or --command, which runs the author’s own Python.`,
    { field: 'inferer' },
  );
}

interface Proving {
  readonly app: string;
  readonly work: string;
  readonly author: AuthorFolder;
  readonly plan: Plan;
  readonly translation: Translation;
  readonly cases: readonly Case[];
  readonly python: PythonOptions;
  readonly onEvent: ImportOptions['onEvent'];
}

/** The author's own pipeline on all cases, and the app's results compared with it. `results` has the author's label maps. */
async function prove(all: Proving): Promise<{ proof: Proof; results: Readonly<Record<string, string>> }> {
  const { app, work, author, plan, translation, python, onEvent } = all;
  onEvent({ type: 'progress', text: 'Deriving two cases' });
  const cases = [...all.cases, ...(await derivedCases(all.cases[0], plan, translation, work))];
  const outFor = (one: Case, i: number, what: string) => ({
    inputs: Object.values(one.inputs),
    out: join(work, `${what}-${i}.nii.gz`),
  });
  const runs = cases.map((one, i) => outFor(one, i, 'author'));
  const { cases: ran } = await runAuthor(author, runs, python);
  const noise: Record<string, string> = {};
  if (plan.kind === 'nnunet') {
    const again = cases.map((one, i) => outFor(one, i, 'float32'));
    await runAuthor(author, again, { ...python, float32: true });
    for (const [i, { name }] of cases.entries()) noise[name] = again[i].out;
  }
  onEvent({ type: 'progress', text: 'Running the app' });
  const proof = await proveApp({
    appFolder: app,
    cases: cases.map((one, i) => ({
      name: one.name,
      inputs: one.inputs,
      expected: runs[i].out,
      fractional: ran[i]?.fractional,
      isProbabilities: translation.isProbabilities,
      dumps: async () => {
        const stages = await dumpAuthor(
          author,
          { inputs: runs[i].inputs, out: join(work, `dump-${i}`) },
          python,
        );
        return dumpsOf(stages, translation, join(work, `dump-${i}`));
      },
    })),
    noise,
    versions: plan.versions,
    conditions: translation.conditions,
    signal: python.signal,
    onCase: (proven) => onEvent({ type: 'proven', proven }),
  });
  return { proof, results: Object.fromEntries(cases.map(({ name }, i) => [name, runs[i].out])) };
}

/** What the app does otherwise than the author's config, and what its author should know, as a part of parity.md. */
function translated({ faults, notes }: Translation, more: readonly string[]): string {
  const section = (title: string, lines: readonly string[]) =>
    lines.length > 0 ? `\n## ${title}\n\n${lines.map((line) => `- ${line}`).join('\n')}\n` : '';
  return (
    section(
      'Approximated',
      faults.map(({ path, text }) => `\`${path}\`: ${text}`),
    ) + section('Notes', [...notes, ...more])
  );
}

/** What import.json says: of what the app was made, with which software, and what was lost. Without the author's paths. */
function recordOf(
  plan: Plan,
  { faults, notes, sources }: Translation,
  report: ExportReport,
  author: AuthorFolder,
) {
  const isFile = ({ target }: { target: string }) => /(Load|Save)Image/.test(target);
  const steps =
    plan.kind === 'monai'
      ? {
          ...plan,
          preprocessing: plan.preprocessing.filter((step) => !isFile(step)),
          postprocessing: plan.postprocessing.filter((step) => !isFile(step)),
        }
      : plan;
  return {
    tool: `tomaat ${version}`,
    folder: basename(author.folder),
    versions: plan.versions,
    network: report,
    faults,
    notes,
    sources,
    plan: steps,
  };
}
