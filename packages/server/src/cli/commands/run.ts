import type { Command } from 'commander';
import {
  addPredictionOptions,
  done,
  fraction,
  modelServerOptions,
  oneDeviceOption,
  rewriteOption,
} from './options.ts';

export function addRun(program: Command): void {
  const command = addPredictionOptions(
    program
      .command('run')
      .usage('[options] APP_DIR --volume FILE')
      .argument('<APP_DIR>', 'folder with a tomaat.yaml')
      .description('run an app on a volume without a server, to try it out'),
  )
    .option(
      '--expected <file>',
      'compare the result with this label map (any format that is read, DICOM SEG too): Dice of each label, agreement, volumes',
    )
    .option(
      '--preview <file.png>',
      'a picture: three planes through the labels, with their outlines on the volume',
    )
    .option('--min-dice <number>', 'with --expected: exit code 1 if a label has a lower Dice', fraction)
    .addHelpText(
      'after',
      '\nExamples:\n  tomaat run my-app --volume sample.nii.gz -o out.nii.gz --force\n  tomaat run my-app --volume sample.nii.gz --expected reference.nii.gz --min-dice 0.95\n  tomaat run my-app --volume export/ --series 4',
    );
  for (const option of [oneDeviceOption(), rewriteOption(), ...modelServerOptions()])
    command.addOption(option);
  command.action((folder: string, flags) =>
    done(async () =>
      (await import('../run.ts')).run(folder, flags, (await import('../local.ts')).runLocally),
    ),
  );
}
