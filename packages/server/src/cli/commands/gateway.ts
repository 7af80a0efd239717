import { type Command, InvalidArgumentError, Option } from 'commander';
import { settings } from '../../settings.ts';
import { dataOption, done, jsonOption, keysDatabase, settingOption } from './options.ts';
import { addSettings, commonKeys, load } from './settings-options.ts';

const states = ['waiting', 'queued', 'running', 'done', 'failed', 'dropped'] as const;

const rulesOption = () =>
  new Option('--config <file>', 'the file of rules').env('TOMAAT_GATEWAY_CONFIG').makeOptionMandatory();

function aCount(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > 100_000)
    throw new InvalidArgumentError('Give a whole number from 1 to 100000.');
  return value;
}

export function addGateway(program: Command): void {
  const command = program
    .command('gateway')
    .usage('--config FILE [options]')
    .description('process series of a PACS by rules, and store the results in it')
    .helpCommand(false)
    // The options of its subcommands are theirs.
    .enablePositionalOptions()
    .addOption(new Option('--config <file>', 'the file of rules').env('TOMAAT_GATEWAY_CONFIG'))
    .addOption(
      settingOption('gatewayPort', { flag: 'port', about: `${settings.gatewayPort.about}; 0: a free one` }),
    )
    .addOption(jsonOption('print the address as one line of JSON'));
  addSettings(
    command,
    commonKeys.filter((key) => key !== 'legacyPerMinute'),
    { withFile: false },
  );
  command
    .addOption(settingOption('database', { about: keysDatabase }))
    .addOption(
      settingOption('ca', { about: 'more certificates (PEM) to trust: of the OpenID Connect issuer' }),
    )
    .addHelpText(
      'after',
      `
Examples:
  tomaat gateway check --config gateway.yaml --connect
  tomaat gateway --config gateway.yaml --data /var/lib/tomaat
  tomaat gateway list --state failed
  tomaat gateway retry --failed`,
    )
    .action((flags) =>
      done(async () => {
        const { port, config, json, ...rest } = flags as Record<string, unknown>;
        return (await import('../gateway.ts')).gateway(await load({ ...rest, gatewayPort: port }), {
          rulesFile: config as string | undefined,
          json: Boolean(json),
        });
      }),
    );
  command
    .command('check')
    .usage('--config FILE [options]')
    .description('check a file of rules, without starting anything')
    .addOption(rulesOption())
    .option('--connect', 'also ask each source, service and destination; stores nothing')
    .addOption(dataOption())
    .addOption(jsonOption())
    .addHelpText('after', '\nExit codes: 0 no faults, 1 something does not answer, 2 the file has faults.')
    .action((flags) =>
      done(async () => (await import('../gateway-check.ts')).gatewayCheck(flags.config, flags)),
    );
  command
    .command('list')
    .usage('[options]')
    .description('list series, newest first: where they are, and why they failed')
    .addOption(new Option('--state <state>', 'only those in this state').choices(states))
    .option('--rule <id>', 'only those of this rule')
    .addOption(new Option('--limit <number>', 'the most that are listed').argParser(aCount).default(100))
    .addOption(dataOption())
    .addOption(jsonOption('print one line of JSON per series, with its UIDs and results'))
    .action((flags) => done(async () => (await import('../gateway-series.ts')).gatewayList(flags)));
  command
    .command('retry')
    .usage('ID | --failed [options]')
    .argument('[ID]', 'the id of the series, as shown by “list”')
    .description('process a series again that failed or was dropped, or at once one that waits after a fault')
    .option('--failed', 'all that failed')
    .addOption(dataOption())
    .addOption(jsonOption())
    .action((id: string | undefined, flags) =>
      done(async () => (await import('../gateway-series.ts')).gatewayRetry(id, flags)),
    );
  command
    .command('drop')
    .usage('ID [options]')
    .argument('<ID>', 'the id of the series, as shown by “list”')
    .description('stop processing a series; what is stored already stays')
    .addOption(dataOption())
    .addOption(jsonOption())
    .action((id: string, flags) =>
      done(async () => (await import('../gateway-series.ts')).gatewayDrop(id, flags)),
    );
}
