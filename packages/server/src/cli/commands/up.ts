import type { Command } from 'commander';
import { done, jsonOption } from './options.ts';
import { addSettings, commonKeys, load, serverKeys } from './settings-options.ts';

export function addUp(program: Command): void {
  const command = program
    .command('up')
    .usage('[options] [APP_DIR...]')
    .argument('[APP_DIR...]', 'app folders to serve in addition to the bundled apps')
    .description('start a registry and a server with the bundled apps and the page, on this machine')
    .option('--demo', 'send the bundled sample through it once, and print the result')
    .addOption(jsonOption('print the addresses as one line of JSON'));
  addSettings(command, [
    'port',
    'tlsPort',
    'registryPort',
    ...commonKeys,
    'faces',
    'legacyPort',
    'registryLegacyPort',
    'registryPublicUrl',
    'announce',
    'announceKey',
    'ca',
    'allowNet',
    'dicomweb',
    ...serverKeys,
  ]);
  command.action((appFolders: string[], flags) =>
    done(async () =>
      (await import('../serve.ts')).up(await load(flags), {
        appFolders,
        demo: Boolean(flags.demo),
        json: Boolean(flags.json),
      }),
    ),
  );
}
