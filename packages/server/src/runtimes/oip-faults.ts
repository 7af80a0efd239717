import { TomaatError } from '@tomaat/core';
import { keyOf, nameOf, type ServedModel } from './oip-server.ts';

/** What goes wrong with a model server, as errors that name the server, the model and the remedy. */

export type Fault = 'away' | 'late' | 'refused' | 'unknown' | 'foreign' | 'large' | 'failed';

/**
 * @param said what the server or the system said: it is shortened, and never contains the key
 * @param doing such as “on a tensor of 1 × 1 × 96 × 96 × 96”
 */
export function serverFault(fault: Fault, said: string, served: ServedModel, doing = ''): TomaatError {
  const { spec, address } = served;
  const model = `The model ${nameOf(spec)}`;
  const words = plainWords(said, keyOf(served));
  const why = words === '' ? '' : ` (${words})`;
  const field = { field: 'model' };
  switch (fault) {
    case 'away':
      return new TomaatError(
        'UNREACHABLE',
        `${model} cannot be reached${why}. Start the model server and wait until it has loaded the model, or correct model.url: grpc:// takes the port of gRPC. Then try again.`,
        field,
      );
    case 'late':
      return new TomaatError(
        'TIMEOUT',
        `${model} did not answer in time${why}. Try again when the model server has less to do, or raise timeoutSeconds of the model.`,
        field,
      );
    case 'refused':
      return new TomaatError(
        'UPSTREAM',
        keyOf(served) === undefined
          ? `${model} is refused to this machine, which has no key for it${why}. Add a line ${address.name}=KEY to the setting modelServerKeys.`
          : `${model} is refused with the key of this machine${why}. Correct the line ${address.name}=KEY of the setting modelServerKeys.`,
        field,
      );
    case 'unknown':
      return new TomaatError(
        'BAD_MANIFEST',
        `${model} does not exist${why}. Load it on the model server, or correct model.model and model.version.`,
        field,
      );
    case 'foreign':
      return new TomaatError(
        'BAD_MANIFEST',
        `${address.name} does not speak the Open Inference Protocol${why}. Give the address of Triton, KServe, MLServer or another server of version 2 in model.url: grpc:// with its gRPC port.`,
        { field: 'model.url' },
      );
    case 'large':
      return new TomaatError(
        'APP_OUTPUT',
        `${model} gave a larger answer than a network can give${doing === '' ? '' : ` ${doing}`}${why}. Name the right output in model.output.`,
        field,
      );
    case 'failed':
      return new TomaatError(
        'APP_FAILED',
        `${model} failed${doing === '' ? '' : ` ${doing}`}${why}. Check the names, types and sizes that the model takes, and the log of the model server.`,
        field,
      );
  }
}

/** What another machine said, on one short line without control characters and without the key. */
function plainWords(said: string, key: string | undefined): string {
  const hidden = key === undefined ? said : said.replaceAll(key, '…');
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is taken out
  const line = hidden.slice(0, 400).replace(/[\u0000-\u001f\u007f-\u009f]+/g, ' ');
  return line.trim().replace(/\.$/, '');
}

/** An error of a connection: the ones that are already in our words, unchanged. */
export function connectionFault(cause: unknown, served: ServedModel): TomaatError {
  if (cause instanceof TomaatError) return cause;
  const { code, message, name } = cause as NodeJS.ErrnoException;
  return serverFault(
    'away',
    name === 'TimeoutError' ? 'no connection in 10 s' : message || code || '',
    served,
  );
}
