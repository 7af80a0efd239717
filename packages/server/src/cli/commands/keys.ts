import { type Command, InvalidArgumentError, Option } from 'commander';
import { keyScopes } from '../../access/scopes.ts';
import { databaseOption, dataOption, done, jsonOption, wholeNumber } from './options.ts';

const defaultScope = 'announce';

export function addKeys(program: Command): void {
  const keys = program
    .command('keys')
    .usage('create | list | revoke')
    .description('manage the API keys of the registry and the server on this machine')
    .helpCommand(false);
  keys
    .command('create')
    .usage('--label NAME [options]')
    .description('create a key and print it once')
    .requiredOption('--label <text>', 'who or what uses it')
    .addOption(
      new Option(
        '--scope <name>',
        `what it may do: ${keyScopes.slice(0, -1).join(', ')} or ${keyScopes.at(-1)}; may be repeated (default: ${defaultScope})`,
      ).argParser((value, list: string[] | undefined) => {
        if (!(keyScopes as readonly string[]).includes(value))
          throw new InvalidArgumentError(`Available: ${keyScopes.join(', ')}.`);
        return [...(list ?? []), value];
      }),
    )
    .option('--expires <time>', 'a date (2027-01-31) or a span (90d, 12h) (default: it does not expire)')
    .option('--max-jobs <number>', 'the most unfinished predictions it may have', wholeNumber)
    .option('--per-day <number>', 'the most predictions per day (UTC)', wholeNumber)
    .addOption(dataOption())
    .addOption(databaseOption())
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
        (await import('../keys.ts')).keysCreate({ ...flags, scope: flags.scope ?? [defaultScope] }),
      ),
    );
  keys
    .command('list')
    .usage('[options]')
    .description('list the keys, without their secrets')
    .addOption(dataOption())
    .addOption(databaseOption())
    .addOption(jsonOption())
    .action((flags) => done(async () => (await import('../keys.ts')).keysList(flags)));
  keys
    .command('revoke')
    .usage('ID [options]')
    .argument('<ID>', 'the id of the key, as shown by “list”')
    .description('revoke a key, effective immediately')
    .addOption(dataOption())
    .addOption(databaseOption())
    .addOption(jsonOption())
    .action((id: string, flags) => done(async () => (await import('../keys.ts')).keysRevoke(id, flags)));
}
