import { type Command, Option } from 'commander';
import { logLevels, settings } from '../../settings.ts';
import {
  deviceOption,
  done,
  fingerprintOption,
  jsonOption,
  modelServersIn,
  rewriteOption,
  settingOption,
  wholeNumber,
} from './options.ts';

export function addWorker(program: Command): void {
  program
    .command('worker')
    .usage('[options] SERVER_URL [APP_DIR...]')
    .argument('<SERVER_URL>', 'the server to compute predictions for')
    .argument('[APP_DIR...]', 'apps of that server, in the same versions (default: the bundled apps)')
    .description('compute predictions for a server on another machine')
    .addOption(
      new Option('--token <key>', 'key of the server with the scope worker').env('TOMAAT_WORKER_TOKEN'),
    )
    .addOption(
      new Option(
        '--workers <number>',
        `number of concurrent predictions (default: ${settings.workers.default})`,
      ).argParser(wholeNumber),
    )
    .addOption(
      new Option(
        '--idle-exit <seconds>',
        'end with exit code 0 after this time without a job, 1 if the server could not be asked; 0: when no job waits (default: never)',
      ).argParser(wholeNumber),
    )
    .addOption(
      new Option('--drain-seconds <number>', settings.drainSeconds.about)
        .argParser(wholeNumber)
        .default(settings.drainSeconds.default),
    )
    .addOption(deviceOption())
    .addOption(rewriteOption())
    .addOption(settingOption('memoryMb').argParser(wholeNumber))
    .addOption(
      new Option(
        '--ca <file>',
        'certificate (PEM) to trust, such as the server’s tomaat.pem; also of model servers',
      ).env('TOMAAT_CA'),
    )
    .addOption(settingOption('allowNet', { about: modelServersIn }))
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
    .addOption(jsonOption('print the served apps as one line of JSON'))
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
      done(async () => (await import('../worker.ts')).worker(url, appFolders, flags)),
    );
}
