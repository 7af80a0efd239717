import type { Command } from 'commander';
import { dataOption, done, jsonOption } from './options.ts';

export function addRestore(program: Command): void {
  program
    .command('restore')
    .usage('[options] DIR|FILE')
    .argument('<DIR|FILE>', 'a backup made by “tomaat backup”')
    .description('restore a data folder from a backup')
    .addOption(dataOption())
    .option('--force', 'restore even if the data folder is not empty: its contents are moved aside')
    .option('-q, --quiet', 'show no progress')
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
Every file is checked before any is put in place. Keys that were revoked and data that was erased since the backup are back:
revoke and erase again.
Exit codes: 0 restored, 1 the backup is damaged, 2 wrong usage.`,
    )
    .action((from: string, flags) => done(async () => (await import('../restore.ts')).restore(from, flags)));
}
