import type { Command } from 'commander';
import { collect, done, jsonOption } from './options.ts';

export function addVerify(program: Command): void {
  program
    .command('verify')
    .usage('[options] RECEIPT')
    .argument('<RECEIPT>', 'a file written by “predict --receipt”')
    .description('check a receipt offline: its signature, and files against it')
    .option('--volume <file>', 'a file that must be one of its inputs; may be repeated', collect, [])
    .option('--result <file>', 'a file that must be one of its outputs; may be repeated', collect, [])
    .option('--key <thumbprint>', 'the key that must have signed it, as printed by the server (Identity)')
    .addOption(jsonOption('print the contents of the receipt as JSON'))
    .addHelpText(
      'after',
      `
A volume is checked as it was sent: without identifying text, if it has any. A result is checked in the format that the
server stored, which is that of the volume. A receipt says what happened only if its key is
that of the server: compare the thumbprint once by another way.
Exit codes: 0 all is as the receipt says, 1 it is not.`,
    )
    .action((file: string, flags) => done(async () => (await import('../verify.ts')).verify(file, flags)));
}
