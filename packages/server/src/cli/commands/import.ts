import { type Command, InvalidArgumentError, Option } from 'commander';
import { collect, done, jsonOption } from './options.ts';

function orientation(text: string): string {
  const isCode =
    text.length === 3 &&
    ['LR', 'PA', 'IS'].every((axis) => [...axis].some((letter) => text.includes(letter)));
  if (text === 'stored' || isCode) return text;
  throw new InvalidArgumentError('Give three letters such as RAS or LPS, or “stored”.');
}

export function addImport(program: Command): void {
  program
    .command('import')
    .usage('[options] DIR --case FILE...')
    .argument('<DIR>', 'a MONAI bundle, or a folder that nnU-Net v2 trained')
    .description('make an app of a MONAI bundle or an nnU-Net folder, with proof')
    .option(
      '--case <files...>',
      'volumes to prove it with: of each case one for each channel, in their order',
    )
    .option('-o, --out <dir>', 'folder of the app (default: its id, in the current folder)')
    .option('--python <program>', 'Python of the environment in which the model runs', 'python3')
    .option('--config <name>', 'which config of a bundle, or configuration of nnU-Net (such as 3d_lowres)')
    .option('--folds <list>', 'which folds of nnU-Net: numbers with commas, or “all” (default: all)')
    .option('--command', 'make an app that runs the author’s own Python, instead of exporting the network')
    .option('--mirror', 'mirror windows as nnU-Net does: 8 times the work')
    .addOption(
      new Option(
        '--orientation <codes>',
        'the axes of nnU-Net’s training files, or “stored” (default: those of the first case)',
      ).argParser(orientation),
    )
    .option('--id <slug>', 'name of the service in addresses (default: from the name of the model)')
    .option('--task <word>', 'first word of its address', 'segmentation')
    .option('--anatomy <word>', 'second word of its address; asked for on a terminal')
    .option('--licence <name>', 'of the weights, as SPDX names it (default: by the text of LICENSE)')
    .option('--author <name>', 'who made it, if the folder does not say; may be repeated', collect, [])
    .option('--modality <name>', 'MRI, CT, PET, US … (default: as the folder says)')
    .option('--keep-case', 'put the cases into the app as its self-tests: they are published with it')
    .option('--accept-differences', 'write the app even if its results differ from the author’s')
    .option('--force', 'replace an app that was imported before')
    .option('-q, --quiet', 'print only the folder of the app')
    .addOption(jsonOption('print one JSON document'))
    .addHelpText(
      'after',
      `
The author’s own Python reads the folder, exports the network to ONNX and runs the author’s pipeline. It needs torch, onnx,
onnxruntime, and monai or nnunetv2; nothing is installed. Checkpoints can hold code: import only folders that you trust.

With --command there is no export: the app is a copy of what the pipeline reads, a program that keeps the model loaded, and the list
of the environment’s packages. It serves what no manifest can say: own transforms, other inferers, cascades.

Examples:
  tomaat import spleen_ct_segmentation --case ct.nii.gz --anatomy spleen --python venv/bin/python
  tomaat import nnUNet_results/Dataset901_Abdomen --case case_0000.nii.gz --anatomy abdomen --licence CC-BY-4.0 --author Me

Exit codes: 0 the app gives the author’s results, 1 it differs or cannot be made, 2 a fault of the call, 130 Ctrl-C.`,
    )
    .action((folder: string, flags) =>
      done(async () =>
        (await import('../import.ts')).importFolder(
          folder,
          flags,
          (await import('../../import/import-app.ts')).importApp,
        ),
      ),
    );
}
