import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { TomaatError, withoutTrailingSlashes } from '@tomaat/core';
import envPaths from 'env-paths';
import { parse as parseYaml } from 'yaml';
import { z } from 'zod';
import { isIssuerAddress, parseClaimRule } from './access/claims.ts';
import { isLoopback } from './addresses.ts';
import { type Device, deviceForms, formatDevices, parseDevices, slotsOf } from './runtimes/devices.ts';
import { faceNames, kebab, logLevels, settings } from './settings.ts';
import { parseBucketAddress } from './store/blobs/bucket.ts';
import { parseModelServerKey } from './trust/model-servers.ts';

/** The default data folder, that of the user. */
export const defaultDataFolder = (): string => envPaths('tomaat', { suffix: '' }).data;

/** The data folder of a command. */
export const dataFolderFor = ({ data }: { data?: string }): string =>
  data ?? process.env.TOMAAT_DATA ?? defaultDataFolder();

/** A number, or text that looks like one (from a variable or flag); nothing else, and not empty. */
const numeric = (schema: z.ZodNumber) =>
  z.preprocess(
    (value) =>
      typeof value === 'string' && /^\s*[+-]?\d+(\.\d+)?(e\+?\d+)?\s*$/i.test(value) ? Number(value) : value,
    schema,
  );
const aPort = 'must be a port, 0 to 65535 (0: a free one)';
const port = numeric(z.number(aPort).int(aPort).min(0, aPort).max(65_535, aPort));
const list = <T extends string>(item: z.ZodType<T>) =>
  z.preprocess(
    (value) =>
      typeof value === 'string'
        ? value
            .split(',')
            .map((part) => part.trim())
            .filter(Boolean)
        : value,
    z.array(item, 'must be a list'),
  );
const truths: Record<string, boolean> = {
  true: true,
  '1': true,
  yes: true,
  on: true,
  false: false,
  '0': false,
  no: false,
  off: false,
};
const flag = z.preprocess(
  (value) => (typeof value === 'string' ? (truths[value.toLowerCase()] ?? value) : value),
  z.boolean('must be true or false'),
);
const count = (least: number, what: string) =>
  numeric(
    z
      .number(`must be a whole number ${what}`)
      .int(`must be a whole number ${what}`)
      .min(least, `must be at least ${least}`),
  );
const text = z.string('must be text').min(1, 'must not be empty');
const claimRule = z.string('must be text').refine((rule) => parseClaimRule(rule) !== undefined, {
  error: 'must be CLAIM=VALUE, such as groups=radiology or email=@hospital.example',
});
/** One device, or several cards; see `parseDevices()`. */
export const deviceSetting = z
  .preprocess(
    (value) => (Array.isArray(value) ? formatDevices(value) : value),
    z.string('must be text').refine((text) => parseDevices(text) !== undefined, {
      error: `must be one of: ${deviceForms}`,
    }),
  )
  .transform((text): readonly Device[] => parseDevices(text) ?? []);
const httpAddress = z.url({ protocol: /^https?$/, error: 'must be an http or https address' });

const plainAddress = httpAddress
  .refine((address) => !/[?#]|\/\/[^/]*@/.test(address), {
    error: 'must be a plain address, such as https://server.example',
  })
  .transform(withoutTrailingSlashes);

/** The allowed values of each setting. */
export const configSchema = z.strictObject({
  data: text,
  database: text.optional(),
  blobs: text
    .refine((value) => !/^[a-z0-9+.-]+:\/\//i.test(value) || parseBucketAddress(value) !== undefined, {
      error:
        'must be a folder, or a bucket as s3://BUCKET/PREFIX or s3://BUCKET/PREFIX?endpoint=https://HOST',
    })
    .optional(),
  maxCacheBytes: count(0, 'of bytes').default(settings.maxCacheBytes.default),
  deleteAfterSeconds: count(0, 'of seconds').default(settings.deleteAfterSeconds.default),
  host: text.default(settings.host.default),
  port: port.default(settings.port.default),
  tlsPort: port.default(settings.tlsPort.default),
  registryPort: port.default(settings.registryPort.default),
  gatewayPort: port.default(settings.gatewayPort.default),
  tlsCert: text.optional(),
  tlsKey: text.optional(),
  announce: list(httpAddress).default([]),
  announceKey: text.optional(),
  publicUrl: plainAddress.optional(),
  registryPublicUrl: plainAddress.optional(),
  ca: text.optional(),
  default: text.optional(),
  allowNet: list(z.union([z.cidrv4(), z.cidrv6()], 'must be a range such as 10.1.0.0/16')).default([]),
  modelServerKeys: z
    .preprocess(
      (value) => (typeof value === 'string' ? value.split(/[,\n]/) : value),
      z.array(z.string('must be text').trim(), 'must be a list of HOST:PORT=KEY'),
    )
    .transform((lines) => lines.filter((line) => line !== ''))
    .refine((lines) => lines.every((line) => parseModelServerKey(line) !== undefined), {
      error: 'must be HOST:PORT=KEY, such as triton.example:8001=KEY, the key without spaces',
    })
    .default([]),
  oidcIssuer: text
    .refine(isIssuerAddress, {
      error: 'must be an https address without ? and # (or http on this machine)',
    })
    .optional(),
  oidcClientId: text.optional(),
  oidcClientSecret: text.optional(),
  oidcScopes: list(text).default([...settings.oidcScopes.default]),
  oidcAllow: list(claimRule).default([]),
  oidcAdmin: list(claimRule).default([]),
  oidcAudience: text.optional(),
  contact: z
    .string('must be text')
    .trim()
    .min(1, 'must not be empty')
    .max(200, 'must be at most 200 characters')
    .refine((line) => !/[\p{Cc}\p{Zl}\p{Zp}]/u.test(line), {
      error: 'must be one line without control characters',
    })
    .optional(),
  login: flag.default(false),
  tlsSelfMade: flag.default(false),
  allowHost: list(
    z.string().regex(/^[a-z0-9_.-]+$|^\[?[0-9a-f:.]+\]?$/i, 'must be a name or an address'),
  ).default([]),
  allowOrigin: list(
    httpAddress.refine((origin) => URL.canParse(origin) && new URL(origin).origin === origin, {
      error: 'must be an origin such as https://viewer.example',
    }),
  ).default([]),
  faces: list(z.enum(faceNames, `must be a list of: ${faceNames.join(', ')}`)).default([]),
  legacyPort: port.optional(),
  registryLegacyPort: port.optional(),
  legacyPerMinute: count(1, 'of requests').default(settings.legacyPerMinute.default),
  dicomweb: plainAddress.optional(),
  dicomwebCredentials: text
    .refine((value) => value.includes(':') || /^[\w.~+/-]+=*$/.test(value), {
      error: 'must be USER:PASSWORD, or a bearer token',
    })
    .optional(),
  maxUploadBytes: count(1, 'of bytes').default(settings.maxUploadBytes.default),
  minBytesPerSecond: count(0, 'of bytes').default(settings.minBytesPerSecond.default),
  maxVoxels: count(1, 'of voxels').default(settings.maxVoxels.default),
  maxQueued: count(1, 'of predictions').default(settings.maxQueued.default),
  workers: count(0, 'of predictions').default(settings.workers.default),
  device: deviceSetting.prefault(settings.device.default),
  rewrite: flag.default(true),
  drainSeconds: count(0, 'of seconds').default(settings.drainSeconds.default),
  memoryMb: count(0, 'of MB').optional(),
  maxIdleMb: count(0, 'of MB').optional(),
  allowIdentity: z
    .preprocess(
      // YAML and variables write it as a truth value, too.
      (value) => (typeof value === 'boolean' ? (value ? 'yes' : 'no') : value),
      z.enum(['yes', 'local', 'no'], 'must be one of: yes, local, no'),
    )
    .default(settings.allowIdentity.default),
  stripInputs: flag.default(false),
  withholdModels: flag.default(false),
  keepMinutes: count(1, 'of minutes').default(settings.keepMinutes.default),
  logLevel: z.enum(logLevels, `must be one of: ${logLevels.join(', ')}`).default(settings.logLevel.default),
} satisfies Record<keyof typeof settings, z.ZodType>);
export type Config = Readonly<z.infer<typeof configSchema>>;
export type ConfigKey = keyof Config;
export type ConfigSource = 'default' | 'file' | 'env' | 'flag';

export interface LoadedConfig {
  readonly config: Config;
  /** The layer that each key came from: a default port may be replaced if it is in use. */
  readonly sources: Readonly<Record<ConfigKey, ConfigSource>>;
  readonly file?: string;
}

export interface ConfigLayers {
  /** As given on the command line; undefined for absent flags. */
  flags?: Partial<Record<ConfigKey, unknown>>;
  /** --config: this file instead of tomaat.config.yaml in the data folder. */
  configFile?: string;
  env?: NodeJS.ProcessEnv;
}

const fileName = 'tomaat.config.yaml';
const keys = Object.keys(configSchema.shape) as ConfigKey[];
const variableOf = (key: string) => `TOMAAT_${kebab(key).replaceAll('-', '_').toUpperCase()}`;

/**
 * The configuration, layered once: defaults, then the file, then TOMAAT_… variables, then flags. All faults of
 * all layers are reported in one BAD_REQUEST, each with its place.
 */
export function loadConfig({ flags = {}, configFile, env = process.env }: ConfigLayers = {}): LoadedConfig {
  const faults: string[] = [];
  const values: Partial<Record<ConfigKey, unknown>> = {};
  const sources = Object.fromEntries(keys.map((key) => [key, 'default'])) as Record<ConfigKey, ConfigSource>;

  const put = (source: ConfigSource, key: ConfigKey, raw: unknown, name: string) => {
    const parsed = configSchema.shape[key].safeParse(raw);
    if (!parsed.success) {
      const isSecret = 'hasNoFlag' in settings[key];
      const isShort = typeof raw === 'string' || typeof raw === 'number';
      const shown = isShort && !isSecret ? ` “${String(raw).slice(0, 60)}”` : '';
      faults.push(
        `${name}${shown} ${[...new Set(parsed.error.issues.map((issue) => issue.message))].join(', ')}.`,
      );
      return;
    }
    values[key] = parsed.data;
    sources[key] = source;
  };

  const asked = configFile ?? env.TOMAAT_CONFIG;
  const dataOf = flags.data ?? env.TOMAAT_DATA ?? defaultDataFolder();
  const path = asked ?? join(String(dataOf), fileName);
  const file = existsSync(path) ? path : undefined;
  if (asked !== undefined && !file) faults.push(`There is no configuration file ${asked}. Check --config.`);
  for (const [key, raw] of Object.entries(file ? readConfigFile(file, faults) : {})) {
    if (isKey(key)) put('file', key, raw, `${key} in ${file}:`);
    else faults.push(`${key} in ${file} is not a setting.${didYouMean(key)}`);
  }
  for (const key of keys) {
    const name = variableOf(key);
    const raw = env[name];
    // Kubernetes sets TOMAAT_PORT=tcp://… for a Service named tomaat.
    if (raw !== undefined && raw !== '' && !/^(tcp|udp):\/\//.test(raw)) put('env', key, raw, `${name}:`);
  }
  for (const key of keys) if (flags[key] !== undefined) put('flag', key, flags[key], `--${kebab(key)}`);

  if (values.data === undefined) values.data = defaultDataFolder();
  if ((values.tlsCert === undefined) !== (values.tlsKey === undefined)) {
    faults.push('--tls-cert and --tls-key belong together, but only one was given. Give both, or neither.');
  }
  if ((values.oidcIssuer === undefined) !== (values.oidcClientId === undefined)) {
    faults.push(
      '--oidc-issuer and --oidc-client-id belong together, but only one was given. Give both, or neither.',
    );
  } else if (values.oidcIssuer === undefined) {
    const alone = keys.filter((key) => key.startsWith('oidc') && values[key] !== undefined);
    if (alone.length > 0)
      faults.push(`${alone.join(', ')} has no effect without --oidc-issuer. Give --oidc-issuer too.`);
  }
  if (values.oidcIssuer !== undefined && values.login !== true)
    faults.push('--oidc-issuer has no effect without --login. Give --login too.');
  if (values.blobs !== undefined && values.database === undefined)
    faults.push(
      '--blobs is for servers that share a database: backup, restore and erase of a data folder know only the files in it. Give --database too, or leave --blobs out.',
    );
  faults.push(...archiveFaults(values));
  const devices = (values.device as readonly Device[] | undefined) ?? [];
  const fault = deviceFault(devices, values.workers as number | undefined);
  if (fault) faults.push(fault);
  const scopes = values.oidcScopes as readonly string[] | undefined;
  if (scopes && !scopes.includes('openid')) faults.push('--oidc-scopes lacks openid. Add it.');
  if (faults.length > 0) {
    const head = faults.length === 1 ? '' : `${faults.length} settings are wrong:\n`;
    throw new TomaatError(
      'BAD_REQUEST',
      head + faults.map((fault) => (head ? `  - ${fault}` : fault)).join('\n'),
    );
  }
  const config = configSchema.parse(values);
  return {
    config: Object.freeze({ ...config, data: resolve(config.data) }),
    sources: Object.freeze(sources),
    file,
  };
}

/** How networks are computed, with the settings of a command that reads no file of them. */
export function engineOf(
  { rewrite, data }: { rewrite?: boolean; data?: string },
  env: NodeJS.ProcessEnv = process.env,
): Pick<Config, 'rewrite' | 'data'> {
  const said = env[variableOf('rewrite')] || undefined;
  const parsed = configSchema.shape.rewrite.safeParse(rewrite === false ? false : said);
  if (!parsed.success)
    throw new TomaatError(
      'BAD_REQUEST',
      `${variableOf('rewrite')}: “${said?.slice(0, 60)}” must be true or false.`,
    );
  return { rewrite: parsed.data, data: dataFolderFor({ data }) };
}

/** Why this number of workers, if one was given, does not fit the cards. */
export function deviceFault(devices: readonly Device[], workers: number | undefined): string | undefined {
  const isFitting = workers === undefined || devices.length === 0 || slotsOf(devices, workers) === workers;
  if (isFitting) return undefined;
  const predictions = `${devices.length} prediction${devices.length === 1 ? '' : 's'}`;
  return `--workers ${workers} does not fit --device ${formatDevices(devices)}, which computes ${predictions} at a time. Leave --workers out, or give --device cpu.`;
}

/** What does not fit together in the settings of the archive. */
function archiveFaults(values: Partial<Record<ConfigKey, unknown>>): string[] {
  const { dicomweb, dicomwebCredentials, faces } = values;
  if (typeof dicomweb !== 'string') {
    return dicomwebCredentials === undefined
      ? []
      : ['dicomwebCredentials has no effect without --dicomweb. Give --dicomweb too.'];
  }
  const faults: string[] = [];
  if (!(faces as readonly string[] | undefined)?.includes('monailabel'))
    faults.push('--dicomweb has no effect without --faces monailabel. Give that too.');
  const { protocol, hostname, host } = new URL(dicomweb);
  if (dicomwebCredentials !== undefined && protocol === 'http:' && !isLoopback(hostname))
    faults.push(`dicomwebCredentials would be sent to ${host} unencrypted. Use https:// for --dicomweb.`);
  return faults;
}

function readConfigFile(file: string, faults: string[]): Record<string, unknown> {
  let data: unknown;
  try {
    data = parseYaml(readFileSync(file, 'utf8'));
  } catch (error) {
    faults.push(`${file} cannot be read: ${(error as Error).message.split('\n')[0]}`);
    return {};
  }
  if (data === null || data === undefined) return {};
  if (typeof data !== 'object' || Array.isArray(data)) {
    faults.push(`${file} must contain lines such as “port: 9000”.`);
    return {};
  }
  return data as Record<string, unknown>;
}

function isKey(key: string): key is ConfigKey {
  return Object.hasOwn(configSchema.shape, key);
}

function didYouMean(key: string): string {
  const plain = (word: string) => word.replace(/[-_]/g, '').toLowerCase();
  const close =
    keys.find((known) => plain(known) === plain(key)) ??
    keys.find((known) => plain(known).startsWith(plain(key).slice(0, 4)));
  return close ? ` Did you mean ${close}?` : ` Available: ${keys.join(', ')}.`;
}
