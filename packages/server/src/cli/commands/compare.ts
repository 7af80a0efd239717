import type { Command } from 'commander';
import { done, fraction, jsonOption } from './options.ts';

export function addCompare(program: Command): void {
  program
    .command('compare')
    .usage('[options] RESULT RESULT...')
    .argument('<RESULT...>', 'label maps in any format that is read, DICOM SEG too')
    .description('compare label maps: Dice and surface distances of each label, volumes')
    .option('--truth <file>', 'the label map to compare all others with (default: the first one)')
    .option('--app <dir>', 'folder of the app that made them: its labels name the values')
    .option('--map <file>', 'write a label map of where the two differ')
    .option('--min-dice <number>', 'exit code 1 if a label has a lower Dice', fraction)
    .option('--force', 'overwrite an existing file')
    .addOption(jsonOption('print one line of JSON per comparison'))
    .addHelpText(
      'after',
      `
The label maps must lie on the same voxels, in any order and direction of the axes.
Surfaces are voxels with a neighbour of another label; distances are those of their centres, in mm.
Exit codes: 0 compared, 1 a label is below --min-dice, 2 they cannot be compared.

Examples:
  tomaat compare old.nii.gz new.nii.gz --map where.nii.gz
  tomaat compare a.nii.gz b.mha seg.dcm --truth reference.nii.gz --json`,
    )
    .action((files: string[], flags) =>
      done(async () => (await import('../compare.ts')).compare(files, flags)),
    );
}
