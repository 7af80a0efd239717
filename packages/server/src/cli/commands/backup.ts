import type { Command } from 'commander';
import { dataOption, done, jsonOption } from './options.ts';

export function addBackup(program: Command): void {
  program
    .command('backup')
    .usage('[options] DIR|FILE')
    .argument('<DIR|FILE>', 'a new folder, or an archive that ends with .tar, .tar.gz or .tgz')
    .description('copy the data folder, whether or not the server is running')
    .addOption(dataOption())
    .option(
      '--no-jobs',
      'leave out jobs, results, inputs, uploads, and the series of a gateway: the copy contains no images',
    )
    .option('--force', 'replace an existing backup')
    .option('-q, --quiet', 'show no progress')
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
The copy is a snapshot of one moment: databases, the files of every job in them, audit logs, keys, certificate and settings. It
contains secrets and, without --no-jobs, images: keep it as safe as the data folder. “tomaat restore” turns it into a data folder.
Exit codes: 0 made, 1 it could not be made, 2 wrong usage.`,
    )
    .action((to: string, flags) => done(async () => (await import('../backup.ts')).backup(to, flags)));
}
