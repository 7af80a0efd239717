import type { Command } from 'commander';
import { dataOption, done, jsonOption } from './options.ts';

export function addBackup(program: Command): void {
  program
    .command('backup')
    .usage('[options] DIR|FILE')
    .argument('<DIR|FILE>', 'a new folder, or an archive that ends with .tar, .tar.gz or .tgz')
    .description('copy the data folder, while the server runs or not')
    .addOption(dataOption())
    .option('--no-jobs', 'leave out jobs, results, inputs and uploads: no image is in the copy')
    .option('--force', 'replace a backup that is there')
    .option('-q, --quiet', 'show no progress')
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
The copy is that of one moment: databases, the files of every job in them, audit log, keys, certificate and settings. It holds
secrets and, without --no-jobs, images: keep it as safe as the data folder. “tomaat restore” makes a data folder of it.
Exit codes: 0 made, 1 it could not be made, 2 a fault of the call.`,
    )
    .action((to: string, flags) => done(async () => (await import('../backup.ts')).backup(to, flags)));
}
