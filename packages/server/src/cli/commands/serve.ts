import type { Command } from 'commander';
import { done, jsonOption } from './options.ts';
import { addSettings, commonKeys, load, serverKeys } from './settings-options.ts';

export function addServe(program: Command): void {
  const command = program
    .command('serve')
    .usage('[options] APP_DIR...')
    .argument('<APP_DIR...>', 'folders with a tomaat.yaml')
    .description('serve apps, and announce them to a registry')
    .addOption(jsonOption('print the addresses as one line of JSON'));
  addSettings(command, [
    'port',
    'tlsPort',
    ...commonKeys,
    'faces',
    'legacyPort',
    'announce',
    'announceKey',
    'ca',
    'allowNet',
    'dicomweb',
    ...serverKeys,
  ]);
  command.addHelpText(
    'after',
    `
Examples:
  tomaat serve prostate liver
  TOMAAT_ANNOUNCE_KEY=tmt_… tomaat serve prostate --announce https://registry.example`,
  );
  command.action((appFolders: string[], flags) =>
    done(async () =>
      (await import('../serve.ts')).serve(await load(flags), { appFolders, json: Boolean(flags.json) }),
    ),
  );
}
