import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { actions } from './cli/actions.ts';
import { addFolderCommands } from './cli/folder-commands.ts';
import { defaultRegistry, describeSetting, kebab, logLevels, type Setting, settings } from './settings.ts';
import { version } from './version.ts';

/*
 * The command line. Each command loads what it needs when it runs, so that --help is quick; what a command does is
 * in cli/.
 */

const program = new Command('tomaat')
  .description('Serve trained models for volumetric medical images, and use them.')
  .version(version, '-V, --version', 'print the version')
  .helpOption('-h, --help', 'print this help, or that of a command')
  .helpCommand('help [command]', 'print the help of a command')
  .showHelpAfterError('(tomaat help shows what there is)')
  .showSuggestionAfterError()
  .configureHelp({
    sortSubcommands: false,
    subcommandTerm: (command) => [command.name(), command.usage().replace('[options] ', '')].join(' '),
  })
  .addHelpText(
    'after',
    `
Examples:
  tomaat up --demo                                         everything on this machine, with a sample
  tomaat discover                                          which services there are
  tomaat predict segmentation/prostate --volume t2.nii.gz  the segmentation, beside the input
  tomaat serve my-app --announce https://registry.example  publish a model`,
  );

/** The exit code of the command that ran; it is set when its work is over. */
let exitCode = 0;
type Work = () => Promise<number>;
const done = async (work: Work) => {
  (await import('./cli/console.ts')).guardConsole();
  exitCode = await work();
};

/** As `collect`, for an option without a default: one that is not given stays undefined. */
const collectGiven = (value: string, list: string[] | undefined) => [...(list ?? []), value];
const collect = (value: string, list: string[]) => [...list, value];
function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0 || text.trim() === '')
    throw new InvalidArgumentError('It has to be a whole number from 0.');
  return value;
}
const dataOption = () => settingOption('data', { about: 'folder of the data' }).env('TOMAAT_DATA');
const trustOption = () =>
  new Option(
    '--data <dir>',
    'data folder of the server here, whose own certificate is trusted; known_hosts lies in it (default: the user’s)',
  ).env('TOMAAT_DATA');
const fingerprintOption = () =>
  new Option(
    '--fingerprint <sha256>',
    'trust a certificate with this fingerprint, as the server prints it; may be repeated',
  )
    .env('TOMAAT_FINGERPRINT')
    .argParser(collectGiven);
const jsonOption = (what = 'print JSON') => new Option('--json', what);

// ---- Serving ----

const configFooter = `
Settings also come from tomaat.config.yaml in the data folder (or --config FILE) as “tlsPort: 9443”, and from
variables as TOMAAT_TLS_PORT=9443. Flags go before variables, variables before the file.`;

type FlagKey = Exclude<keyof typeof settings, 'oidcClientSecret'>;

/** The flag of a setting; config.ts checks what it is given together with the file and the environment. */
function settingOption(key: FlagKey, other: Partial<Setting> & { flag?: string } = {}): Option {
  const setting: Setting = { ...settings[key], ...other };
  const words = [`--${other.flag ?? kebab(key)}`, setting.value].filter(Boolean).join(' ');
  const option = new Option(words, describeSetting(setting));
  return setting.isList ? option.argParser(collectGiven) : option;
}

function addSettings(command: Command, keys: readonly FlagKey[]): Command {
  for (const key of keys) command.addOption(settingOption(key));
  if (keys.includes('announceKey')) command.addOption(new Option('--api-key <key>').hideHelp());
  return command
    .option('--config <file>', 'settings file instead of tomaat.config.yaml in the data folder')
    .addHelpText('after', configFooter);
}

async function load(flags: Record<string, unknown>) {
  const { configSchema, loadConfig } = await import('./config.ts');
  const all: Record<string, unknown> = { ...flags, announceKey: flags.announceKey ?? flags.apiKey };
  const own = Object.keys(configSchema.shape).map((key) => [key, all[key]]);
  return loadConfig({ flags: Object.fromEntries(own), configFile: flags.config as string | undefined });
}

const { up, serve, registry, runApp, checkApp } = actions;
const serverKeys: readonly FlagKey[] = [
  'workers',
  'drainSeconds',
  'memoryMb',
  'maxIdleMb',
  'maxUploadBytes',
  'minBytesPerSecond',
  'maxVoxels',
  'maxQueued',
  'keepMinutes',
  'stripInputs',
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
const commonKeys: readonly FlagKey[] = [
  'data',
  'host',
  'login',
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

if (up) {
  const command = program
    .command('up')
    .usage('[options] [APP_DIR...]')
    .argument('[APP_DIR...]', 'app folders to serve as well as the apps in the box')
    .description('registry, server with the apps in the box, and page, on this machine')
    .option('--demo', 'send the sample in the box through it once, and say what came back')
    .addOption(jsonOption('print the addresses as one line of JSON'));
  addSettings(command, [
    'port',
    'tlsPort',
    'registryPort',
    ...commonKeys,
    'legacyPort',
    'registryLegacyPort',
    'registryPublicUrl',
    'announce',
    'announceKey',
    'ca',
    'allowNet',
    ...serverKeys,
  ]);
  command.action((appFolders: string[], flags) =>
    done(async () =>
      up(await load(flags), { appFolders, demo: Boolean(flags.demo), json: Boolean(flags.json) }),
    ),
  );
}
if (serve) {
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
    'legacyPort',
    'announce',
    'announceKey',
    'ca',
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
    done(async () => serve(await load(flags), { appFolders, json: Boolean(flags.json) })),
  );
}
if (registry) {
  const command = program
    .command('registry')
    .usage('[options]')
    .description('tell clients which services there are, and pass requests on to them')
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
  addSettings(command, [...commonKeys, 'ca', 'allowNet']);
  command.action((flags) =>
    done(async () => {
      const { port, legacyPort, ...rest } = flags as Record<string, unknown>;
      const own = { ...rest, registryPort: port, registryLegacyPort: legacyPort };
      return registry(await load(own), { json: Boolean(flags.json) });
    }),
  );
}

program
  .command('worker')
  .usage('[options] SERVER_URL [APP_DIR...]')
  .argument('<SERVER_URL>', 'the server whose predictions are computed here')
  .argument('[APP_DIR...]', 'apps that it serves, in the same versions (default: the apps in the box)')
  .description('compute predictions for a server on another machine')
  .addOption(
    new Option('--token <key>', 'key of the server with the scope worker').env('TOMAAT_WORKER_TOKEN'),
  )
  .addOption(
    new Option('--workers <number>', 'predictions at a time')
      .argParser(wholeNumber)
      .default(settings.workers.default),
  )
  .addOption(settingOption('memoryMb').argParser(wholeNumber))
  .addOption(
    new Option('--ca <file>', 'certificate (PEM) to trust, such as the server’s tomaat.pem').env('TOMAAT_CA'),
  )
  .addOption(fingerprintOption())
  .addOption(
    new Option(
      '--data <dir>',
      'data folder of a server on this machine, whose own certificate is trusted (default: the user’s)',
    ).env('TOMAAT_DATA'),
  )
  .addOption(
    new Option('--log-level <level>', settings.logLevel.about)
      .choices(logLevels)
      .default(settings.logLevel.default),
  )
  .addOption(jsonOption('print what is served as one line of JSON'))
  .addHelpText(
    'after',
    `
It asks the server for work: nothing has to reach this machine. On the server:
  tomaat keys create --label gpu-1 --scope worker
  tomaat serve prostate --workers 0
Here:
  TOMAAT_WORKER_TOKEN=tmt_… tomaat worker https://server.example:9443 prostate --ca tomaat.pem`,
  )
  .action((url: string, appFolders: string[], flags) =>
    done(async () => (await import('./cli/worker.ts')).worker(url, appFolders, flags)),
  );

// ---- Using ----

const registryOption = () =>
  new Option('--registry <url>', `where names are looked up (default: ${defaultRegistry})`).env(
    'TOMAAT_REGISTRY',
  );
const apiKeyOption = () => new Option('--api-key <key>', 'key for a server with login').env('TOMAAT_API_KEY');
const caOption = () =>
  new Option('--ca <file>', 'certificate (PEM) to trust, such as a server’s tomaat.pem').env('TOMAAT_CA');

program
  .command('discover')
  .usage('[options] [REGISTRY_URL]')
  .argument('[REGISTRY_URL]', `a registry, of TOMAAT v1 too (default: ${defaultRegistry})`)
  .description('which services there are')
  .option('--modality <word>', 'only this modality, such as MRI')
  .option('--anatomy <word>', 'only this anatomy, such as prostate')
  .option('--task <word>', 'only this task, such as segmentation')
  .option('--q <words>', 'only those with these words in name or description')
  .option('--all', 'also services whose announcement has expired')
  .addOption(jsonOption())
  .addOption(registryOption().hideHelp())
  .addOption(apiKeyOption())
  .addOption(caOption())
  .addOption(fingerprintOption())
  .addOption(trustOption())
  .addHelpText(
    'after',
    `
Examples:
  tomaat discover --anatomy prostate
  tomaat discover https://registry.example --json`,
  )
  .action((url: string | undefined, flags) =>
    done(async () => (await import('./cli/discover.ts')).discover(url, flags)),
  );

/** What predict and run have in common. */
function addPredictionOptions(command: Command): Command {
  return command
    .option('--volume <file>', 'the volume, or a folder of volumes that are predicted in turn')
    .option('--input <NAME=FILE>', 'another input that is a file; may be repeated', collect, [])
    .option('--param <NAME=VALUE>', 'a parameter; may be repeated', collect, [])
    .option('--frame <number>', 'which frame of a 4-D volume, from 0', wholeNumber)
    .option(
      '-o, --out <path>',
      'file or folder of the result (default: <volume>_<output>.<format> beside the volume)',
    )
    .option('--output <NAME>', 'fetch this output instead of the primary one; may be repeated', collect, [])
    .option('--all', 'fetch every output')
    .option('--format <name>', 'nii, nii.gz, mha, nrrd, vtk, stl, json, csv … (default: that of the volume)')
    .option('--force', 'overwrite files that exist')
    .option('-q, --quiet', 'print nothing but the names of the files')
    .addOption(jsonOption('print a line of JSON for each volume'));
}

addPredictionOptions(
  program
    .command('predict')
    .usage('[options] SERVICE --volume FILE')
    .argument('<SERVICE>', 'address of a service or server, or a name, an id or task/anatomy to look up')
    .description('send a volume to a service and write what comes back'),
)
  .option('--delete', 'delete the job and its results on the server afterwards')
  .option(
    '--keep-text',
    'send files as they are: with text in their headers that may tell whose scan it is, under their names',
  )
  .option('--receipt <file>', 'write the signed receipt of the prediction to this file')
  .addOption(registryOption())
  .addOption(apiKeyOption())
  .addOption(caOption())
  .addOption(fingerprintOption())
  .addOption(trustOption())
  .addHelpText(
    'after',
    `
SERVICE may be
  http://127.0.0.1:9000/services/prostate    the address of a service, as its page shows it
  http://127.0.0.1:9000                      a server that has one service
  http://127.0.0.1:9000/segmentation/liver   a server, and what is wanted
  https://old.example:9000/predict           a server that speaks only TOMAAT v1
  prostate, segmentation/prostate            a name, or what is wanted, looked up at --registry

Examples:
  tomaat predict prostate --volume t2.nii.gz
  tomaat predict prostate --volume t2.mhd -o results/ --all
  tomaat predict prostate --volume cases/ -o results/ --param threshold=0.4
  tomaat predict brain --volume t1.nii.gz --input flair=flair.nii.gz

Ctrl-C cancels the prediction on the server; again, it leaves at once.
Exit codes: 0 all well, 1 the prediction or the server failed, 2 a fault of the call or the input, 130 Ctrl-C.`,
  )
  .action((service: string, flags) =>
    done(async () => (await import('./cli/predict.ts')).predict(service, flags)),
  );

if (runApp) {
  addPredictionOptions(
    program
      .command('run')
      .usage('[options] APP_DIR --volume FILE')
      .argument('<APP_DIR>', 'folder with a tomaat.yaml')
      .description('run an app on a volume without a server: the author’s loop'),
  )
    .addHelpText('after', '\nExample:\n  tomaat run my-app --volume sample.nii.gz -o out.nii.gz --force')
    .action((folder: string, flags) =>
      done(async () => (await import('./cli/run.ts')).run(folder, flags, await runApp())),
    );
}
if (checkApp) {
  program
    .command('check')
    .usage('[options] APP_DIR')
    .argument('<APP_DIR>', 'folder with a tomaat.yaml')
    .description('check an app: manifest, weights, self-test, geometry')
    .addOption(jsonOption())
    .action((folder: string, flags) =>
      done(async () => (await import('./cli/check.ts')).check(folder, flags, await checkApp())),
    );
}

// ---- Receipts and the audit log ----

program
  .command('verify')
  .usage('[options] RECEIPT')
  .argument('<RECEIPT>', 'a file that “predict --receipt” wrote')
  .description('check a receipt without asking anybody: its signature, and files against it')
  .option('--volume <file>', 'a file that has to be one of its inputs; may be repeated', collect, [])
  .option('--result <file>', 'a file that has to be one of its outputs; may be repeated', collect, [])
  .option('--key <thumbprint>', 'the key that has to have signed it, as the server prints it (Identity)')
  .addOption(jsonOption('print what it says as JSON'))
  .addHelpText(
    'after',
    `
A volume is checked as it was sent: without identifying text, if it has any. A result is checked in the format that the
server stored, which is that of the volume. A receipt says what happened only if its key is
that of the server: compare the thumbprint once by another way.
Exit codes: 0 all is as the receipt says, 1 it is not.`,
  )
  .action((file: string, flags) => done(async () => (await import('./cli/verify.ts')).verify(file, flags)));

addFolderCommands(program, { done, dataOption, jsonOption, collect, wholeNumber });

// ---- Keys ----

const scopes = ['announce', 'predict', 'worker', 'metrics', 'admin'];
const keys = program
  .command('keys')
  .usage('create | list | revoke')
  .description('API keys of the registry and the server on this machine')
  .helpCommand(false);
keys
  .command('create')
  .usage('--label NAME [options]')
  .description('make a key and print it, this once')
  .requiredOption('--label <text>', 'what or whom it is for')
  .addOption(
    new Option(
      '--scope <name>',
      'what it may do: announce, predict, worker, metrics or admin; may be repeated (default: announce)',
    ).argParser((value, list: string[] | undefined) => {
      if (!scopes.includes(value)) throw new InvalidArgumentError(`Choose from ${scopes.join(', ')}.`);
      return [...(list ?? []), value];
    }),
  )
  .option('--expires <time>', 'a date (2027-01-31) or a span (90d, 12h); else it does not expire')
  .option('--max-jobs <number>', 'predictions that it may have under way at a time', wholeNumber)
  .option('--per-day <number>', 'predictions that it may have a day (UTC)', wholeNumber)
  .addOption(dataOption())
  .addOption(jsonOption())
  .addHelpText(
    'after',
    `
Examples:
  tomaat keys create --label "liver server" --scope announce --expires 90d
  tomaat keys create --label "Dr. Rossi" --scope predict --max-jobs 5 --per-day 200
  tomaat keys create --label prometheus --scope metrics`,
  )
  .action((flags) =>
    done(async () =>
      (await import('./cli/keys.ts')).keysCreate({ ...flags, scope: flags.scope ?? ['announce'] }),
    ),
  );
keys
  .command('list')
  .usage('[options]')
  .description('the keys, without their secrets')
  .addOption(dataOption())
  .addOption(jsonOption())
  .action((flags) => done(async () => (await import('./cli/keys.ts')).keysList(flags)));
keys
  .command('revoke')
  .usage('ID [options]')
  .argument('<ID>', 'the id of the key, as “list” shows it')
  .description('end a key at once')
  .addOption(dataOption())
  .addOption(jsonOption())
  .action((id: string, flags) => done(async () => (await import('./cli/keys.ts')).keysRevoke(id, flags)));

const trusted = program
  .command('trust')
  .usage('URL | list | remove')
  .description('certificates and keys of servers that are remembered')
  .helpCommand(false)
  .argument('[URL]', 'an https address whose certificate is to be remembered')
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
      const commands = await import('./cli/trust.ts');
      return url === undefined ? commands.trustList(flags) : commands.trust(url, flags);
    }),
  );
trusted
  .command('list')
  .usage('[options]')
  .description('what is remembered, and since when')
  .addOption(dataOption())
  .addOption(jsonOption())
  .action((_flags, command: Command) =>
    done(async () => (await import('./cli/trust.ts')).trustList(command.optsWithGlobals())),
  );
trusted
  .command('remove')
  .usage('NAME [options]')
  .argument('<NAME>', 'the name, as “list” shows it')
  .description('forget it: the next use counts as the first')
  .addOption(dataOption())
  .action((name: string, _flags, command: Command) =>
    done(async () => (await import('./cli/trust.ts')).trustRemove(name, command.optsWithGlobals())),
  );

// A usage error is the caller's fault: 2, not commander's 1. Subcommands inherit this only if they are told, too.
const tell = (command: Command): void => {
  command.exitOverride();
  for (const child of command.commands) tell(child);
};
tell(program);

// SIGHUP never ends what serves, not even before that has loaded what deals with it (cli/hangup.ts).
if (['up', 'serve', 'registry', 'worker'].includes(process.argv[2])) process.on('SIGHUP', () => {});

// A reader that has seen enough (| head) is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  // The terminal was closed: SIGHUP says so, too.
  if (error.code === 'EIO') return;
  throw error;
});

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    exitCode = error.exitCode === 0 ? 0 : 2;
    // “tomaat” alone prints the help, which is no error to whoever wants to know what there is.
    if (error.code === 'commander.help' && process.argv.length <= 2) exitCode = 0;
  } else {
    const { exitCodeOf, printError } = await import('./cli/console.ts');
    printError(error);
    exitCode = exitCodeOf(error);
  }
}
process.exitCode = exitCode;
