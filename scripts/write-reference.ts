import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { openApiDocument, type Program } from '@tomaat/client';
import {
  describeError,
  errorCodes,
  extensionOf,
  imageTransforms,
  labelTransforms,
  manifestSchema,
  outputFormats,
  pipelineSteps,
  type VolumeFormatRow,
  volumeEndings,
  volumeFormats,
} from '@tomaat/core';
import { z } from 'zod';
import { gatewayFileSchema } from '../packages/server/src/gateway/config-schema.ts';
import { conformancePage } from './conformance-statement.ts';
import { pythonTypes } from './python-types.ts';

/**
 * Writes docs/reference/*.md and docs/openapi*.json from the code: the schema of the manifest, the tables of
 * transforms, volume formats and errors, the help of the command line, the contract of the API. A test checks that
 * they are up to date.
 */

const root = fileURLToPath(new URL('..', import.meta.url));

/** The JSON Schema that zod generates, as far as it is shown. */
interface Schema {
  type?: string;
  description?: string;
  default?: unknown;
  const?: unknown;
  enum?: unknown[];
  pattern?: string;
  format?: string;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
  minItems?: number;
  items?: Schema;
  prefixItems?: Schema[];
  anyOf?: Schema[];
  oneOf?: Schema[];
  allOf?: Schema[];
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: Schema | boolean;
}

const schemaOf = (schema: z.ZodType) =>
  z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any', reused: 'inline' }) as Schema;

const generated = '<!-- Written by scripts/write-reference.ts (npm run reference). Do not edit. -->\n\n';

/** Every generated file: its path relative to the root of the repository, and its text. */
export async function referenceFiles(): Promise<Map<string, string>> {
  const { version } = JSON.parse(readFileSync(join(root, 'packages/client/package.json'), 'utf8')) as {
    version: string;
  };
  const schemasOf = (on: 'server' | 'registry') =>
    (openApiDocument(on, version) as { components: { schemas: Record<string, object> } }).components.schemas;
  const api = (on: Program) => `${JSON.stringify(openApiDocument(on, version), null, 2)}\n`;
  return new Map([
    ['docs/reference/manifest.md', generated + manifestPage()],
    ['docs/reference/transforms.md', generated + transformsPage()],
    ['docs/reference/formats.md', generated + formatsPage()],
    ['docs/reference/dicom.md', generated + conformancePage()],
    ['docs/reference/errors.md', generated + errorsPage()],
    ['docs/reference/gateway.md', generated + gatewayPage()],
    ['docs/reference/cli.md', generated + (await cliPage())],
    ['docs/openapi.json', api('server')],
    ['docs/openapi-registry.json', api('registry')],
    ['docs/openapi-gateway.json', api('gateway')],
    ['python/src/tomaat_client/types.py', pythonTypes({ ...schemasOf('registry'), ...schemasOf('server') })],
    ['python/src/tomaat_client/_version.py', `__version__ = "${version}"\n`],
  ]);
}

// ---- The manifest ----

function manifestPage(): string {
  const sections: string[] = [];
  const schema = schemaOf(manifestSchema);
  const parts: [title: string, schema: Schema][] = [];
  sections.push(
    table(schema, (name, property) => {
      const part = partOf(property);
      if (!part || isSteps(name)) return undefined;
      parts.push([name, part.schema]);
      return `${part.kind}, see [${name}](#${name.toLowerCase()})`;
    }),
  );
  for (const [title, part] of parts) {
    sections.push(`## ${title}\n`);
    sections.push(...partSections(title, part, '###'));
  }
  const formats = Object.entries(outputFormats).map(
    ([type, list]) => `| \`${type}\` | ${list.map((format) => `\`${format}\``).join(', ')} |`,
  );
  return `# The manifest \`tomaat.yaml\`

Every key of an app's manifest. Unknown keys are faults, and so is whatever does not fit; \`tomaat check APP_DIR\` names
each fault with its line. The steps of \`preprocess\` and \`postprocess\` are in [transforms.md](transforms.md). In a step,
\`$name\` stands for the value that the caller gave for the input \`name\`, and \`when: { name: value }\` beside a step or in
a model restricts it to predictions with that value.

${sections.join('\n')}
## Formats of outputs

In which formats each type of output can be had. The first is stored unless the input or the caller decides: a label map
is stored in the input's format, of a DICOM series as \`seg.dcm\`. Formats that end in \`.dcm\`, and \`zip\`, refer to the images of a DICOM series: there are
none for other inputs, and none are made of a stored result.

| type | formats |
|---|---|
${formats.join('\n')}
`;
}

const isSteps = (name: string) => name === 'preprocess' || name === 'postprocess';

/** The tables for a part of the manifest: one for an object, one for each kind in a union. */
function partSections(title: string, part: Schema, level: string): string[] {
  const kinds = part.oneOf ?? part.anyOf;
  if (!kinds) {
    const inner: [string, Schema][] = [];
    const text = table(part, (name, property) => {
      const nested = partOf(property);
      if (!nested) return undefined;
      const at = `${title}.${name}`;
      inner.push([at, nested.schema]);
      return `${nested.kind}, see [${at}](#${at.toLowerCase().replaceAll(/[^a-z0-9-]/g, '')})`;
    });
    return [
      text,
      ...inner.flatMap(([at, schema]) => [`${level} ${at}\n`, ...partSections(at, schema, `${level}#`)]),
    ];
  }
  return kinds.flatMap((kind) => {
    const key = ['type', 'runtime'].find((name) => kind.properties?.[name]?.const !== undefined);
    const about = kind.description ? `${kind.description}.\n` : '';
    const heading = `${level} ${title} with \`${key}: ${kind.properties?.[key ?? '']?.const}\`\n`;
    return [heading, ...(about ? [about] : []), ...partSections(title, kind, `${level}#`)];
  });
}

/** The object behind a property that has its own keys, and its notation; undefined for plain values. */
function partOf(schema: Schema): { kind: string; schema: Schema } | undefined {
  if (schema.items && hasKeys(schema.items)) return { kind: 'list', schema: schema.items };
  const values = schema.additionalProperties;
  if (typeof values === 'object' && hasKeys(values)) return { kind: 'by name', schema: values };
  if (hasKeys(schema)) return { kind: 'keys', schema };
  // One, or a list of them (model).
  const [one, many] = schema.anyOf ?? [];
  if (many?.items && one && hasKeys(one)) return { kind: 'one, or a list', schema: one };
  return undefined;
}

const hasKeys = (schema: Schema): boolean =>
  schema.properties !== undefined ||
  Boolean((schema.oneOf ?? schema.anyOf)?.every((kind) => kind.properties));

function table(
  schema: Schema,
  typeOf: (name: string, property: Schema) => string | undefined = () => undefined,
) {
  const required = new Set(schema.required);
  const rows = Object.entries(schema.properties ?? {}).map(([name, property]) => {
    const type = typeOf(name, property) ?? (isSteps(name) ? 'list of steps' : typeText(property));
    const standard = isSteps(name)
      ? '`[]`'
      : required.has(name)
        ? 'required'
        : property.default === undefined
          ? ''
          : `\`${JSON.stringify(property.default)}\``;
    return `| \`${name}\` | ${type} | ${standard} | ${cell(property.description ?? '')} |`;
  });
  if (rows.length === 0) return 'No parameters.\n';
  return `| key | type | default | |\n|---|---|---|---|\n${rows.join('\n')}\n`;
}

/** The type of a plain value in words. */
function typeText(schema: Schema): string {
  if (schema.const !== undefined) return `\`${JSON.stringify(schema.const)}\``;
  if (schema.enum) return schema.enum.map((value) => `\`${value}\``).join(', ');
  const kinds = schema.anyOf ?? schema.oneOf;
  if (kinds) return [...new Set(kinds.map(typeText))].join(' or ');
  if (schema.prefixItems) {
    const items = [...new Set(schema.prefixItems.map(typeText))].join(', ');
    const axes = schema.prefixItems.length === 3 ? ' x, y, z' : '';
    return `${schema.prefixItems.length} values${axes}: ${items}`;
  }
  if (schema.items) return `list of ${typeText(schema.items)}`;
  if (typeof schema.additionalProperties === 'object') {
    const values = typeText(schema.additionalProperties);
    return values === 'any' ? 'values by name' : `${values} by name`;
  }
  if (schema.type === 'integer') return `whole number${bounds(schema)}`;
  if (schema.type === 'number') return `number${bounds(schema)}`;
  if (schema.type === 'boolean') return '`true`, `false`';
  if (schema.type === 'string') {
    if (schema.format === 'uri') return 'address';
    return schema.pattern ? `text as \`${cell(schema.pattern)}\`` : 'text';
  }
  if (schema.properties)
    return `keys ${Object.keys(schema.properties)
      .map((key) => `\`${key}\``)
      .join(', ')}`;
  return schema.type === 'object' ? 'values by name' : 'any';
}

function bounds({ minimum, maximum, exclusiveMinimum, exclusiveMaximum }: Schema): string {
  const isBound = (value: number | undefined) =>
    value !== undefined && Math.abs(value) < Number.MAX_SAFE_INTEGER;
  const low = isBound(minimum)
    ? `from ${minimum}`
    : isBound(exclusiveMinimum)
      ? `above ${exclusiveMinimum}`
      : '';
  const high = isBound(maximum)
    ? `to ${maximum}`
    : isBound(exclusiveMaximum)
      ? `below ${exclusiveMaximum}`
      : '';
  const text = [low, high].filter(Boolean).join(' ');
  return text && ` ${text}`;
}

const cell = (text: string) => text.replaceAll('|', '\\|').replaceAll('\n', ' ');

// ---- The gateway's file of rules ----

function gatewayPage(): string {
  const schema = schemaOf(gatewayFileSchema);
  const parts: [title: string, schema: Schema][] = [];
  const top = table(schema, (name, property) => {
    const part = partOf(property);
    if (!part) return undefined;
    parts.push([name, part.schema]);
    return `${part.kind}, see [${name}](#${name})`;
  });
  const sections = parts.flatMap(([title, part]) => [`## ${title}\n`, ...partSections(title, part, '###')]);
  return `# The gateway's file of rules

Every key of the file that \`tomaat gateway --config FILE\` reads; [the guide](../guides/pacs.md) has examples. Unknown keys are faults.
\`tomaat gateway check --config FILE\` names each fault with its line, and warns of what is probably not meant.

Paths are relative to the folder of the file. Times have a unit: \`30s\`, \`5m\`, \`12h\`, \`3d\`. A secret is never in the file: it is in
a file of its own, one line, that only its owner can read (\`chmod 600\`). Where a key takes several values, one can be written without a list.

## Texts

\`bodyPart\`, \`description\`, \`studyDescription\` and \`callingAet\` are compared with patterns: \`*\` stands for any characters, \`?\` for one.
Upper and lower case are alike, and so are full-width and half-width forms. A pattern describes the whole text: \`'*thorax*'\` takes “CT Thorax
nativ”, \`thorax\` does not. \`'T2\\*'\` is a T2 with a star. Write patterns in single quotes.

## What is not known

A condition on something that the source does not tell does not hold. A series without a known modality matches no rule. Under \`not\`,
a series without a description has none of the descriptions there; but if it is not known who sent it, a rule with \`callingAet\` under \`not\`
does not take it. \`slices\` and \`sliceSpacingMm\` are known only from the files: the series is fetched, and fails with the reason if they do not fit.

Segmentations, reports, structure sets, key pictures and whatever else is made of images match only a rule whose \`modality\` names
them. The results of the gateway itself are never processed again.

## The file

${top}
${sections.join('\n')}`;
}

// ---- Transforms ----

function transformsPage(): string {
  const list = (steps: readonly { name: string; description: string; parameters: z.ZodType }[]) =>
    steps
      .map(({ name, description, parameters }) => {
        const schema = schemaOf(parameters);
        const note =
          schema.description && schema.description !== description ? `${schema.description}.\n\n` : '';
        // Of a list, what each of its items is.
        const items = schema.items ? `A list, each with:\n\n${table(schema.items)}` : table(schema);
        return `### ${name}\n\n${description.replace(/([^.])$/, '$1.')}\n\n${note}${items}`;
      })
      .join('\n');
  const own = Object.entries(pipelineSteps).map(([name, parameters]) => ({
    name,
    description: parameters.description ?? '',
    parameters,
  }));
  return `# Steps of \`preprocess\` and \`postprocess\`

A step is a name (\`argmax\`) or a name with its parameters (\`spacing: { pixdim: [2, 2, 2] }\`). Names and meanings are
MONAI's where it has them. Lengths are x, y, z of the volume as it is at that step. A step that changes geometry gives the
volume a new affine, so the result always finds its way back onto the input's grid.

## preprocess

${list(imageTransforms)}
## postprocess

\`argmax\`, \`threshold\` or \`compose\` turns the class scores of an ONNX network into a label map. \`restore\` before it interpolates the
scores onto the input's grid; after it, it carries the labels over. Without \`restore\` it happens at the end.

${list([...own, ...labelTransforms])}`;
}

// ---- Volume formats ----

function formatsPage(): string {
  const formats = volumeFormats.map((format: VolumeFormatRow) => {
    const names = Object.values(format.versions).join(', ');
    return `| ${names} | ${partsText(format)} | ${format.write ? 'yes' : 'no'} |`;
  });
  const endings = volumeEndings.map((one) => {
    const holds = { volume: 'a whole volume', header: 'the header', voxels: 'the voxels' }[one.holds];
    const mediaType = one.holds === 'volume' ? `\`${one.mediaType}\`` : '';
    return `| \`${one.ending}\` | ${one.format.name} | ${holds} | ${mediaType} | \`${extensionOf(`x${one.ending}`)}\` |`;
  });
  return `# Formats of volumes

A file is recognised by its first bytes; of its name only the ending matters, which tells the files of one volume apart.
\`tomaat predict\` takes from a folder whatever ends as a whole volume or a header does, in any case. A body that is one file may
come with the media type of its format, or as \`application/octet-stream\`.

| format | voxels in a file of their own | written |
|---|---|---|
${formats.join('\n')}

A label map is written in the format of the first volume, in one file. Of a pair the file of the voxels decides whether it is packed.

| ending | format | holds | media type | label map as |
|---|---|---|---|---|
${endings.join('\n')}
`;
}

/** How a header in a separate file refers to its voxels. */
function partsText({ detached, endings, reads }: VolumeFormatRow): string {
  if (reads.from === 'many headers')
    return 'no; a volume is one file for each slice, or several slices in a file';
  const list = (holds: string) =>
    endings.flatMap((one) => (one.holds === holds ? `\`${one.ending}\`` : [])).join(', ');
  if (detached === undefined) return 'no';
  return detached === 'same stem'
    ? `${list('header')} with ${list('voxels')} of the same name`
    : `${list('header')} with the file that its field \`${detached.field}\` names`;
}

// ---- Errors ----

function errorsPage(): string {
  const rows = errorCodes.map((code) => {
    const { status, fault, retryable, title } = describeError(code);
    return `| \`${code}\` | ${status} | ${fault} | ${retryable ? 'yes' : 'no'} | ${title} |`;
  });
  return `# Errors

Every refusal is a Problem Details body (RFC 9457, \`application/problem+json\`) with a stable \`code\`; \`detail\` says what
was wrong and what to do. A failed job carries the same in \`error\`. A caller's or an app's fault is never retried; a
server's fault may be. The v1 face answers 200 with an element labelled \`Error!\` instead, as that protocol has it. On the
command line a caller's fault is exit code 2, any other 1.

| code | status | whose fault | try again | meaning |
|---|---|---|---|---|
${rows.join('\n')}
`;
}

// ---- Command line ----

const run = promisify(execFile);

async function help(...command: string[]): Promise<string> {
  const bin = join(root, 'packages/server/bin/tomaat.js');
  const { stdout } = await run(process.execPath, [bin, ...command, '--help'], {
    env: { ...process.env, NO_COLOR: '1', COLUMNS: '100' },
  });
  return stdout.trim();
}

/** The commands listed in a help text. */
function commandsOf(text: string): string[] {
  const [, after = ''] = text.split('\nCommands:\n');
  return after
    .split('\n\n')[0]
    .split('\n')
    .flatMap((line) => /^ {2}([a-z]\S*)/.exec(line)?.[1] ?? [])
    .filter((name) => name !== 'help');
}

async function cliPage(): Promise<string> {
  const top = await help();
  const parts = [`# The command line\n\n\`\`\`text\n${top}\n\`\`\`\n`];
  for (const name of commandsOf(top)) {
    const text = await help(name);
    parts.push(`## tomaat ${name}\n\n\`\`\`text\n${text}\n\`\`\`\n`);
    for (const sub of commandsOf(text)) {
      parts.push(`### tomaat ${name} ${sub}\n\n\`\`\`text\n${await help(name, sub)}\n\`\`\`\n`);
    }
  }
  return parts.join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [file, text] of await referenceFiles()) {
    mkdirSync(dirname(join(root, file)), { recursive: true });
    writeFileSync(join(root, file), text);
    console.log(`wrote ${file}`);
  }
}
