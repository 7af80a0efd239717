import type { Service } from '@tomaat/client';
import type { ConnectOptions } from './connect.ts';
import { formatSeconds, plain } from './console.ts';
import { findService } from './find-service.ts';

export interface ShowFlags extends ConnectOptions {
  json?: boolean;
}

/** `tomaat show SERVICE`: its card, what it takes and what it gives. */
export async function show(wanted: string, flags: ShowFlags): Promise<number> {
  const found = await findService(wanted, { ...flags, note: (text) => console.error(plain(text)) });
  if (found.kind === 'v1') {
    console.log(`${plain(found.name)} speaks TOMAAT v1, which has no card: ${plain(found.predictionUrl)}`);
    return 0;
  }
  const { service, client } = found;
  if (flags.json) console.log(JSON.stringify(service));
  else for (const line of cardOf(service, client.baseUrl)) console.log(plain(line));
  return 0;
}

function cardOf(service: Service, server: string): string[] {
  const { id, name, version, description, intendedUse, limitations, authors, licence, citation } = service;
  return [
    `${name} ${version}`,
    description.replaceAll(/\s+/g, ' ').trim(),
    '',
    ...rows({
      Service: `${id} at ${server}`,
      Kind: `${service.task} of ${service.anatomy}, ${service.modality}`,
      'Intended use': intendedUse,
      Limitations: limitations,
      Authors: authors.join(', '),
      Licence: licence,
      Citation: citation,
      'Verified on': service.devices?.join(', '),
      'Computed on': service.devices && service.processing?.devices?.join(', '),
      'Typical time':
        service.typicalSeconds === undefined ? undefined : formatSeconds(service.typicalSeconds),
      'Results kept': service.keepSeconds === undefined ? undefined : formatSeconds(service.keepSeconds),
    }),
    '',
    'Inputs',
    ...service.inputs.map((input) => `  ${input.name}: ${describeInput(input, service.parameters)}`),
    'Outputs',
    ...service.outputs.map(
      (output) => `  ${output.name}: ${output.type}${output.primary ? ' (primary)' : ''}`,
    ),
    ...labelsOf(service),
    '',
    `Use it: tomaat predict ${server}/services/${id} --volume FILE`,
  ];
}

const rows = (facts: Readonly<Record<string, string | undefined>>): string[] =>
  Object.entries(facts).flatMap(([name, value]) =>
    value ? [`${`${name}:`.padEnd(14)} ${value.replaceAll(/\s+/g, ' ').trim()}`] : [],
  );

/** From the input's type and its JSON Schema. */
function describeInput(input: Service['inputs'][number], parameters: Service['parameters']): string {
  const properties = (parameters.properties ?? {}) as Record<string, Record<string, unknown>>;
  const { minimum, maximum, enum: choices, default: byDefault } = properties[input.name] ?? {};
  const facts = [
    input.label,
    'optional' in input && input.optional ? 'optional' : undefined,
    minimum !== undefined || maximum !== undefined ? `${minimum} to ${maximum}` : undefined,
    Array.isArray(choices) ? choices.join(' | ') : undefined,
    byDefault === undefined ? undefined : `default ${JSON.stringify(byDefault)}`,
  ].filter((fact) => fact !== undefined && fact !== '');
  return [input.type, ...facts].join(', ');
}

function labelsOf({ labels }: Service): string[] {
  if (labels.length === 0) return [];
  return ['Labels', ...labels.map(({ value, name }) => `  ${String(value).padStart(3)}  ${name}`)];
}
