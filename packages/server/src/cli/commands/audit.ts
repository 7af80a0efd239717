import type { Command } from 'commander';
import {
  addressOption,
  collect,
  dataOption,
  done,
  issuerOption,
  jsonOption,
  subjectOption,
  wholeNumber,
} from './options.ts';

export function addAudit(program: Command): void {
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
    .description('check that no line of the audit log was changed, removed or put in')
    .addOption(dataOption())
    .option('--from <number>', 'begin with this line: older files are not there any more', wholeNumber, 1)
    .option('--receipt <file>', 'a receipt of this server, which knows a line; may be repeated', collect, [])
    .option(
      '--key <thumbprint>',
      'a key that may have signed the newest line, instead of the one in the data folder; may be repeated',
      collect,
      [],
    )
    .option('--head <file>', 'a copy of audit.head: check the named files alone against it')
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
The newest line is signed. It has to be signed by the key of the data folder (identity.key), or by a --key. Whoever can read
that key can write the whole log again: keep the thumbprint, receipts or copies of audit.head elsewhere, and compare.
Exit codes: 0 the log is whole and its signer is known, 1 it is not.`,
    )
    .action((files: string[], flags) =>
      done(async () => (await import('../audit.ts')).auditVerify(files, flags)),
    );
  audit
    .command('rotate')
    .usage('[options]')
    .description('begin a new file of the audit log, while the server runs or not')
    .addOption(dataOption())
    .addOption(jsonOption())
    .action((flags) => done(async () => (await import('../audit.ts')).auditRotate(flags)));
  audit
    .command('who')
    .usage('[options]')
    .description('under which id a person or an address is in the audit log')
    .addOption(subjectOption())
    .addOption(issuerOption())
    .addOption(addressOption())
    .addOption(dataOption())
    .addOption(jsonOption())
    .action((flags) => done(async () => (await import('../audit.ts')).auditWho(flags)));
}
