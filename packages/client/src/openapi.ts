import { z } from 'zod';
import {
  type Endpoint,
  type FormFields,
  isOn,
  type Program,
  type RequestHeader,
} from './contract/endpoint.ts';
import { gatewaySeriesSchema, gatewaySummarySchema, stableSeriesSchema } from './contract/gateway.ts';
import { jobOutputSchema, jobSchema, jobSchemas } from './contract/jobs.ts';
import { problemSchema } from './contract/problem.ts';
import { entrySchema, signedAnnouncementSchema } from './contract/registry.ts';
import { serviceSchema } from './contract/services.ts';
import { endpoints } from './contract.ts';
import { describeHeader, errorHeaders, type ResponseHeader } from './response-headers.ts';

type Json = Record<string, unknown>;

const named: readonly (readonly [string, z.ZodType])[] = [
  ['Problem', problemSchema],
  ['Service', serviceSchema],
  ['Job', jobSchema],
  ['QueuedJob', jobSchemas.queued],
  ['RunningJob', jobSchemas.running],
  ['SucceededJob', jobSchemas.succeeded],
  ['FailedJob', jobSchemas.failed],
  ['CanceledJob', jobSchemas.canceled],
  ['JobOutput', jobOutputSchema],
  ['Entry', entrySchema],
  ['SignedAnnouncement', signedAnnouncementSchema],
  ['GatewaySeries', gatewaySeriesSchema],
  ['GatewaySummary', gatewaySummarySchema],
  ['StableSeries', stableSeriesSchema],
];

const tags: Record<Endpoint['tag'], string> = {
  services: 'What can be asked for',
  jobs: 'Predictions as jobs: progress, cancel, outputs',
  uploads: 'Large files: resumable uploads (tus 1.0)',
  workers: 'For workers on other machines; needs a key with the scope worker',
  promise: 'One request, one segmentation',
  v1: 'The TOMAAT v1 protocol, as old clients speak it; its errors are answers with status 200',
  monailabel:
    'The part of MONAI Label’s protocol that its clients need to segment a volume; only with --faces monailabel. Errors are {"detail"}',
  auto3dseg:
    'The server of Auto3DSeg’s module for 3D Slicer; only with --faces auto3dseg. Errors are {"error", "message"}',
  registry: 'Announcing and finding services',
  gateway: 'Series between a PACS and services; needs a key with the scope admin where login is on',
  login: 'Sessions of browsers',
  operations: 'For those who run it',
};

const about: Record<Program, { title: string; description: string }> = {
  server: { title: 'TOMAAT server', description: 'Predictions on volumetric medical images.' },
  registry: {
    title: 'TOMAAT service registry',
    description: 'Which TOMAAT services exist, and where.',
  },
  gateway: {
    title: 'TOMAAT gateway',
    description: 'Series that a gateway takes from a PACS to services, and their results back.',
  },
};

/**
 * The OpenAPI 3.1 description of a server, a registry or a gateway, generated from the contract.
 * @param serverUrl base address of all paths: absolute, or relative to the root of the host that served the document
 */
export function openApiDocument(on: Program, version: string, serverUrl = '/'): Json {
  const schemas: Record<string, Json> = {};
  const paths: Record<string, Json> = {};
  const used = new Set<Endpoint['tag']>();
  for (const [name, endpoint] of Object.entries(endpoints) as [string, Endpoint][]) {
    if (!isOn(endpoint, on)) continue;
    used.add(endpoint.tag);
    const path = (paths[endpoint.path] ??= {});
    path[endpoint.method.toLowerCase()] = operation(name, endpoint, schemas);
  }
  // It is embedded in a signed text, which a schema cannot refer to.
  if (on === 'registry') toSchema(signedAnnouncementSchema, schemas, 'input');
  return {
    openapi: '3.1.0',
    info: {
      title: about[on].title,
      version,
      description: `${about[on].description} Errors are Problem Details (RFC 9457) with a stable code.`,
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: serverUrl }],
    tags: [...used].map((name) => ({ name, description: tags[name] })),
    security: [{}, { apiKey: [] }],
    paths,
    components: {
      securitySchemes: {
        apiKey: { type: 'http', scheme: 'bearer', description: 'An API key; needed where login is on' },
      },
      schemas: Object.fromEntries(Object.entries(schemas).sort(([a], [b]) => (a < b ? -1 : 1))),
    },
  };
}

function operation(operationId: string, endpoint: Endpoint, schemas: Record<string, Json>): Json {
  const parameters = [
    ...parametersOf('path', endpoint.params, schemas),
    ...parametersOf('query', endpoint.query, schemas),
    ...Object.entries(endpoint.headers ?? {}).map(([name, header]) => requestHeader(name, header, schemas)),
  ];
  const responses: Json = {};
  for (const [status, { description, headers, content }] of Object.entries(endpoint.responses)) {
    responses[status] = {
      description,
      ...(headers && { headers: responseHeaders(headers) }),
      ...(content && { content: contentOf(content, schemas, 'output') }),
    };
  }
  if (endpoint.tag !== 'v1') {
    responses.default = {
      description: 'An error',
      headers: responseHeaders(errorHeaders),
      content: { 'application/problem+json': { schema: toSchema(problemSchema, schemas, 'output') } },
    };
  }
  return {
    operationId,
    tags: [endpoint.tag],
    summary: endpoint.summary,
    ...(endpoint.description && { description: endpoint.description }),
    ...(parameters.length > 0 && { parameters }),
    ...(endpoint.body && {
      requestBody: {
        description: endpoint.body.description,
        required: true,
        content: contentOf(endpoint.body.content, schemas, 'input'),
      },
    }),
    responses,
  };
}

function parametersOf(
  place: 'path' | 'query',
  schema: z.ZodObject | undefined,
  schemas: Record<string, Json>,
): Json[] {
  return Object.entries(schema?.shape ?? {}).map(([name, part]) => {
    const { description, ...rest } = toSchema(part as z.ZodType, schemas, 'output');
    const required = place === 'path' || !(part as z.ZodType).safeParse(undefined).success;
    return { name, in: place, required, ...(description !== undefined && { description }), schema: rest };
  });
}

function requestHeader(name: string, header: string | RequestHeader, schemas: Record<string, Json>): Json {
  const { description, schema, required } =
    typeof header === 'string' ? { description: header, schema: undefined, required: undefined } : header;
  return {
    name,
    in: 'header',
    required: required ?? false,
    description,
    schema: schema ? toSchema(schema, schemas, 'input') : { type: 'string' },
  };
}

const responseHeaders = (names: readonly ResponseHeader[]): Json =>
  Object.fromEntries(
    names.map((name) => [name, { description: describeHeader(name), schema: { type: 'string' } }]),
  );

/** Raw bytes in the form that client generators recognize; in OpenAPI 3.1 itself they would need no schema. */
const bytes = (description?: string): Json => ({
  type: 'string',
  format: 'binary',
  ...(description !== undefined && { description }),
});

function contentOf(
  content: Record<string, z.ZodType | 'binary' | FormFields>,
  schemas: Record<string, Json>,
  io: 'input' | 'output',
): Json {
  return Object.fromEntries(
    Object.entries(content).map(([type, schema]) => {
      if (schema === 'binary') return [type, { schema: rawSchema(type) }];
      return [type, { schema: 'files' in schema ? formSchema(schema) : toSchema(schema, schemas, io) }];
    }),
  );
}

function rawSchema(type: string): Json {
  const isForm = type === 'multipart/form-data' || type === 'application/x-www-form-urlencoded';
  if (isForm) return { type: 'object', additionalProperties: { type: 'string' } };
  return type.startsWith('text/') || type === 'application/jose' ? { type: 'string' } : bytes();
}

function formSchema({ files, texts = {} }: FormFields): Json {
  const properties: Json = {};
  for (const [name, description] of Object.entries(files)) properties[name] = bytes(description);
  for (const [name, description] of Object.entries(texts)) properties[name] = { type: 'string', description };
  // Generators produce invalid code for a choice between file and text.
  return { type: 'object', properties, additionalProperties: { type: 'string' } };
}

/** JSON Schema 2020-12, with named schemas as references to the components. */
function toSchema(schema: z.ZodType, schemas: Record<string, Json>, io: 'input' | 'output'): Json {
  const own = named.find(([, candidate]) => candidate === schema);
  if (own) {
    const [name] = own;
    if (!Object.hasOwn(schemas, name)) {
      schemas[name] = {};
      schemas[name] = hoist(
        z.toJSONSchema(schema, { io, metadata: registryWithout(name), unrepresentable: 'any' }) as Json,
        schemas,
        io,
      );
    }
    return { $ref: `#/components/schemas/${name}` };
  }
  return hoist(
    z.toJSONSchema(schema, { io, metadata: registryWithout(), unrepresentable: 'any' }) as Json,
    schemas,
    io,
  );
}

/** A registry that names the schemas, except for the one being written, and keeps their descriptions. */
function registryWithout(name?: string) {
  const registry = z.registry<{ id?: string; description?: string }>();
  for (const [id, schema] of named) if (id !== name) registry.add(schema, { id });
  // Descriptions are in the global registry; look them up there.
  const get = registry.get.bind(registry);
  registry.get = ((schema: z.ZodType) => ({
    ...z.globalRegistry.get(schema),
    ...get(schema),
  })) as typeof registry.get;
  return registry;
}

function hoist(schema: Json, schemas: Record<string, Json>, io: 'input' | 'output'): Json {
  const { $schema: _schema, $defs, id: _id, ...rest } = schema;
  for (const name of Object.keys(($defs as Json | undefined) ?? {})) {
    const known = named.find(([id]) => id === name);
    if (known) toSchema(known[1], schemas, io);
  }
  const walk = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(walk);
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(
      Object.entries(plainTuple(value as Json))
        // Bounds that every integer has carry no information; nor does a property that is never present if others are
        // not allowed.
        .filter(
          ([key, item]) =>
            !(key === 'minimum' && item === Number.MIN_SAFE_INTEGER) &&
            !(key === 'maximum' && item === Number.MAX_SAFE_INTEGER) &&
            JSON.stringify(item) !== '{"not":{}}',
        )
        .map(([key, item]) => [
          key,
          key === '$ref' && typeof item === 'string'
            ? item.replace('#/$defs/', '#/components/schemas/')
            : walk(item),
        ]),
    );
  };
  return walk(rest) as Json;
}

/** A tuple in the form that every generator understands: some reject `items: false`, which zod writes. */
function plainTuple(schema: Json): Json {
  const { prefixItems, items, ...rest } = schema;
  if (!Array.isArray(prefixItems) || items !== false) return schema;
  const kinds = [...new Map(prefixItems.map((item) => [JSON.stringify(item), item as Json])).values()];
  return {
    ...rest,
    items: kinds.length === 1 ? kinds[0] : { anyOf: kinds },
    minItems: prefixItems.length,
    maxItems: prefixItems.length,
  };
}
