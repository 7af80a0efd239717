import { type Command, InvalidArgumentError } from 'commander';
import {
  apiKeyOption,
  caOption,
  done,
  fingerprintOption,
  jsonOption,
  registryOption,
  trustOption,
} from './options.ts';

/* What one user has with servers: cards, jobs, stored keys, completion. */

const addConnection = (command: Command): Command =>
  [apiKeyOption(), caOption(), fingerprintOption(), trustOption()].reduce(
    (all, option) => all.addOption(option),
    command,
  );

export function addShow(program: Command): void {
  addConnection(
    program
      .command('show')
      .usage('[options] SERVICE')
      .argument('<SERVICE>', 'address, name, id or task/anatomy of a service')
      .description('print the card of a service: inputs, outputs, labels')
      .addOption(jsonOption('print one line of JSON'))
      .addOption(registryOption()),
  ).action((wanted: string, flags) => done(async () => (await import('../show.ts')).show(wanted, flags)));
}

export function addJobs(program: Command): void {
  addConnection(
    program
      .command('jobs')
      .usage('[options]')
      .description('list the jobs that you sent from this machine, with their states')
      .option('--all', 'all that are remembered, not the last 20 alone')
      .addOption(jsonOption('print one line of JSON per job')),
  )
    .addHelpText(
      'after',
      '\n“tomaat predict” notes each job in the file jobs.jsonl of your data folder, which only you can read.\nThe state is that of the server: “gone” means deleted there.',
    )
    .action((flags) => done(async () => (await import('../jobs.ts')).jobs(flags)));
}

export function addCancel(program: Command): void {
  addConnection(
    program
      .command('cancel')
      .usage('[options] JOB...')
      .argument('<JOB...>', 'id of a job, or at least its first six characters')
      .description('cancel jobs; ended ones stay as they are')
      .option('--server <url>', 'server of a job that was not sent from this machine'),
  ).action((ids: string[], flags) => done(async () => (await import('../jobs.ts')).cancel(ids, flags)));
}

export function addLogin(program: Command): void {
  addConnection(
    program
      .command('login')
      .usage('[options] [SERVER_URL]')
      .argument('[SERVER_URL]', 'a server or registry; without it, the stored logins are listed')
      .description('store a key for a server, so that no command needs --api-key')
      .addOption(jsonOption('list as JSON')),
  )
    .addHelpText(
      'after',
      `
The key is asked for without being shown, or read from standard input. It is checked at the server and stored in the file
keyring of your data folder (mode 600). It is sent to this server alone.

Examples:
  tomaat login https://server.example:9443
  tomaat login https://server.example:9443 < key.txt`,
    )
    .action((address: string | undefined, flags) =>
      done(async () => (await import('../login.ts')).login(address, flags)),
    );
}

export function addLogout(program: Command): void {
  program
    .command('logout')
    .usage('[options] SERVER_URL')
    .argument('<SERVER_URL>', 'the server whose key is deleted here')
    .description('delete the stored key of a server')
    .addOption(trustOption())
    .action((address: string, flags) =>
      done(async () => (await import('../login.ts')).logout(address, flags)),
    );
}

export function addCompletion(program: Command): void {
  program
    .command('completion')
    .usage('SHELL')
    .argument('<SHELL>', 'bash, zsh or fish', (word) => {
      if (['bash', 'zsh', 'fish'].includes(word)) return word;
      throw new InvalidArgumentError('Give bash, zsh or fish.');
    })
    .description('print a script that completes commands and options in your shell')
    .addHelpText(
      'after',
      '\nExamples:\n  eval "$(tomaat completion bash)"          in ~/.bashrc\n  eval "$(tomaat completion zsh)"           in ~/.zshrc\n  tomaat completion fish | source           in ~/.config/fish/config.fish',
    )
    .action((shell) =>
      done(async () => {
        const { completionScript } = await import('../completion.ts');
        process.stdout.write(completionScript(shell, program));
        return 0;
      }),
    );
}
