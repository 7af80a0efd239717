import type { Command } from 'commander';
import { done, jsonOption, wholeNumber } from './options.ts';

export function addInit(program: Command): void {
  program
    .command('init')
    .usage('[options] FILE.onnx')
    .argument('<FILE.onnx>', 'a network; weights in separate files lie next to it')
    .description('make an app folder for a network: its manifest, its hash, a palette')
    .option('-o, --out <folder>', 'folder of the app (default: the id)')
    .option('--id <id>', 'name of the service in addresses (default: after the folder or the file)')
    .option('--title <name>', 'name for people (default: “Anatomy on modality”)')
    .option('--task <word>', 'first word of the address (default: segmentation)')
    .option('--anatomy <word>', 'second word of the address, such as prostate')
    .option('--modality <name>', 'MRI, CT, PET, US …')
    .option('--licence <name>', 'of the weights, as SPDX names it')
    .option('--author <name>', 'who made it')
    .option('--spacing <x,y,z>', 'in training, mm; or “stored”: images were not resampled')
    .option('--orientation <code>', 'in training; or “stored”: images were not reoriented (default: RAS)')
    .option('--channels <names>', 'names of the volumes that are the channels, separated by commas')
    .option('--labels <names>', 'names of the labels from 1 on, separated by commas (default: label 1 …)')
    .option('--classes <number>', 'if the file does not say it, with the background', wholeNumber)
    .option('--inferer <name>', 'simple for whole volumes, or slidingWindow for patches')
    .option('--roi-size <x,y,z>', 'voxels of a patch in training (default: 96,96,96 where any is taken)')
    .option('--axis <axis>', 'of a 2-D network: the axis that its slices lie across (default: z)')
    .option('--output <name>', 'the output of the network (default: the first)')
    .option('--force', 'overwrite an existing app')
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
Asks on a terminal for what is not given and the file does not say. Steps of preprocess are proposed: adapt them to the training.

Exit codes: 0 written, 1 a network that an app cannot use, 2 wrong or missing options.

Example:
  tomaat init prostate.onnx -o prostate --anatomy prostate --modality MRI --licence CC-BY-4.0 --author "Your Name" --spacing 1,1,1`,
    )
    .action((file: string, flags) => done(async () => (await import('../init.ts')).init(file, flags)));
}
