import { type Command, Option } from 'commander';
import { dataOption, done, jsonOption, settingOption } from './options.ts';

export function addMigrate(program: Command): void {
  const address = 'postgres://USER@HOST/DATABASE, or a file that holds this with a password';
  program
    .command('migrate')
    .usage('[options] --to ADDRESS | --from ADDRESS | --relocate ADDRESS')
    .description('move the data of a server into a PostgreSQL database for several servers, or back')
    .addOption(
      new Option(
        '--to <address>',
        `move the data folder there, into an empty database: ${address}`,
      ).conflicts(['from', 'relocate']),
    )
    .addOption(
      new Option('--from <address>', `move what is there into the data folder: ${address}`).conflicts(
        'relocate',
      ),
    )
    .option(
      '--relocate <address>',
      `move no data: the servers of this database find their files in --blobs from now on, to which you have copied them: ${address}`,
    )
    .addOption(
      settingOption('blobs', {
        about:
          'folder or S3 bucket (s3://BUCKET/PREFIX?endpoint=URL) where the servers of the database keep volumes and results',
      }).env('TOMAAT_BLOBS'),
    )
    .addOption(dataOption())
    .option('--dry-run', 'show what would be moved, and move nothing')
    .option('-q, --quiet', 'show no progress')
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
Jobs, results, uploads, keys, sessions and the audit log are moved; running predictions are queued again. Stop all servers first. What
was moved is left where it was, and marked, so that no server starts on it by mistake: delete it once all works, since
“tomaat erase” no longer reaches it. If it is interrupted, repeat it. The keys of the deployment (identity.key, pseudonym.key, uid.key) are
files of the data folder: copy them to that of each server, and before --from to the new data folder.
Examples:
  tomaat migrate --to /etc/tomaat/database --blobs /mnt/tomaat-volumes --data /var/lib/tomaat
  tomaat migrate --from /etc/tomaat/database --blobs /mnt/tomaat-volumes --data /var/lib/tomaat-one
  tomaat migrate --relocate /etc/tomaat/database --blobs s3://other-bucket/tomaat --data /var/lib/tomaat
Exit codes: 0 moved, 1 moved, but files of some jobs were already missing or damaged, 2 not moved.`,
    )
    .action((flags) => done(async () => (await import('../migrate.ts')).migrate(flags)));
}
