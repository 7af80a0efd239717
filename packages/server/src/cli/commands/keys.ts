import { type Command, InvalidArgumentError, Option } from 'commander';
import { keyScopes } from '../../access/scopes.ts';
import { dataOption, done, jsonOption, wholeNumber } from './options.ts';

const defaultScope = 'announce';

export function addKeys(program: Command): void {
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
        `what it may do: ${keyScopes.slice(0, -1).join(', ')} or ${keyScopes.at(-1)}; may be repeated (default: ${defaultScope})`,
      ).argParser((value, list: string[] | undefined) => {
        if (!(keyScopes as readonly string[]).includes(value))
          throw new InvalidArgumentError(`Choose from ${keyScopes.join(', ')}.`);
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
        (await import('../keys.ts')).keysCreate({ ...flags, scope: flags.scope ?? [defaultScope] }),
      ),
    );
  keys
    .command('list')
    .usage('[options]')
    .description('the keys, without their secrets')
    .addOption(dataOption())
    .addOption(jsonOption())
    .action((flags) => done(async () => (await import('../keys.ts')).keysList(flags)));
  keys
    .command('revoke')
    .usage('ID [options]')
    .argument('<ID>', 'the id of the key, as “list” shows it')
    .description('end a key at once')
    .addOption(dataOption())
    .addOption(jsonOption())
    .action((id: string, flags) => done(async () => (await import('../keys.ts')).keysRevoke(id, flags)));
}
