import type { Command } from 'commander';
import { settings } from '../../settings.ts';
import { done, jsonOption, keysDatabase, settingOption } from './options.ts';
import { addSettings, commonKeys, load } from './settings-options.ts';

export function addRegistry(program: Command): void {
  const command = program
    .command('registry')
    .usage('[options]')
    .description('list services for clients, and forward requests to them')
    .addOption(
      settingOption('registryPort', { flag: 'port', about: `${settings.registryPort.about}; 0: a free one` }),
    )
    .addOption(
      settingOption('registryLegacyPort', {
        flag: 'legacy-port',
        about: 'open a port for TOMAAT v1 clients that cannot log in',
      }),
    )
    .addOption(jsonOption('print the address as one line of JSON'));
  command.addOption(settingOption('database', { about: keysDatabase }));
  addSettings(command, [...commonKeys, 'ca', 'allowNet']);
  command.action((flags) =>
    done(async () => {
      const { port, legacyPort, ...rest } = flags as Record<string, unknown>;
      const own = { ...rest, registryPort: port, registryLegacyPort: legacyPort };
      return (await import('../registry.ts')).registry(await load(own), { json: Boolean(flags.json) });
    }),
  );
}
