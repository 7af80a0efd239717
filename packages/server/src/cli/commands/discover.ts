import type { Command } from 'commander';
import { defaultRegistry } from '../../settings.ts';
import {
  apiKeyOption,
  caOption,
  done,
  fingerprintOption,
  jsonOption,
  registryOption,
  trustOption,
} from './options.ts';

export function addDiscover(program: Command): void {
  program
    .command('discover')
    .usage('[options] [REGISTRY_URL]')
    .argument('[REGISTRY_URL]', `a registry, also of TOMAAT v1 (default: ${defaultRegistry})`)
    .description('list the available services')
    .option('--modality <word>', 'only this modality, such as MRI')
    .option('--anatomy <word>', 'only this anatomy, such as prostate')
    .option('--task <word>', 'only this task, such as segmentation')
    .option('--q <words>', 'only those with these words in name or description')
    .option('--all', 'also services whose announcement has expired')
    .addOption(jsonOption())
    .addOption(registryOption().hideHelp())
    .addOption(apiKeyOption())
    .addOption(caOption())
    .addOption(fingerprintOption())
    .addOption(trustOption())
    .addHelpText(
      'after',
      `
Examples:
  tomaat discover --anatomy prostate
  tomaat discover https://registry.example --json`,
    )
    .action((url: string | undefined, flags) =>
      done(async () => (await import('../discover.ts')).discover(url, flags)),
    );
}
