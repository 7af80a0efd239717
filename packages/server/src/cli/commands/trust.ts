import type { Command } from 'commander';
import { caOption, dataOption, done, fingerprintOption, jsonOption } from './options.ts';

export function addTrust(program: Command): void {
  const trusted = program
    .command('trust')
    .usage('URL | list | remove')
    .description('manage the remembered certificates and keys of servers')
    .helpCommand(false)
    .argument('[URL]', 'the https address whose certificate to remember')
    .addOption(fingerprintOption())
    .addOption(caOption())
    .addOption(dataOption())
    .addHelpText(
      'after',
      `
Without --fingerprint it shows the certificate of the server and asks. Examples:
  tomaat trust https://server.example:9443 --fingerprint AB:01:…
  tomaat trust list
  tomaat trust remove server.example:9443`,
    )
    .action((url: string | undefined, flags) =>
      done(async () => {
        const commands = await import('../trust.ts');
        return url === undefined ? commands.trustList(flags) : commands.trust(url, flags);
      }),
    );
  trusted
    .command('list')
    .usage('[options]')
    .description('list what is remembered, and since when')
    .addOption(dataOption())
    .addOption(jsonOption())
    .action((_flags, command: Command) =>
      done(async () => (await import('../trust.ts')).trustList(command.optsWithGlobals())),
    );
  trusted
    .command('remove')
    .usage('NAME [options]')
    .argument('<NAME>', 'the name, as shown by “list”')
    .description('forget a certificate or key: the next use counts as the first')
    .addOption(dataOption())
    .action((name: string, _flags, command: Command) =>
      done(async () => (await import('../trust.ts')).trustRemove(name, command.optsWithGlobals())),
    );
}
