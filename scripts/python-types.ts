/** The schemas of the OpenAPI documents as TypedDicts: the types of tomaat-client, the package for Python. */

/** The JSON Schema that the documents contain, as far as it becomes a type. */
interface Schema {
  $ref?: string;
  type?: string;
  description?: string;
  const?: unknown;
  enum?: unknown[];
  items?: Schema;
  oneOf?: Schema[];
  anyOf?: Schema[];
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: Schema | boolean;
}

const scalars: Record<string, string> = {
  string: 'str',
  integer: 'int',
  number: 'float',
  boolean: 'bool',
};
const keywords = new Set(['class', 'from', 'global', 'import', 'lambda', 'pass', 'with']);
const isName = (key: string) => /^[a-z_]\w*$/i.test(key) && !keywords.has(key);

/** A Python module with a TypedDict for each schema, in the order in which they need each other. */
export function pythonTypes(schemas: Readonly<Record<string, object>>): string {
  const written = new Map<string, string>();

  function nameOf(name: string): string {
    if (!written.has(name)) {
      const schema = schemas[name] as Schema;
      const members = schema.oneOf;
      if (members) {
        const types = members.map((member) => typeOf(member, name));
        written.set(name, `${name} = Union[${types.join(', ')}]\n`);
      } else writeClass(name, schema);
    }
    return name;
  }

  function typeOf(schema: Schema, name: string): string {
    if (schema.$ref) return nameOf(schema.$ref.slice(schema.$ref.lastIndexOf('/') + 1));
    const members = schema.oneOf ?? schema.anyOf;
    if (members) {
      const types = members.map((member) => typeOf(member, `${name}${suffixOf(member)}`));
      return `Union[${[...new Set(types)].join(', ')}]`;
    }
    if (schema.const !== undefined) return `Literal[${literal(schema.const)}]`;
    if (schema.enum) return `Literal[${schema.enum.map(literal).join(', ')}]`;
    if (schema.type === 'array') return `list[${typeOf(schema.items ?? {}, name.replace(/s$/, ''))}]`;
    if (schema.type === 'object') {
      if (schema.properties) return writeClass(name, schema);
      const { additionalProperties: values } = schema;
      return `dict[str, ${typeof values === 'object' ? typeOf(values, name) : 'Any'}]`;
    }
    return scalars[schema.type ?? ''] ?? 'Any';
  }

  function writeClass(name: string, { properties = {}, required = [], description }: Schema): string {
    const fields = Object.entries(properties).map(([key, schema]) => ({
      key,
      type: typeOf(schema, `${name}${pascal(key)}`),
      isRequired: required.includes(key),
    }));
    const optional = fields.filter(({ isRequired }) => !isRequired);
    const mandatory = fields.filter(({ isRequired }) => isRequired);
    const doc = description ? `    """${description.replaceAll('\\', '\\\\')}"""\n\n` : '';
    const lines = mandatory.map(({ key, type }) => `    ${key}: ${type}\n`).join('');
    // Keys that are words of Python need the form with a dict. Python 3.9 has no NotRequired.
    const rest = optional.map(({ key, type }) => `        "${key}": ${type},\n`).join('');
    const base = optional.length > 0 ? `_${name}Optional` : 'TypedDict';
    const before =
      optional.length > 0
        ? `${base} = TypedDict(\n    "${base}",\n    {\n${rest}    },\n    total=False,\n)\n\n\n`
        : '';
    if (mandatory.some(({ key }) => !isName(key)))
      throw new Error(`${name} has a required key that is a word of Python`);
    written.set(name, `${before}class ${name}(${base}):\n${doc}${lines || '    pass\n'}`);
    return name;
  }

  for (const name of Object.keys(schemas)) nameOf(name);
  return `# Written by scripts/write-reference.ts (npm run reference) from docs/openapi.json. Do not edit.
# ruff: noqa: I001, UP013
"""What servers and registries answer, as JSON. A newer server may send more keys."""

from typing import Any, Literal, TypedDict, Union

${[...written.values()].map((text) => `\n${text}`).join('\n')}`;
}

const literal = (value: unknown): string =>
  typeof value === 'boolean' ? (value ? 'True' : 'False') : JSON.stringify(value);

const pascal = (key: string): string =>
  key
    .split(/[^a-z0-9]+/i)
    .map((word) => word.slice(0, 1).toUpperCase() + word.slice(1))
    .join('');

/** What tells a member of a union from the others: the value of its field `type`. */
function suffixOf({ properties }: Schema): string {
  const value = properties?.type?.const;
  return typeof value === 'string' ? pascal(value) : '';
}
