import type { Command } from 'commander';
import {
  addPredictionOptions,
  apiKeyOption,
  caOption,
  done,
  fingerprintOption,
  jobCount,
  registryOption,
  trustOption,
  wholeNumber,
} from './options.ts';

export function addPredict(program: Command): void {
  addPredictionOptions(
    program
      .command('predict')
      .usage('[options] SERVICE --volume FILE | SERVICE SCANS... -o DIR')
      .argument('<SERVICE>', 'address of a service or server, or a name, an id or task/anatomy to look up')
      .argument(
        '[SCANS...]',
        'several files, folders or quoted patterns, with -o DIR; - for stdin and stdout',
      )
      .description('send a volume to a service and write the results'),
  )
    .option('--delete', 'delete the job and its results on the server afterwards')
    .option(
      '--keep-text',
      'send files unchanged, with their names and with header text that may identify the patient',
    )
    .option(
      '--keep-identity',
      'send DICOM files unchanged: with name, dates and identifiers of the patient, which are removed unless the service computes on this machine alone',
    )
    .option('--deidentify', 'remove them for a service on this machine, too')
    .option(
      '--keep-patient-characteristics',
      'leave sex, age, size and weight of the patient in DICOM files (SUV of PET needs the weight)',
    )
    .option('--receipt <file>', 'write the signed receipt of the prediction to this file')
    .option('-r, --recursive', 'search the folders below, too; they are mirrored in -o')
    .option(
      '--jobs <number>',
      'scans in flight at a time: some are sent while others compute (default: 2)',
      jobCount,
    )
    .option(
      '--skip-existing',
      'keep results that the record in -o has for the same input, service and parameters',
    )
    .option('--csv <file>', 'a table of all scans: a row for each scan and label')
    .option('--report <file>', 'a page with a picture of each scan, the most unusual first (HTML)')
    .option(
      '--bids',
      'name results as BIDS derivatives (default where a folder has dataset_description.json)',
    )
    .option('--no-bids', 'name them after their scans there, too')
    .option(
      '--retry-minutes <number>',
      'how long a scan waits for a server that is away or full (default: 30)',
      wholeNumber,
    )
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
  tomaat predict prostate --volume export/ --series 4
  tomaat predict prostate scans/ -r -o results/ --jobs 4 --skip-existing --csv volumes.csv --report report.html
  tomaat predict prostate 'scans/*_t2.nii.gz' -o results/
  tomaat predict prostate - <t2.nii.gz >mask.nii.gz
  tomaat predict brain --volume t1.nii.gz --input flair=flair.nii.gz

Ctrl-C cancels the prediction on the server; again, it leaves at once.
Exit codes: 0 all well, 1 the prediction or the server failed, 2 a fault of the call or the input, 130 Ctrl-C.`,
    )
    .action((service: string, scans: string[], flags) =>
      done(async () =>
        flags.volume === '-' || scans.includes('-')
          ? (await import('../predict-piped.ts')).predictPiped(service, scans, flags)
          : (await import('../predict.ts')).predict(service, scans, flags),
      ),
    );
}
