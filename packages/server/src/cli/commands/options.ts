import { type Command, InvalidArgumentError, Option } from 'commander';
import { defaultRegistry, describeSetting, kebab, type Setting, settings } from '../../settings.ts';

/** Shared by several commands: how they run, and their common options. */

/** Runs a command and then sets the exit code. */
export const done = async (work: () => Promise<number>) => {
  (await import('../console.ts')).guardConsole();
  process.exitCode = await work();
};

/** For an option that may be repeated, with `[]` as its default. */
export const collect = (value: string, list: string[]) => [...list, value];
/** The same without a default: an option that is not given stays undefined. */
const collectGiven = (value: string, list: string[] | undefined) => [...(list ?? []), value];

export function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0 || text.trim() === '')
    throw new InvalidArgumentError('Give a whole number, 0 or more.');
  return value;
}

export function fraction(text: string): number {
  const value = Number(text);
  if (!(value >= 0 && value <= 1) || text.trim() === '')
    throw new InvalidArgumentError('Give a number from 0 to 1.');
  return value;
}

export const dataOption = () => settingOption('data', { about: 'data folder' }).env('TOMAAT_DATA');
/** For commands that work on the data folder of a server; `databaseFor()` also reads TOMAAT_DATABASE and the file of settings. */
export const databaseOption = () => settingOption('database');
/** What the database of servers is for other commands that serve. */
export const keysDatabase =
  'PostgreSQL database of the servers of this data folder, which has their keys: postgres://USER@HOST/DATABASE, or a file that holds this with a password';
export const trustOption = () =>
  new Option(
    '--data <dir>',
    'data folder of a server on this machine, whose self-signed certificate is trusted; contains known_hosts (default: the user’s)',
  ).env('TOMAAT_DATA');
export const fingerprintOption = () =>
  new Option(
    '--fingerprint <sha256>',
    'trust a certificate with this fingerprint, as printed by the server; may be repeated',
  )
    .env('TOMAAT_FINGERPRINT')
    .argParser(collectGiven);
export const jsonOption = (what = 'print JSON') => new Option('--json', what);

export type FlagKey = {
  [Key in keyof typeof settings]: (typeof settings)[Key] extends { hasNoFlag: true } ? never : Key;
}[keyof typeof settings];

/** The flag of a setting; config.ts checks its value together with the file and the environment. */
export function settingOption(key: FlagKey, other: Partial<Setting> & { flag?: string } = {}): Option {
  const setting: Setting = { ...settings[key], ...other };
  const words = [`--${setting.isOn ? 'no-' : ''}${other.flag ?? kebab(key)}`, setting.value]
    .filter(Boolean)
    .join(' ');
  const option = new Option(words, describeSetting(setting));
  return setting.isList ? option.argParser(collectGiven) : option;
}

export const registryOption = () =>
  new Option('--registry <url>', `registry to look names up in (default: ${defaultRegistry})`).env(
    'TOMAAT_REGISTRY',
  );
/** What `--allow-net` means where nothing is relayed. */
export const modelServersIn = 'network in which apps may use model servers, such as 10.1.0.0/16';
/** For commands that read no file of settings. */
export const deviceOption = (other: Partial<Setting> = {}) =>
  settingOption('device', other).env('TOMAAT_DEVICE');
/** For commands that compute without serving, one prediction after the other. */
export const oneDeviceOption = () =>
  deviceOption({ about: 'what computes networks: cpu, cuda, cuda:1 or webgpu' });
/** For commands that read no file of settings; `engineOf()` in config.ts reads the variable. */
export const rewriteOption = () =>
  settingOption('rewrite', {
    about: `${settings.rewrite.about} (env: TOMAAT_REWRITE=false)`,
  });
/** For commands that compute without serving. */
export const modelServerOptions = () => [
  settingOption('allowNet', { about: modelServersIn }),
  new Option('--ca <file>', 'more certificates (PEM) to trust: of model servers').env('TOMAAT_CA'),
];

export const apiKeyOption = () =>
  new Option('--api-key <key>', 'key for a server with login').env('TOMAAT_API_KEY');
export const caOption = () =>
  new Option('--ca <file>', 'certificate (PEM) to trust, such as a server’s tomaat.pem').env('TOMAAT_CA');

export const subjectOption = () =>
  new Option('--subject <name>', 'data of this person, by the subject of the issuer (sub)');
export const issuerOption = () =>
  new Option('--issuer <url>', 'the issuer of that subject (default: oidcIssuer of the configuration)');
export const addressOption = () =>
  new Option('--address <ip>', 'data of this client address at the legacy port');

/** The number of --jobs. */
export function jobCount(text: string): number {
  const count = Number(text);
  if (/^[0-9]{1,3}$/.test(text) && count >= 1 && count <= 64) return count;
  throw new InvalidArgumentError('Give a whole number from 1 to 64.');
}

/** Options of both predict and run. */
export function addPredictionOptions(command: Command): Command {
  return command
    .option(
      '--volume <file>',
      'the volume; a folder of volumes, each of which is predicted; a folder, zip archive or file of a DICOM series',
    )
    .option(
      '--series <choice>',
      'which DICOM series: its UID, its number, or “all” of them, one after the other',
    )
    .option(
      '--input <NAME=FILE>',
      'another file input, or a folder of a DICOM series; may be repeated',
      collect,
      [],
    )
    .option('--param <NAME=VALUE>', 'a parameter; may be repeated', collect, [])
    .option('--frame <number>', 'the frame of a 4-D volume, counted from 0', wholeNumber)
    .option(
      '-o, --out <path>',
      'file or folder for the results (default: <volume>_<output>.<format> next to the volume)',
    )
    .option('--output <NAME>', 'fetch this output instead of the primary one; may be repeated', collect, [])
    .option('--all', 'fetch every output')
    .option(
      '--format <name>',
      'nii, nii.gz, mha, nrrd, vtk, stl, json, csv …; for DICOM seg.dcm (the default), labelmap.dcm, rtstruct.dcm, key.dcm, sr.dcm, zip (otherwise default: that of the volume)',
    )
    .option('--force', 'overwrite existing files')
    .option('-q, --quiet', 'print only the names of the files')
    .addOption(jsonOption('print one line of JSON per volume'));
}
