import { type Command, Option } from 'commander';

/** The commands about the data folder of a server on this machine: its audit log, copies of it, and what is erased from it. */

export interface Tools {
  done(work: () => Promise<number>): Promise<void>;
  dataOption(): Option;
  jsonOption(what?: string): Option;
  collect(value: string, list: string[]): string[];
  wholeNumber(text: string): number;
}

export function addFolderCommands(program: Command, tools: Tools): void {
  addAudit(program, tools);
  addCopies(program, tools);
  addErase(program, tools);
}

const subjectOption = () => new Option('--subject <name>', 'of this person, as the issuer names it (sub)');
const issuerOption = () =>
  new Option('--issuer <url>', 'the issuer of that name (default: oidcIssuer of the configuration)');
const addressOption = () => new Option('--address <ip>', 'of this address at the legacy port');

function addAudit(program: Command, { done, dataOption, jsonOption, collect, wholeNumber }: Tools): void {
  const audit = program
    .command('audit')
    .usage('verify | rotate | who')
    .description('the audit log of the server on this machine')
    .helpCommand(false);
  audit
    .command('verify')
    .usage('[options] [FILE...]')
    .argument(
      '[FILE...]',
      'older files of the log that were moved elsewhere, compressed with gzip or zstd or not',
    )
    .description('check that no line of the audit log was changed, removed or inserted')
    .addOption(dataOption())
    .option('--from <number>', 'start with this line: older files no longer exist', wholeNumber, 1)
    .option('--receipt <file>', 'a receipt of this server, which states a line; may be repeated', collect, [])
    .option(
      '--key <thumbprint>',
      'a key that may have signed the newest line, instead of the one in the data folder; may be repeated',
      collect,
      [],
    )
    .option('--head <file>', 'a copy of audit.head: check only the named files against it')
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
The newest line must be signed by the key of the data folder (identity.key), or by a --key. Anyone who can read that key can
rewrite the whole log: keep the thumbprint, receipts or copies of audit.head elsewhere, and compare.
Exit codes: 0 the log is intact and its signer is known, 1 it is not.`,
    )
    .action((files: string[], flags) =>
      done(async () => (await import('./audit.ts')).auditVerify(files, flags)),
    );
  audit
    .command('rotate')
    .usage('[options]')
    .description('start a new file of the audit log, whether or not the server is running')
    .addOption(dataOption())
    .addOption(jsonOption())
    .action((flags) => done(async () => (await import('./audit.ts')).auditRotate(flags)));
  audit
    .command('who')
    .usage('[options]')
    .description('show the id of a person or an address in the audit log')
    .addOption(subjectOption())
    .addOption(issuerOption())
    .addOption(addressOption())
    .addOption(dataOption())
    .addOption(jsonOption())
    .action((flags) => done(async () => (await import('./audit.ts')).auditWho(flags)));
}

function addCopies(program: Command, { done, dataOption, jsonOption }: Tools): void {
  program
    .command('backup')
    .usage('[options] DIR|FILE')
    .argument('<DIR|FILE>', 'a new folder, or an archive that ends with .tar, .tar.gz or .tgz')
    .description('copy the data folder, whether or not the server is running')
    .addOption(dataOption())
    .option('--no-jobs', 'leave out jobs, results, inputs and uploads: the copy contains no images')
    .option('--force', 'replace an existing backup')
    .option('-q, --quiet', 'show no progress')
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
The copy is a snapshot of one moment: databases, the files of every job in them, audit log, keys, certificate and settings. It
contains secrets and, without --no-jobs, images: keep it as safe as the data folder. “tomaat restore” turns it into a data folder.
Exit codes: 0 made, 1 it could not be made, 2 wrong usage.`,
    )
    .action((to: string, flags) => done(async () => (await import('./backup.ts')).backup(to, flags)));
  program
    .command('restore')
    .usage('[options] DIR|FILE')
    .argument('<DIR|FILE>', 'a backup made by “tomaat backup”')
    .description('make a data folder from a backup')
    .addOption(dataOption())
    .option('--force', 'even if the data folder is not empty: its contents are moved aside')
    .option('-q, --quiet', 'show no progress')
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
Every file is checked before any is put in place. Keys that were revoked and data that was erased since the backup are back:
revoke and erase again.
Exit codes: 0 restored, 1 the backup is damaged, 2 wrong usage.`,
    )
    .action((from: string, flags) => done(async () => (await import('./restore.ts')).restore(from, flags)));
}

function addErase(program: Command, { done, dataOption, jsonOption }: Tools): void {
  program
    .command('erase')
    .usage('[options]')
    .description('erase what belongs to a key or a person: jobs, results, uploads, sessions')
    .option('--key <id>', 'of this API key, as “tomaat keys list” shows it')
    .addOption(subjectOption())
    .addOption(issuerOption())
    .addOption(addressOption())
    .option('--owner <id>', 'of this owner, as “who” of the audit log says')
    .option('--revoke', 'also revoke the key and clear its label')
    .option('--dry-run', 'show what would be erased, and erase nothing')
    .option('--yes', 'do not ask on a terminal')
    .addOption(dataOption())
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
It works whether or not the server is running. Running predictions are cancelled. The audit log keeps its lines, which contain
ids and digests, and gets one that says what was erased.
Examples:
  tomaat erase --key abcdefghij --revoke
  tomaat erase --subject anna --issuer https://login.hospital.example/realms/main --dry-run`,
    )
    .action((flags) => done(async () => (await import('./erase.ts')).erase(flags)));
}
