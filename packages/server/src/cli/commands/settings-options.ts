import { type Command, Option } from 'commander';
import { type Setting, settings } from '../../settings.ts';
import { type FlagKey, settingOption } from './options.ts';

/** The flags of commands that serve: settings, which can also come from a file and from variables. */

const configFooter = (file: string) => `
Settings also come from tomaat.config.yaml in the data folder${file} as “tlsPort: 9443”, and from
variables as TOMAAT_TLS_PORT=9443. Flags go before variables, variables before the file.`;

/** @param withFile whether `--config` names another file of settings; for the gateway, it names the file of rules */
export function addSettings(
  command: Command,
  keys: readonly FlagKey[],
  { withFile = true }: { withFile?: boolean } = {},
): Command {
  for (const key of keys) command.addOption(settingOption(key));
  if (keys.includes('announceKey')) command.addOption(new Option('--api-key <key>').hideHelp());
  if (!withFile) return command.addHelpText('after', configFooter(''));
  return command
    .option('--config <file>', 'settings file instead of tomaat.config.yaml in the data folder')
    .addHelpText('after', configFooter(' (or --config FILE)'));
}

export async function load(flags: Record<string, unknown>) {
  const { configSchema, loadConfig } = await import('../../config.ts');
  const all: Record<string, unknown> = { ...flags, announceKey: flags.announceKey ?? flags.apiKey };
  // A switch that is on has this value without its flag, too.
  const given = (key: string) => (all[key] === true && isOn(key) ? undefined : all[key]);
  const own = Object.keys(configSchema.shape).map((key) => [key, given(key)]);
  return loadConfig({ flags: Object.fromEntries(own), configFile: flags.config as string | undefined });
}

const isOn = (key: string) => Boolean((settings as Record<string, Setting>)[key]?.isOn);

export const serverKeys: readonly FlagKey[] = [
  'database',
  'blobs',
  'maxCacheBytes',
  'deleteAfterSeconds',
  'workers',
  'device',
  'rewrite',
  'drainSeconds',
  'memoryMb',
  'maxIdleMb',
  'maxUploadBytes',
  'minBytesPerSecond',
  'maxVoxels',
  'maxQueued',
  'keepMinutes',
  'allowIdentity',
  'stripInputs',
  'withholdModels',
  'default',
];
const oidcKeys: readonly FlagKey[] = [
  'oidcIssuer',
  'oidcClientId',
  'oidcScopes',
  'oidcAllow',
  'oidcAdmin',
  'oidcAudience',
];
export const commonKeys: readonly FlagKey[] = [
  'data',
  'host',
  'login',
  'contact',
  'tlsCert',
  'tlsKey',
  'tlsSelfMade',
  'publicUrl',
  'allowHost',
  'allowOrigin',
  'legacyPerMinute',
  'logLevel',
  ...oidcKeys,
];
