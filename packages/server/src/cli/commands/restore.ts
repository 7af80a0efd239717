import type { Command } from 'commander';
import { dataOption, done, jsonOption } from './options.ts';

export function addRestore(program: Command): void {
  program
    .command('restore')
    .usage('[options] DIR|FILE')
    .argument('<DIR|FILE>', 'what “tomaat backup” wrote')
    .description('make a data folder of a backup')
    .addOption(dataOption())
    .option('--force', 'also where the data folder is not empty: what is there is moved aside')
    .option('-q, --quiet', 'show no progress')
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
Every file is checked before any takes its place. Keys that were revoked and data that was erased since the backup are back:
revoke and erase again.
Exit codes: 0 restored, 1 the backup is damaged, 2 a fault of the call.`,
    )
    .action((from: string, flags) => done(async () => (await import('../restore.ts')).restore(from, flags)));
}
