import { Command, CommanderError } from 'commander';
import { addAudit } from './cli/commands/audit.ts';
import { addBackup } from './cli/commands/backup.ts';
import { addCheck } from './cli/commands/check.ts';
import { addCompare } from './cli/commands/compare.ts';
import { addDiscover } from './cli/commands/discover.ts';
import { addErase } from './cli/commands/erase.ts';
import { addGateway } from './cli/commands/gateway.ts';
import { addImport } from './cli/commands/import.ts';
import { addInit } from './cli/commands/init.ts';
import { addKeys } from './cli/commands/keys.ts';
import { addMigrate } from './cli/commands/migrate.ts';
import { addCancel, addCompletion, addJobs, addLogin, addLogout, addShow } from './cli/commands/own.ts';
import { addPredict } from './cli/commands/predict.ts';
import { addRegistry } from './cli/commands/registry.ts';
import { addRestore } from './cli/commands/restore.ts';
import { addRun } from './cli/commands/run.ts';
import { addServe } from './cli/commands/serve.ts';
import { addTrust } from './cli/commands/trust.ts';
import { addUp } from './cli/commands/up.ts';
import { addVerify } from './cli/commands/verify.ts';
import { addWorker } from './cli/commands/worker.ts';
import { version } from './version.ts';

/*
 * The command line. Each command loads what it needs when it runs, so that --help is fast; cli/commands/ defines
 * the commands, cli/ implements them.
 */

const program = new Command('tomaat')
  .description('Serve trained models for volumetric medical images, and use them.')
  .version(version, '-V, --version', 'print the version')
  .helpOption('-h, --help', 'print this help, or the help of a command')
  .helpCommand('help [command]', 'print the help of a command')
  .showHelpAfterError('(“tomaat help” lists the commands)')
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

/** In the order of the help. */
const commands = [
  addUp,
  addServe,
  addRegistry,
  addWorker,
  addGateway,
  addDiscover,
  addShow,
  addPredict,
  addJobs,
  addCancel,
  addLogin,
  addLogout,
  addInit,
  addRun,
  addCheck,
  addImport,
  addCompare,
  addVerify,
  addAudit,
  addBackup,
  addRestore,
  addMigrate,
  addErase,
  addKeys,
  addTrust,
  addCompletion,
];
for (const add of commands) add(program);

// A usage error is the caller's: exit code 2, not commander's 1. Subcommands need the same setting.
const tell = (command: Command): void => {
  command.exitOverride();
  for (const child of command.commands) tell(child);
};
tell(program);

// “tomaat gateway” has options that its subcommands have, too: those after the name of one are for that one.
if (process.argv[2] === 'gateway') program.enablePositionalOptions();

// SIGHUP never ends a serving command, not even before it has loaded its handler (cli/hangup.ts).
if (['up', 'serve', 'registry', 'worker', 'gateway'].includes(process.argv[2]))
  process.on('SIGHUP', () => {});

// A reader that stops early (| head) is not an error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  // The terminal was closed, which SIGHUP also reports.
  if (error.code === 'EIO') return;
  throw error;
});

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : 2;
    // “tomaat” alone prints the help, which is not an error.
    if (error.code === 'commander.help' && process.argv.length <= 2) process.exitCode = 0;
  } else {
    const { exitCodeOf, printError } = await import('./cli/console.ts');
    printError(error);
    process.exitCode = exitCodeOf(error);
  }
}
