import type { InputParameter, Service } from '@tomaat/client';
import { outputFormats } from '@tomaat/core';
import { keyVariable } from './access-texts.ts';

export interface CodeSample {
  name: string;
  code: string;
}

/**
 * Code that sends a prediction to this service's own address, with the current values of the form. `withKey`: with an
 * API key, which is read from the environment, to keep it out of programs and shell histories.
 */
export function codeSamples(
  service: Service,
  base: string,
  values: Readonly<Record<string, InputParameter>>,
  { frame, withKey = false }: { frame?: number; withKey?: boolean } = {},
): CodeSample[] {
  const files = service.inputs.filter(
    (input) => (input.type === 'volume' || input.type === 'transform') && !input.optional,
  );
  const fields = Object.entries(values).map(([name, value]) => [name, textOf(value)] as const);
  const query = [
    ...(service.default ? [] : [['service', service.id]]),
    ...(frame === undefined ? [] : [['frame', String(frame)]]),
  ];
  const address = `${base}/${service.task}/${service.anatomy}${query.length > 0 ? `?${new URLSearchParams(query)}` : ''}`;
  const fileOf = (name: string, i: number) => (i === 0 ? 'scan.nii.gz' : `${name}.nii.gz`);

  const result = resultFile(service);
  const hasLabelMap = primaryType(service) === 'LabelVolume';

  const client = [
    'from tomaat_client import Client',
    '',
    `client = Client(${py(base)})${withKey ? `  # reads the key from ${keyVariable}` : ''}`,
    'result = client.predict(',
    `    ${py(service.id)},`,
    `    ${clientVolumes(files.map((input, i) => [input.name, fileOf(input.name, i)]))},`,
    ...(Object.keys(values).length > 0 ? [`    parameters=${pyValue(values)},`] : []),
    ...(frame === undefined ? [] : [`    frame=${frame},`]),
    ')',
    `result.save(${py(result)})`,
    ...(hasLabelMap ? ['print(result.volumes)  # ml'] : []),
  ].join('\n');

  const names = pyNames(files.map(({ name }) => name));
  const opens = files.map((input, i) => `open(${py(fileOf(input.name, i))}, "rb") as ${names[i]}`);
  const python = [
    ...(withKey ? ['import os', ''] : []),
    'import requests',
    '',
    ...(files.length > 0 ? [`with ${opens.join(', ')}:`] : ['if True:']),
    `    response = requests.post(`,
    `        ${py(address)},`,
    ...(withKey ? [`        headers={"Authorization": f"Bearer {os.environ['${keyVariable}']}"},`] : []),
    `        files={${files.map((input, i) => `${py(input.name)}: ${names[i]}`).join(', ')}},`,
    ...(fields.length > 0
      ? [`        data={${fields.map(([name, value]) => `${py(name)}: ${py(value)}`).join(', ')}},`]
      : []),
    '    )',
    'response.raise_for_status()',
    `with open(${py(result)}, "wb") as f:`,
    '    f.write(response.content)',
  ].join('\n');

  const javascript = [
    jsImport('openAsBlob', 'node:fs'),
    jsImport('writeFile', 'node:fs/promises'),
    '',
    'const form = new FormData();',
    ...files.map((input, i) => {
      const file = js(fileOf(input.name, i));
      return `form.append(${js(input.name)}, await openAsBlob(${file}), ${file});`;
    }),
    ...fields.map(([name, value]) => `form.append(${js(name)}, ${js(value)});`),
    `const response = await fetch(${js(address)}, {`,
    "  method: 'POST',",
    ...(withKey ? [`  headers: { authorization: \`Bearer \${process.env.${keyVariable}}\` },`] : []),
    '  body: form,',
    '});',
    'if (!response.ok) throw new Error(await response.text());',
    `await writeFile(${js(result)}, response.body);`,
  ].join('\n');

  const curl = [
    'curl --fail-with-body',
    ...(withKey ? [`-H "Authorization: Bearer $${keyVariable}"`] : []),
    ...files.map((input, i) => `-F ${sh(`${input.name}=@${fileOf(input.name, i)}`)}`),
    ...fields.map(([name, value]) => `--form-string ${sh(`${name}=${value}`)}`),
    `-o ${result}`,
    sh(address),
  ].join(' \\\n  ');

  const [first, ...others] = files.filter((input) => input.type === 'volume');
  const cli = [
    // Set for this command only, so that it does not have to be exported; as a flag it would appear in the process
    // list.
    `${withKey ? `${keyVariable}="$${keyVariable}" ` : ''}tomaat predict ${sh(`${base}/services/${service.id}`)}`,
    ...(first ? [`--volume scan.nii.gz`] : []),
    ...[...others, ...files.filter((input) => input.type !== 'volume')].map(
      (input) => `--input ${sh(`${input.name}=${input.name}.nii.gz`)}`,
    ),
    ...fields.map(([name, value]) => `--param ${sh(`${name}=${value}`)}`),
    ...(frame === undefined ? [] : [`--frame ${frame}`]),
    `-o ${result}`,
  ].join(' \\\n  ');

  return [
    { name: 'Python', code: client },
    { name: 'requests', code: python },
    { name: 'curl', code: curl },
    { name: 'JavaScript', code: javascript },
    { name: 'Command line', code: cli },
  ];
}

const primaryType = (service: Service) =>
  (service.outputs.find(({ primary }) => primary) ?? service.outputs[0]).type;

/** Where the primary output goes: a label map comes in the format of the scan, others in their first one. */
function resultFile(service: Service): string {
  const type = primaryType(service);
  return type === 'LabelVolume' ? 'segmentation.nii.gz' : `result.${outputFormats[type][0]}`;
}

function textOf(value: InputParameter): string {
  return Array.isArray(value) ? value.map((point) => point.join(',')).join(';') : String(value);
}

/** The files of `tomaat_client`: one by itself, several by the names of their inputs. */
const clientVolumes = (files: readonly (readonly [string, string])[]) =>
  files.length === 1 ? py(files[0][1]) : pyValue(Object.fromEntries(files));

/** A value as Python writes it. */
function pyValue(value: unknown): string {
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (Array.isArray(value)) return `[${value.map(pyValue).join(', ')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  return `{${Object.entries(value)
    .map(([name, one]) => `${py(name)}: ${pyValue(one)}`)
    .join(', ')}}`;
}

/** A Python string literal: JSON's escapes are Python's, too. */
const py = (text: string) => JSON.stringify(text);
const jsImport = (name: string, module: string) => `import { ${name} } from '${module}';`;
/** A JavaScript string literal. */
const js = (text: string) =>
  `'${JSON.stringify(text).slice(1, -1).replaceAll('\\"', '"').replaceAll("'", "\\'")}'`;
/** A variable for each file: none is a word of Python's or a name that the sample uses, and no two are the same. */
const pyNames = (names: readonly string[]) =>
  names
    .map((name) => `${name.replace(/\W/g, '_').toLowerCase()}_file`)
    .map((name, i, all) => (all.indexOf(name) === i ? name : `${name}${i + 1}`));
/** A word for a POSIX shell. */
const sh = (text: string) =>
  /^[\w./:@=?&,;%+-]+$/.test(text) && !/[?&;]/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
