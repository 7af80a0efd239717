import type { Command } from 'commander';
import { done, jsonOption, modelServerOptions, oneDeviceOption, rewriteOption } from './options.ts';

export function addCheck(program: Command): void {
  const command = program
    .command('check')
    .usage('[options] APP_DIR')
    .argument('<APP_DIR>', 'folder with a tomaat.yaml')
    .description('check an app: manifest, weights, self-test, geometry')
    .option('--write-hash', 'first write the SHA-256 of the model’s file into tomaat.yaml')
    .addOption(jsonOption());
  for (const option of [oneDeviceOption(), rewriteOption(), ...modelServerOptions()])
    command.addOption(option);
  command.action((folder: string, flags) =>
    done(async () =>
      (await import('../check.ts')).check(folder, flags, (await import('../../check-app.ts')).checkApp),
    ),
  );
}
