import { type Command, Option } from 'commander';
import {
  addressOption,
  collect,
  databaseOption,
  dataOption,
  done,
  issuerOption,
  jsonOption,
  subjectOption,
  wholeNumber,
} from './options.ts';

const logOption = () =>
  new Option('--log <which>', 'this log alone; if missing, both if both exist').choices([
    'server',
    'gateway',
  ]);

export function addAudit(program: Command): void {
  const audit = program
    .command('audit')
    .usage('verify | rotate | who')
    .description('the audit logs of a server and a gateway on this machine')
    .helpCommand(false);
  audit
    .command('verify')
    .usage('[options] [FILE...]')
    .argument(
      '[FILE...]',
      'older files of the log that were moved elsewhere, compressed with gzip or zstd or not',
    )
    .description('check that no line of the audit logs was changed, removed or inserted')
    .addOption(dataOption())
    .addOption(databaseOption())
    .addOption(logOption())
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
FILE, --from, --receipt and --head are about one log: the server's, or with --log gateway the gateway's.
The newest line must be signed by the key of the data folder (identity.key), or by a --key. Anyone who can read that key can
rewrite the whole log: keep the thumbprint, receipts or copies of audit.head elsewhere, and compare.
Exit codes: 0 the log is intact and its signer is known, 1 it is not.`,
    )
    .action((files: string[], flags) =>
      done(async () => (await import('../audit.ts')).auditVerify(files, flags)),
    );
  audit
    .command('rotate')
    .usage('[options]')
    .description('start a new file of each audit log, whether or not the server or gateway is running')
    .addOption(dataOption())
    .addOption(logOption())
    .addOption(jsonOption())
    .action((flags) => done(async () => (await import('../audit.ts')).auditRotate(flags)));
  audit
    .command('who')
    .usage('[options]')
    .description('show the id of a person or an address in the audit log')
    .addOption(subjectOption())
    .addOption(issuerOption())
    .addOption(addressOption())
    .addOption(dataOption())
    .addOption(jsonOption())
    .action((flags) => done(async () => (await import('../audit.ts')).auditWho(flags)));
}
