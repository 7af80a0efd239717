import { type Client, createClient, decideIdentity, type Service } from '@tomaat/client';
import {
  type DicomFormat,
  dicomFormats,
  isDicomFormat,
  type Parameter,
  parseParameters,
  TomaatError,
} from '@tomaat/core';
import type { Rule, ServiceConfig } from './config.ts';
import type { Connect } from './dependencies.ts';

/* The service of a rule: how it is reached, and whether it can do what the rule wants. */

/** A service that answers, and what a rule wants of it. */
export interface OpenService {
  readonly config: ServiceConfig;
  readonly client: Client;
  readonly service: Service;
  /** The input that gets the series. */
  readonly input: Service['inputs'][number];
  readonly parameters: Readonly<Record<string, Parameter>>;
  readonly results: readonly PlannedResult[];
}

/** An object that is made for a series. */
export interface PlannedResult {
  readonly format: DicomFormat;
  /** Name of the output that it is made of. */
  readonly output: string;
}

export async function openClient(
  config: ServiceConfig,
  connect: Connect,
  signal?: AbortSignal,
): Promise<Client> {
  const { url, apiKey, caFile, fingerprint } = config;
  const { fetch } = await connect(url, {
    apiKey,
    ca: caFile,
    fingerprint: fingerprint === undefined ? undefined : [fingerprint],
    signal,
  });
  // The runner tries again, after pauses of its own and without keeping others waiting.
  return createClient({ baseUrl: url, apiKey, fetch, retries: 0 });
}

/**
 * The service of a rule, after it was checked that the service can do what the rule wants; nothing is sent but questions.
 * Also what `tomaat gateway check --connect` asks.
 *
 * @throws TomaatError NOT_FOUND if there is no such service; BAD_INPUT, INPUTS_MISSING for its inputs and parameters;
 *   NOT_ACCEPTABLE for objects that it does not give; FORBIDDEN if the rule keeps the identity, and the service refuses it;
 *   UNREACHABLE and others of the connection
 */
export async function openService(
  rule: Rule,
  config: ServiceConfig,
  connect: Connect,
  signal?: AbortSignal,
): Promise<OpenService> {
  const client = await openClient(config, connect, signal);
  const service = await client.service(config.service, { signal }).catch((error: unknown) => {
    // A server names the field; a registry has no such address.
    if (!(error instanceof TomaatError) || error.code !== 'NOT_FOUND' || error.field === 'service')
      throw error;
    throw new TomaatError(
      'NOT_FOUND',
      `${config.url} is not the address of a TOMAAT server. Give that of the server itself, not of a registry: tomaat discover shows it.`,
      { cause: error },
    );
  });
  decideIdentity({
    processing: service.processing,
    address: config.url,
    wanted: rule.keepIdentity ? 'keep' : 'remove',
  });
  return {
    config,
    client,
    service,
    input: volumeInputOf(service),
    parameters: parametersOf(rule, service),
    results: planResults(rule, service),
  };
}

/** The one input for a volume: a gateway has one series, and no other files. */
function volumeInputOf({ id, inputs }: Service): Service['inputs'][number] {
  const volumes = inputs.filter(({ type }) => type === 'volume');
  const transform = inputs.find((input) => input.type === 'transform' && !input.optional);
  if (volumes.length === 1 && !transform) return volumes[0];
  const names = [...volumes, ...(transform ? [transform] : [])].map(({ name }) => name).join(', ');
  throw new TomaatError(
    'BAD_INPUT',
    volumes.length === 0
      ? `The service ${id} takes no volume. Name another service in the rule.`
      : `The service ${id} needs several files (${names}), and the gateway sends one series. Name another service in the rule.`,
  );
}

/**
 * The parameters of a prediction by a rule, with the service's defaults.
 *
 * @throws TomaatError BAD_INPUT for one that the service does not have, or a value that it does not take; INPUTS_MISSING
 */
export function parametersOf(
  rule: Rule,
  { id, inputs }: Pick<Service, 'id' | 'inputs'>,
): Record<string, Parameter> {
  const byName = Object.fromEntries(inputs.map(({ name, ...input }) => [name, input]));
  const known = inputs.flatMap(({ name, type }) => (type === 'volume' || type === 'transform' ? [] : name));
  const unknown = Object.keys(rule.parameters).find((name) => !known.includes(name));
  if (unknown !== undefined) {
    throw new TomaatError(
      'BAD_INPUT',
      `The service ${id} has no parameter ${unknown}, which the rule ${rule.id} gives. Its parameters: ${known.join(', ') || 'none'}.`,
      { field: unknown },
    );
  }
  return parseParameters(byName, rule.parameters);
}

const segmentations: readonly string[] = ['seg.dcm', 'labelmap.dcm'];

/**
 * The objects that a rule wants, each for every output of the service that can become one: reports of measurements, and
 * all others of label maps.
 *
 * @throws TomaatError NOT_ACCEPTABLE for one that no output can become, and for objects that cannot be stored together
 */
export function planResults(
  { id: rule, results }: Pick<Rule, 'id' | 'results'>,
  { id, outputs }: Pick<Service, 'id' | 'outputs'>,
): PlannedResult[] {
  const sourceOf = (format: DicomFormat) => (format === 'sr.dcm' ? 'Measurements' : 'LabelVolume');
  const outputsFor = (format: DicomFormat) => outputs.filter(({ type }) => type === sourceOf(format));
  const possible = dicomFormats.filter((format) => outputsFor(format).length > 0);
  const refuse = (message: string) =>
    new TomaatError('NOT_ACCEPTABLE', `${message} Change the results of the rule ${rule}.`, {
      field: 'results',
      detail: { possible },
    });
  const planned = results.flatMap((format): PlannedResult[] => {
    if (!isDicomFormat(format)) {
      throw refuse(
        `${format} is an archive, and not an object that can be stored. Its objects: ${possible.join(', ')}.`,
      );
    }
    const made = outputsFor(format);
    if (made.length > 0) return made.map(({ name }) => ({ format, output: name }));
    throw refuse(
      possible.length === 0
        ? `No output of the service ${id} can become a DICOM object.`
        : `The service ${id} gives no ${format}. It gives: ${possible.join(', ')}.`,
    );
  });
  const forms = results.filter((format) => segmentations.includes(format));
  if (forms.length > 1) {
    throw refuse('seg.dcm and labelmap.dcm are two forms of the same object, which can be stored once.');
  }
  if (results.includes('sr.dcm') && forms.length === 0) {
    throw refuse(
      'sr.dcm refers to the segments that were measured: seg.dcm or labelmap.dcm must be stored too.',
    );
  }
  return planned;
}
