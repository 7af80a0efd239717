import type { Command } from 'commander';
import {
  addressOption,
  databaseOption,
  dataOption,
  done,
  issuerOption,
  jsonOption,
  subjectOption,
} from './options.ts';

export function addErase(program: Command): void {
  program
    .command('erase')
    .usage('[options]')
    .description('erase the data of a key or a person: jobs, results, uploads, sessions')
    .option('--key <id>', 'data of this API key, as shown by “tomaat keys list”')
    .addOption(subjectOption())
    .addOption(issuerOption())
    .addOption(addressOption())
    .option('--owner <id>', 'data of this owner, as “who” in the audit log')
    .option('--revoke', 'also revoke the key and clear its label')
    .option('--dry-run', 'show what would be erased, and erase nothing')
    .option('--yes', 'do not ask for confirmation on a terminal')
    .addOption(dataOption())
    .addOption(databaseOption())
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
It works whether or not the server is running. Running predictions are cancelled. The audit log keeps its lines, which contain
ids and digests, and gets one that says what was erased. The series of a gateway belong to no key or person: its rows hold UIDs
until the time that its file of rules sets, and “tomaat gateway drop” ends work on one.
Examples:
  tomaat erase --key abcdefghij --revoke
  tomaat erase --subject anna --issuer https://login.hospital.example/realms/main --dry-run`,
    )
    .action((flags) => done(async () => (await import('../erase.ts')).erase(flags)));
}
