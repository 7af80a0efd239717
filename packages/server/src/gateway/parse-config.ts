import { readFile, stat } from 'node:fs/promises';
import { dirname, resolve, sep } from 'node:path';
import {
  type DataFault,
  type FileFault,
  faultsOfSchema,
  listFaults,
  readYaml,
  TomaatError,
  withoutTrailingSlashes,
} from '@tomaat/core';
import { parseFingerprint } from '../trust/known-hosts.ts';
import type {
  DestinationConfig,
  DicomWebAddress,
  GatewayConfig,
  Rule,
  ServiceConfig,
  SourceConfig,
} from './config.ts';
import { configFaults, configWarnings } from './config-checks.ts';
import {
  type DestinationEntry,
  type GatewayFile,
  gatewayFileSchema,
  type RuleEntry,
  type ServiceEntry,
  type SourceEntry,
} from './config-schema.ts';
import { type NamedFiles, openNamedFiles } from './secret-files.ts';
import { soundParts } from './sound-parts.ts';

export interface ParsedConfig {
  readonly config: GatewayConfig;
  /** What works, but is probably not what was meant, in the order of the file. */
  readonly warnings: readonly FileFault[];
}

/**
 * Reads a gateway's file of rules, with the files of secrets that it names. Paths in it are relative to its folder.
 * @param file its path
 * @throws TomaatError BAD_REQUEST with every fault, each with its line, its path and what to do; `detail.faults` has them as data
 */
export function parseGatewayConfig(text: string, file: string): ParsedConfig {
  const { data, faults: yamlFaults, place } = readYaml(text);
  if (yamlFaults.length > 0) throw refuse(file, yamlFaults);
  const result = gatewayFileSchema.safeParse(data);
  const found: DataFault[] = result.success ? [] : faultsOfSchema(result.error.issues);
  const { parts, isSound } = soundParts(data);
  const further: DataFault[] = configFaults(parts);
  const configure = createConfigurator(dirname(resolve(file)), further);
  const configured = {
    sources: mapValues(parts.sources, (source, name) => configure.source(['sources', name], source)),
    services: mapValues(parts.services, (service, name) => configure.service(['services', name], service)),
    destinations: mapValues(parts.destinations, (destination, name) =>
      configure.destination(['destinations', name], destination),
    ),
  };
  further.push(...folderFaults(configured.sources, configured.destinations));
  found.push(...further.filter(({ path }) => isSound(path)));
  if (!result.success || found.length > 0) throw refuse(file, inOrder(place(found)));
  const { sources } = configured;
  const destinations = mapValues(parts.destinations, (destination, name) =>
    destination.type === 'source' ? addressOf(sources[destination.source]) : configured.destinations[name]!,
  );
  return {
    config: Object.freeze({
      sources,
      services: configured.services,
      destinations,
      rules: result.data.rules.map(ruleOf),
      limits: limitsOf(result.data.limits),
    }),
    warnings: inOrder(place(configWarnings(parts))),
  };
}

const refuse = (file: string, faults: readonly FileFault[]): TomaatError =>
  new TomaatError('BAD_REQUEST', listFaults(file, faults), { detail: { faults } });

/** By line; those without one first. */
const inOrder = (faults: readonly FileFault[]): FileFault[] =>
  [...faults].sort((a, b) => (a.line ?? 0) - (b.line ?? 0));

const mapValues = <In, Out>(map: Readonly<Record<string, In>>, change: (value: In, name: string) => Out) =>
  Object.fromEntries(Object.entries(map).map(([name, value]) => [name, change(value, name)]));

type Path = readonly PropertyKey[];

/** Makes the parts of a configuration of those of the file: paths absolute, secrets read. */
function createConfigurator(folder: string, faults: DataFault[]) {
  const files: NamedFiles = openNamedFiles(faults);
  const absolute = (path: string) => resolve(folder, path);
  const caOf = (path: Path, file: string | undefined): string | undefined => {
    if (file === undefined) return undefined;
    files.certificates([...path, 'caFile'], absolute(file));
    return absolute(file);
  };
  const address = (
    path: Path,
    entry: Exclude<SourceEntry, { type: 'folder' }> | Extract<DestinationEntry, { type: 'dicomweb' }>,
  ): DicomWebAddress => ({
    url: withoutTrailingSlashes(entry.url),
    authorization: authorizationOf(path, entry),
    caFile: caOf(path, entry.caFile),
  });
  const authorizationOf = (
    path: Path,
    { user, passwordFile, tokenFile }: { user?: string; passwordFile?: string; tokenFile?: string },
  ) => {
    const token =
      tokenFile === undefined ? undefined : files.secret([...path, 'tokenFile'], absolute(tokenFile));
    if (token !== undefined) {
      if (token !== '' && !/^[\x21-\x7e]+$/.test(token))
        faults.push({
          path: [...path, 'tokenFile'],
          message: 'has a token with characters that no header can have. Give the token alone',
        });
      return `Bearer ${token}`;
    }
    if (passwordFile === undefined) return undefined;
    const password = files.secret([...path, 'passwordFile'], absolute(passwordFile));
    return `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
  };
  return {
    source(path: Path, source: SourceEntry): SourceConfig {
      if (source.type === 'folder') {
        files.folder([...path, 'path'], absolute(source.path));
        return { type: 'folder', path: absolute(source.path), pollMs: source.poll, quietMs: source.quiet };
      }
      const searched = {
        ...address(path, source),
        pollMs: source.poll,
        sinceDays: Math.round(source.since / 86_400_000),
        quietMs: source.quiet,
      };
      if (source.type === 'dicomweb') return { type: 'dicomweb', ...searched };
      const hookSecret = files.secret([...path, 'hookSecretFile'], absolute(source.hookSecretFile), 16);
      return { type: 'orthanc', ...searched, hookSecret };
    },
    service(path: Path, { url, service, apiKeyFile, caFile, fingerprint }: ServiceEntry): ServiceConfig {
      return {
        url: withoutTrailingSlashes(url),
        service,
        apiKey:
          apiKeyFile === undefined ? undefined : files.secret([...path, 'apiKeyFile'], absolute(apiKeyFile)),
        caFile: caOf(path, caFile),
        fingerprint: fingerprintOf([...path, 'fingerprint'], fingerprint),
      };
    },
    /** Undefined for one that is a source. */
    destination(path: Path, destination: DestinationEntry): DestinationConfig | undefined {
      if (destination.type === 'folder') return { type: 'folder', path: absolute(destination.path) };
      return destination.type === 'dicomweb'
        ? { type: 'dicomweb', ...address(path, destination) }
        : undefined;
    },
  };

  function fingerprintOf(path: Path, fingerprint: string | undefined): string | undefined {
    if (fingerprint === undefined) return undefined;
    try {
      return parseFingerprint(fingerprint);
    } catch (error) {
      faults.push({ path, message: (error as Error).message });
      return undefined;
    }
  }
}

function addressOf(source: SourceConfig): DestinationConfig {
  // configFaults() has refused folders.
  const { url, authorization, caFile } = source as DicomWebAddress;
  return { type: 'dicomweb', url, authorization, caFile };
}

/** Folders of results in folders that are read: each result would be read again. */
function folderFaults(
  sources: Readonly<Record<string, SourceConfig>>,
  destinations: Readonly<Record<string, DestinationConfig | undefined>>,
): DataFault[] {
  const read = Object.values(sources).flatMap((source) => (source.type === 'folder' ? source.path : []));
  return Object.entries(destinations).flatMap(([name, destination]) => {
    if (destination?.type !== 'folder') return [];
    const around = read.find((path) => isInside(destination.path, path));
    return around === undefined
      ? []
      : [
          {
            path: ['destinations', name, 'path'],
            message: `is in ${around}, from which series are read. Give another folder`,
          },
        ];
  });
}

const isInside = (path: string, folder: string): boolean =>
  `${path}${sep}`.startsWith(`${folder}${sep}`.replace(/\/\/$/, '/'));

function ruleOf({
  id,
  when,
  service,
  destinations,
  parameters,
  results,
  identity,
  keepPatientCharacteristics,
  urgency,
}: RuleEntry): Rule {
  return {
    id,
    when,
    service,
    destinations,
    parameters,
    results: [...new Set(results)],
    keepIdentity: identity === 'keep',
    keepPatientCharacteristics,
    urgency,
  };
}

const limitsOf = (limits: GatewayFile['limits']): GatewayConfig['limits'] => ({
  concurrency: limits.concurrency,
  firstPauseMs: limits.firstPause,
  longestPauseMs: limits.longestPause,
  giveUpMs: limits.giveUp,
  keepMs: limits.keep,
  maxSeriesBytes: limits.maxSeriesBytes,
});

const maxFileBytes = 4_000_000;

/** The same from a file. @throws TomaatError BAD_REQUEST also for one that is not there, or cannot be a file of rules */
export async function readGatewayConfig(file: string): Promise<ParsedConfig> {
  const fault = (what: string) => new TomaatError('BAD_REQUEST', `${file} ${what}`);
  let bytes: Buffer;
  try {
    const found = await stat(file);
    if (!found.isFile()) throw fault('is not a file. Give the file of rules with --config.');
    if (found.size > maxFileBytes) throw fault('is too large for a file of rules. Check --config.');
    bytes = await readFile(file);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') throw fault('does not exist. Check --config.');
    if (code === 'EACCES')
      throw fault('cannot be read by the user who runs the gateway. Check its permissions.');
    throw error;
  }
  const text = bytes.toString('utf8');
  if (text.includes('\ufffd')) throw fault('is not text in UTF-8. Save it as UTF-8.');
  return parseGatewayConfig(text, file);
}
