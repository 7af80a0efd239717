import { nameFirst } from '../import/bisect.ts';
import type { ImportEvent, Imported, ImportOptions } from '../import/import-app.ts';
import { verdictOf } from '../import/parity-report.ts';
import { createProgress, formatBytes, plain, plainLines } from './console.ts';
import { openInterrupt } from './interrupt.ts';
import { hasTerminal, openTerminal } from './terminal.ts';

export interface ImportFlags {
  case?: string[];
  out?: string;
  python: string;
  config?: string;
  folds?: string;
  mirror?: boolean;
  command?: boolean;
  orientation?: string;
  id?: string;
  task: string;
  anatomy?: string;
  licence?: string;
  author: string[];
  modality?: string;
  keepCase?: boolean;
  acceptDifferences?: boolean;
  force?: boolean;
  quiet?: boolean;
  json?: boolean;
}

export type ImportApp = (options: ImportOptions) => Promise<Imported>;

/** `tomaat import DIR`: exit code 0 with an app, 1 where its results differ from the author's. */
export async function importFolder(
  folder: string,
  flags: ImportFlags,
  importApp: ImportApp,
): Promise<number> {
  const isQuiet = Boolean(flags.quiet || flags.json);
  const progress = await createProgress(isQuiet);
  using interrupt = openInterrupt(() => progress.clear());
  const say = (text: string) => {
    progress.clear();
    if (!isQuiet) console.error(plainLines(text));
  };
  // Open for one question: the author's pipeline may run for hours, and has no use for what is typed.
  const ask = async (question: string) => {
    progress.clear();
    using terminal = openTerminal(interrupt.signal);
    return (await terminal?.ask(question)) ?? '';
  };
  const { id, task, anatomy, licence, modality, author } = flags;
  try {
    const imported = await importApp({
      folder,
      cases: flags.case ?? [],
      out: flags.out,
      python: flags.python,
      config: flags.config,
      folds: flags.folds,
      mirror: Boolean(flags.mirror),
      command: Boolean(flags.command),
      orientation: flags.orientation,
      keepCases: Boolean(flags.keepCase),
      acceptDifferences: Boolean(flags.acceptDifferences),
      force: Boolean(flags.force),
      card: { id, task, anatomy, licence, modality, ...(author.length > 0 && { authors: author }) },
      signal: interrupt.signal,
      onEvent: (event) =>
        event.type === 'progress' ? progress.show(event.text, event.text) : say(wordsOf(event)),
      ask: isQuiet || !hasTerminal() ? undefined : ask,
    });
    progress.clear();
    return report(imported, flags);
  } catch (error) {
    interrupt.signal.throwIfAborted();
    throw error;
  } finally {
    progress.clear();
  }
}

/** What an event says on stderr. */
function wordsOf(event: Exclude<ImportEvent, { type: 'progress' }>): string {
  switch (event.type) {
    case 'note':
      return `Note: ${event.text}`;
    case 'recognised':
      return event.author.kind === 'monai'
        ? `MONAI bundle ${event.author.folder}, configs/${event.author.config}`
        : `nnU-Net folder ${event.author.folder}, folds ${event.author.folds?.join(', ')}`;
    case 'fault':
      return `${event.fault.choice === 'impossible' ? 'Impossible' : 'Approximated'}: ${event.fault.path}: ${event.fault.text}.`;
    case 'exported': {
      const { exporter, anySize, window, maxDifference, maxScore } = event.report;
      const sizes = anySize ? 'windows of any size' : `windows of ${window.join(' × ')} voxels (z, y, x)`;
      return `Network: ${formatBytes(event.sizeBytes)}, ${sizes}, by the ${exporter} exporter; scores within ${maxDifference.toExponential(1)} of torch’s, of at most ${maxScore.toPrecision(3)}`;
    }
    case 'copied':
      return `The author’s files: ${event.files}, ${formatBytes(event.sizeBytes)}`;
    case 'proven': {
      const { name, differ, voxels, noise, where, warnings, bisection } = event.proven;
      const lines = [
        `Case ${name}: ${verdictOf(event.proven)}, ${differ} of ${voxels} voxels differ${noise === undefined ? '' : ` (${noise} between two runs of the author’s own pipeline)`}`,
        ...where.map((text) => `  ${text}`),
        ...(bisection?.first ? [`  the first step that differs: ${nameFirst(bisection)}`] : []),
        ...warnings.map((text) => `  Warning: ${text}`),
      ];
      return lines.join('\n');
    }
  }
}

function report({ folder, proof, faults, written }: Imported, flags: ImportFlags): number {
  const { verdict, agree, cases } = proof.parity;
  if (flags.json)
    console.log(
      JSON.stringify({
        written,
        folder,
        parity: proof.parity,
        cases: proof.cases,
        warnings: proof.warnings,
        faults,
      }),
    );
  else if (written) {
    console.log(
      plain(
        flags.quiet
          ? folder
          : `${folder}: ${verdict} in ${cases} cases, at least ${(100 * agree).toFixed(4)} % of the voxels agree`,
      ),
    );
  }
  if (!flags.quiet && !flags.json)
    for (const warning of proof.warnings) console.error(plain(`Warning: ${warning}`));
  if (!written)
    console.error(
      'The app differs from the author’s own result, so it was not written. See above what differs; --accept-differences writes it all the same.',
    );
  return verdict === 'differs' ? 1 : 0;
}
